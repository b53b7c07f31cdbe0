"""Group norm: statistics over some channels and the spatial axes of each sample."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import HOST, place_of
from numbanorm._engine import checked_scale
from numbanorm._errors import check_groups, degenerate_batch
from numbanorm._masks import MaskArguments
from numbanorm._replay import replayed
from numbanorm.norms._checks import (
    channel_axis_of,
    channel_parameters,
    checked_input,
    normalized,
    other_axes,
    sample_axis_of,
)

Array = NDArray[Any]


@replayed
def group_norm(
    x: Any,
    num_groups: int,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Group normalisation (Wu & He 2018): each group of channels of each sample by itself.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with statistics over ``C / num_groups``
    neighbouring channels and the spatial axes. One group is a layer norm of the whole sample
    with parameters per channel; C groups are an instance norm.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C) or (N, C, ...).
    num_groups : int
        Number of groups; divides C.
    gamma, beta : array_like, optional
        Scale and shift per channel, (C,).
    eps : float
        Added to the variance.
    channel_axis : int
        Axis of the channels; the first of the others is that of the samples.
    where : array_like of bool, optional
        Which elements take part, broadcast to x. The others count in no statistic, whatever they hold.
    lengths : array_like of int, optional
        (N,), of padded samples: how many of the first elements along `length_axis` take part.
    length_axis : int, optional
        By default the first axis that is neither the samples' nor the channels'.
    padding : {"zero", "keep"}
        What becomes of elements that take no part: 0, or what x holds there.
    out : array, optional
        Where to put the result; x itself is allowed.
    return_stats : bool
        Also return ``mean`` and ``rstd``, repeated per channel so that they broadcast against x.

    Returns
    -------
    y : array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If `num_groups` is not positive or does not divide C, `eps` is negative, there is a
        single value per channel in all, or a length does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.group_norm(np.array([[1.0, 3.0, 10.0, 50.0]]), 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    options = eps, channel_axis, MaskArguments(where, lengths, length_axis, padding)
    y, *statistics = normalize_groups(x, num_groups, gamma, beta, *options, out, return_stats)
    if not return_stats:
        return y
    place, axis = place_of(y), channel_axis_of(y, channel_axis)
    size = y.shape[axis] // index(num_groups)
    return (y, *(place.evaluate(lambda s: np.repeat(s.squeeze(axis + 1), size, axis), s) for s in statistics))


@replayed
def normalize_groups(
    x: Any,
    num_groups: int,
    gamma: Any,
    beta: Any,
    eps: float,
    channel_axis: int,
    chosen: MaskArguments,
    out: Any,
    return_stats: bool,
) -> tuple[Any, ...]:
    """:func:`group_norm` with one mean and one rstd for each group, shaped as x with its channels split in two axes."""
    array, backend = checked_input(x, out, gamma=gamma, beta=beta, where=chosen.where)
    axis = channel_axis_of(array, channel_axis)
    channels = array.shape[axis]
    num_groups = index(num_groups)
    check_groups(channels, num_groups)
    scale = checked_scale("group_norm", eps)
    _, gamma, beta = channel_parameters(gamma, beta, channels, axis)
    if array.size == num_groups:
        raise degenerate_batch(array.shape)
    shape = (*array.shape[:axis], num_groups, channels // num_groups, *array.shape[axis + 1 :])
    # Splitting an axis never copies, so `out` is still written in place.
    target = None if out is None else (np.asarray(out) if place_of(out) is HOST else out).reshape(shape)
    reduced = other_axes(len(shape), axis, sample_axis_of(axis) + (axis == 0))
    features = ((axis, axis + 1), gamma, beta)
    mask = chosen.of(array, axis)
    split_mask = None if mask is None else mask.split(place_of(array), shape, axis)
    result = normalized(backend, array.reshape(shape), reduced, features, scale, split_mask, target, return_stats)
    y, *statistics = result if return_stats else (result,)
    return (out if out is not None else y.reshape(array.shape), *statistics)
