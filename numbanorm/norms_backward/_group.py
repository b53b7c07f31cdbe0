"""Gradients of instance and group norm."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arguments import as_array
from numbanorm._arrays import HOST, place_of
from numbanorm._engine import Scale
from numbanorm._engine_backward import Gradients, Sets, normalize_backward
from numbanorm._errors import ShapeError, check_groups, degenerate_batch
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.norms._checks import (
    channel_axis_of,
    channel_parameters,
    other_axes,
    sample_axis_of,
    spatial_axes,
)
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic

Array = NDArray[Any]


@everywhere
def instance_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.instance_norm`.

    With ``xhat = (x - mean) * rstd``::

        dx = gamma * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))    over the spatial axes
        dgamma = sum(dy * xhat), dbeta = sum(dy)                        and the samples

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    gamma : array_like or None
        (C,), as in the forward.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``, or with the shape of x's samples and
        channels, in the order of x's axes.
    channel_axis : int
        As in the forward.
    where, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        (C,); None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If there is only one spatial element, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([[[1.0, 2.0, 4.0]]]), np.ones(1)
    >>> y, mean, rstd = nn.instance_norm(x, gamma, return_stats=True)
    >>> nn.instance_norm_backward(np.array([[[1.0, 0.0, 0.0]]]), x, gamma, mean, rstd)[0].round(3)
    array([[[ 0.229, -0.344,  0.115]]])
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    features, gamma, _ = channel_parameters(gamma, None, array.shape[axis], axis)
    reduced = spatial_axes(array, axis)
    mean, rstd = (checked_statistic(n, s, array.shape, reduced) for n, s in (("mean", mean), ("rstd", rstd)))
    has = gamma is not None
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    sets = Sets(reduced, features if has else (), dgamma=has, dbeta=has, mask=mask)
    return normalize_backward(backend, gradient, array, gamma, mean, rstd, sets, Scale(0.0), out)


@everywhere
def group_norm_backward(
    dy: Any,
    x: Any,
    num_groups: int,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.group_norm`.

    With ``xhat = (x - mean) * rstd`` and ``g = dy * gamma``::

        dx = rstd * (g - mean(g) - xhat * mean(g * xhat))    over each group of each sample
        dgamma = sum(dy * xhat), dbeta = sum(dy)             over samples and spatial axes

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    num_groups : int
        As in the forward.
    gamma : array_like or None
        (C,), as in the forward.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``; or one per group instead of one
        per channel, and without the spatial axes: (N, num_groups).
    channel_axis : int
        As in the forward.
    where, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        (C,); None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If `num_groups` is not positive or does not divide C, there is a single value per group
        in all, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([[1.0, 2.0, 4.0, 7.0, 8.0, 9.0]]), np.ones(6)
    >>> y, mean, rstd = nn.group_norm(x, 2, gamma, return_stats=True)
    >>> dy = np.array([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    >>> nn.group_norm_backward(dy, x, 2, gamma, mean, rstd)[0].round(3)
    array([[ 0.229, -0.344,  0.115,  0.   ,  0.   ,  0.   ]])
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    channels = array.shape[axis]
    num_groups = index(num_groups)
    check_groups(channels, num_groups)
    _, gamma, _ = channel_parameters(gamma, None, channels, axis)
    if array.size == num_groups:
        raise degenerate_batch(array.shape)
    split = (num_groups, channels // num_groups)
    shape = (*array.shape[:axis], *split, *array.shape[axis + 1 :])
    reduced = other_axes(len(shape), axis, sample_axis_of(axis) + (axis == 0))
    mean, rstd = (_per_group(n, s, array, axis, shape, reduced) for n, s in (("mean", mean), ("rstd", rstd)))
    has = gamma is not None
    # Where there is one group, or one channel in each, that axis of features is dropped by the plan.
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    mask = None if mask is None else mask.split(place_of(array), shape, axis)
    sets = Sets(reduced, (axis, axis + 1) if has else (), dgamma=has, dbeta=has, mask=mask)
    target = None if out is None else (np.asarray(out) if place_of(out) is HOST else out).reshape(shape)
    gamma = None if gamma is None else gamma.reshape(split)
    dx, *rest = normalize_backward(
        backend, gradient.reshape(shape), array.reshape(shape), gamma, mean, rstd, sets, Scale(0.0), target
    )
    dgamma, dbeta = (None if g is None else g.reshape(channels) for g in rest)
    return out if out is not None else dx.reshape(array.shape), dgamma, dbeta


def _per_group(name: str, value: Any, x: Array, axis: int, shape: tuple[int, ...], reduced: tuple[int, ...]) -> Array:
    """A statistic with one number per group, of one that may be repeated per channel."""
    statistic = as_array(value, name)
    sample = sample_axis_of(axis)
    full = tuple(n if i in (axis, sample) else 1 for i, n in enumerate(x.shape))
    if statistic.shape == full:
        spread = statistic.reshape(*full[:axis], *shape[axis : axis + 2], *full[axis + 1 :])
        first = (slice(None),) * (axis + 1) + (slice(1),)
        return checked_statistic(name, spread[first], shape, reduced)
    try:
        return checked_statistic(name, statistic, shape, reduced)
    except ShapeError:
        kept = tuple(shape[i] for i in range(len(shape)) if i not in reduced)
        raise ShapeError(f"{name} should have shape {full} or {kept}, but has {statistic.shape}") from None
