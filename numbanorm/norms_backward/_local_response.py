"""Gradient of local response norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import HOST, place_of
from numbanorm._engine_backward import _clash, _lies_as, _like
from numbanorm._engine_masked import put_right
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm._norm_plan import norm_plan
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms._local_response import Window, channel_cube, without_padding
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
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
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
    where, lengths, length_axis, padding
        As in the forward; dx is zero where x has no part, or with "keep" dy.
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
    window, exponents = Window.of(size, alpha, convention), (float(beta), float(k))
    mask, place = MaskArguments(where, lengths, length_axis, padding).of(array, axis), place_of(array)
    if mask is None:
        return _flow_back(backend, place, gradient, array, axis, window, exponents, out)
    dy_inside, x_inside = (without_padding(place, a, mask) for a in (gradient, array))
    dx = _flow_back(backend, place, dy_inside, x_inside, axis, window, exponents, None)
    return put_right(place, gradient, dx, mask, out)


def _flow_back(
    backend: Any,
    place: Any,
    dy: Array,
    x: Array,
    axis: int,
    window: Window,
    exponents: tuple[float, float],
    out: Array | None,
) -> Array:
    """dx of all elements; `exponents` are beta and k."""
    roles = (axis,), (), False
    plan = norm_plan(x.shape, x.strides, x.dtype, *roles)
    dx = _target(place, dy, x, plan, roles, out)
    if x.size:
        if not (plan.dense and place.is_aligned(x)):
            x = _like(place, x, dx)
        if dy.dtype != plan.dtype or not place.is_aligned(dy) or not _lies_as(dy, plan):
            dy = _like(place, dy, dx)
        cube = channel_cube(plan, axis)
        operands = (plan.norm.arranged(a).reshape(cube) for a in (dy, x))
        scale = window.before, window.after, window.alpha, *exponents
        backend.local_response_backward(*operands, *scale, plan.norm.arranged(dx).reshape(cube))
    return dx if out is None else _engine._delivered(place, dx, out)


def _target(place: Any, dy: Array, x: Array, plan: Any, roles: tuple[Any, Any, bool], out: Any) -> Array:
    """Where kernels write dx: `out` if they can, else new memory that lies as x does."""
    if out is not None and _engine._can_hold(place, out, x, plan.dtype, ((), None, None)):
        dx = np.asarray(out) if place is HOST else out
        if norm_plan(dx.shape, dx.strides, dx.dtype, *roles).lay == plan.lay and not _clash(place, dx, dy):
            return dx
    return _engine.empty(place, plan)
