"""Gradient of ghost batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arguments import as_array
from numbanorm._arrays import HOST, place_of
from numbanorm._dtypes import compute_dtype, norm_dtype
from numbanorm._engine_backward import Gradients
from numbanorm._errors import ShapeError
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms._ghost import virtual_batches
from numbanorm.norms_backward._batch import batch_norm_backward
from numbanorm.norms_backward._checks import checked_gradient

Array = NDArray[Any]


@everywhere
def ghost_batch_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    virtual_batch_size: int,
    training: bool,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.ghost_batch_norm`: that of batch norm in each virtual batch.

    Parameters
    ----------
    dy, x, gamma : array_like
        As in :func:`batch_norm_backward`.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``: (n_virtual, C) in training.
    virtual_batch_size, training, channel_axis, where, lengths, length_axis, padding
        As in the forward.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        (C,), summed over the virtual batches in float64; None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If a virtual batch has one value per channel in training, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([[1.0], [2.0], [4.0], [3.0], [5.0], [7.0]]), np.ones(1)
    >>> y, *saved = nn.ghost_batch_norm(x, gamma, virtual_batch_size=3, training=True, return_stats=True)
    >>> dy = np.array([[1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    >>> dx, dgamma, dbeta = nn.ghost_batch_norm_backward(dy, x, gamma, *saved, virtual_batch_size=3, training=True)
    >>> dx.round(3).ravel()
    array([ 0.229, -0.344,  0.115,  0.   ,  0.   ,  0.   ])
    """
    chosen = MaskArguments(where, lengths, length_axis, padding)
    if not training:
        options: dict[str, Any] = {"channel_axis": channel_axis, "out": out, **chosen.given()}
        return batch_norm_backward(dy, x, gamma, mean, rstd, training=False, **options)
    gradient, array, _ = checked_gradient(dy, x, out, gamma, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    pieces = virtual_batches(array, axis, virtual_batch_size)
    mean, rstd = (_rows(n, s, (len(pieces), array.shape[axis])) for n, s in (("mean", mean), ("rstd", rstd)))
    mask = chosen.of(array, axis)
    place = place_of(array)
    dx = _target(place, gradient, array, out)
    sums: list[Any] = []
    for piece, mu, r in zip(pieces, mean, rstd, strict=True):
        operands = gradient[piece], array[piece], gamma, mu, r
        options = {"channel_axis": channel_axis, "out": dx[piece], **(mask.part(piece) if mask else chosen).given()}
        _, *rest = batch_norm_backward(*operands, training=True, **options)
        sums.append(rest)
    if out is not None and not place.overlap(out, dx):
        place.copy(out, dx)
    dx = dx if out is None else out
    if gamma is None:
        return dx, None, None
    dtype = compute_dtype(array.dtype)

    def total(*parts: Array) -> Array:
        return sum(part.astype(np.float64) for part in parts).astype(dtype)  # type: ignore[union-attr]

    dgamma, dbeta = (place.evaluate(total, *parts) for parts in zip(*sums, strict=True))
    return dx, dgamma, dbeta


def _rows(name: str, value: Any, shape: tuple[int, int]) -> Array:
    """A statistic with a row per virtual batch."""
    statistic = as_array(value, name)
    norm_dtype(statistic.dtype, name)
    if statistic.shape != shape:
        raise ShapeError(f"{name} should have shape {shape}, a row per virtual batch, but has {statistic.shape}")
    return statistic


def _target(place: Any, dy: Array, x: Array, out: Any) -> Array:
    """Where to write piece by piece: `out`, unless that would write over pieces to come."""
    if out is not None and all(not place.overlap(a, out) or _engine._same_memory(place, a, out) for a in (dy, x)):
        return np.asarray(out) if place is HOST else out
    return _engine.empty_like(place, x)
