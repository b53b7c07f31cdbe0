"""Gradient of the scaling to unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import place_of
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale, checked_scale
from numbanorm._engine_backward import Sets, normalize_backward, weighted_backward
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments, weights_of
from numbanorm._reduction import statistics
from numbanorm.norms._checks import other_axes
from numbanorm.norms_backward._checks import checked_gradient, count_of

Array = NDArray[Any]


@everywhere
def l2_normalize_backward(
    dy: Any,
    x: Any,
    axis: Axis = -1,
    *,
    eps: float = 1e-12,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Array:
    """Gradient of :func:`numbanorm.l2_normalize`.

    With ``r = 1 / sqrt(sum(x**2) + eps**2)`` and ``y = x * r``::

        dx = r * (dy - y * sum(dy * y))    over axis

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward scaled.
    axis, eps
        As in the forward.
    where, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    array
        dx, with x's shape, dtype and layout. For a vector of zeros it is ``dy / eps``.

    Raises
    ------
    TypeError
        If dy or x is not floating point.
    ValueError
        If `eps` is negative, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.l2_normalize_backward(np.array([1.0, 0.0]), np.array([3.0, 4.0])).round(3)
    array([ 0.128, -0.096])
    """
    gradient, array, backend = checked_gradient(dy, x, out, None, None, None, where=where)
    checked_scale("l2_normalize", eps)
    axes = canonicalize_axes(axis, array.ndim)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    place, scale = place_of(array), Scale(0.0, use_mean=False)
    kept = other_axes(array.ndim, *axes)
    count, zero, squares = statistics(backend, array, axes, weights_of(mask, place), use_mean=False)
    rstd = place.evaluate(lambda n, s: 1 / np.sqrt(s + eps**2 / np.maximum(n, 1)), count, squares)
    # An RMS norm by another factor: its mean square is the sum over n.
    if mask is None:
        factor = place.constant(max(count_of(array.shape, axes), 1) ** -0.5, compute_dtype(array.dtype)).reshape(())
        sets = Sets(axes, (), dgamma=False, dbeta=False)
        return normalize_backward(backend, gradient, array, factor, zero, rstd, sets, scale, out)[0]
    factor = place.evaluate(lambda n: np.maximum(n, 1) ** -0.5, count)
    sets = Sets(axes, kept, dgamma=False, dbeta=False, mask=mask)
    return weighted_backward(gradient, array, factor, zero, rstd, sets, scale, None, out)[0]
