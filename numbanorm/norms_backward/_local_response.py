"""Gradient of local response norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import HOST, place_of
from numbanorm._engine_backward import _clash, _lies_as, _like
from numbanorm._guests import everywhere
from numbanorm._norm_plan import norm_plan
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms._local_response import Window, channel_cube
from numbanorm.norms_backward._checks import checked_gradient

Array = NDArray[Any]


@everywhere
def local_response_norm_backward(
    dy: Any,
    x: Any,
    size: int = 5,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    channel_axis: int = 1,
    convention: str = "torch",
    out: Any = None,
) -> Array:
    """Gradient of :func:`numbanorm.local_response_norm`.

    With ``s = k + a * sum(x**2)`` over the window of each channel, and the second sum over the
    channels in whose windows c lies::

        dx = dy * s**-beta - 2 * a * beta * x * sum(dy * x * s**(-beta - 1))

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    size, alpha, beta, k, channel_axis, convention
        As in the forward.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    array
        dx, with x's shape, dtype and layout.

    Raises
    ------
    TypeError
        If dy or x is not floating point.
    ValueError
        If a shape does not fit, or as the forward.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> dy, x = np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 2.0, 3.0]])
    >>> nn.local_response_norm_backward(dy, x, 3, alpha=3.0, beta=1.0).round(4)
    array([[ 0.1111, -0.1111,  0.    ]])
    """
    gradient, array, backend = checked_gradient(dy, x, out, None, None, None)
    axis = channel_axis_of(array, channel_axis)
    window = Window.of(size, alpha, convention)
    place = place_of(array)
    roles = (axis,), (), False
    plan = norm_plan(array.shape, array.strides, array.dtype, *roles)
    dx = _target(place, gradient, array, plan, roles, out)
    if array.size:
        if not (plan.dense and place.is_aligned(array)):
            array = _like(place, array, dx)
        if gradient.dtype != plan.dtype or not place.is_aligned(gradient) or not _lies_as(gradient, plan):
            gradient = _like(place, gradient, dx)
        cube = channel_cube(plan, axis)
        operands = (plan.norm.arranged(a).reshape(cube) for a in (gradient, array))
        scale = window.before, window.after, window.alpha, float(beta), float(k)
        backend.local_response_backward(*operands, *scale, plan.norm.arranged(dx).reshape(cube))
    return dx if out is None else _engine._delivered(place, dx, out)


def _target(place: Any, dy: Array, x: Array, plan: Any, roles: tuple[Any, Any, bool], out: Any) -> Array:
    """Where kernels write dx: `out` if they can, else new memory that lies as x does."""
    if out is not None and _engine._can_hold(place, out, x, plan.dtype, ((), None, None)):
        dx = np.asarray(out) if place is HOST else out
        if norm_plan(dx.shape, dx.strides, dx.dtype, *roles).lay == plan.lay and not _clash(place, dx, dy):
            return dx
    return _engine.empty(place, plan)
