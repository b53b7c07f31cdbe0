"""Gradient of the general operation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import place_of
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._engine import checked_scale, saved
from numbanorm._engine_backward import Gradients, Sets, normalize_backward, weighted_backward
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments, weights_of
from numbanorm._reduction import statistics
from numbanorm.norms._standardize import _broadcast_parameters, weighted_statistics
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic

Array = NDArray[Any]


@everywhere
def standardize_backward(
    dy: Any,
    x: Any,
    gamma: Any = None,
    mean: Any = None,
    rstd: Any = None,
    *,
    axis: Axis = None,
    eps: float = 1e-5,
    eps_on: str = "var",
    ddof: float = 0,
    where: Any = None,
    weights: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.standardize`.

    With ``xhat = (x - mean) * rstd``, ``g = dy * gamma``, sums over `axis`, weights w (1 unless given)
    and their sum n::

        dx = rstd * (g - w * (sum(g) / n + xhat * sum(g * xhat) / (n - ddof)))
        dgamma = sum(dy * xhat), dbeta = sum(dy)    over the axes along which gamma is broadcast

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    gamma : array_like, optional
        As in the forward.
    mean, rstd : array_like, optional
        Statistics of x over `axis`; computed from x if one is missing. `rstd` is
        ``1 / sqrt(var + eps)`` or, with ``eps_on="std"``, ``1 / (std + eps)``.
    axis, eps, eps_on, ddof
        As in the forward.
    where, weights, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        With gamma's shape (dbeta is that of a beta of this shape); None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If `eps` is negative, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> dy, x = np.array([1.0, 0.0, 0.0]), np.array([1.0, 2.0, 4.0])
    >>> dx, dgamma, dbeta = nn.standardize_backward(dy, x)
    >>> dx.round(3), dgamma, dbeta
    (array([ 0.229, -0.344,  0.115]), None, None)
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, where=where, weights=weights)
    scale = checked_scale("standardize", eps, eps_on, ddof=ddof)
    axes = canonicalize_axes(axis, array.ndim)
    features, compact, _ = _broadcast_parameters(gamma, None, array.shape)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    taken = None
    if weights is not None and array.size:
        own_mean, own_var, taken = weighted_statistics(backend, array, axes, scale, mask, weights)
        if mean is None or rstd is None:
            mean, rstd = saved(array, own_mean, own_var, scale)
    elif mean is None or rstd is None:
        place = place_of(array)
        _, own_mean, own_var = statistics(backend, array, axes, weights_of(mask, place), scale.ddof)
        mean, rstd = saved(array, own_mean, own_var, scale)
    mean, rstd = (checked_statistic(n, s, array.shape, axes) for n, s in (("mean", mean), ("rstd", rstd)))
    has = compact is not None
    sets = Sets(axes, features, dgamma=has, dbeta=has, mask=mask)
    if taken is None:
        dx, *rest = normalize_backward(backend, gradient, array, compact, mean, rstd, sets, scale, out)
    else:
        dx, *rest = weighted_backward(gradient, array, compact, mean, rstd, sets, scale, taken, out)
    shape = np.shape(gamma) if has else ()
    dgamma, dbeta = (None if g is None else g.reshape(shape) for g in rest)
    return dx, dgamma, dbeta
