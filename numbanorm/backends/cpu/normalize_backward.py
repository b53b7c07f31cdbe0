"""Gradients of norms: dx, dgamma and dbeta of a piece while its dy and x are in cache.

Parameter gradients are sums over many rows or segments. Each part sums its own, in float64,
and parts are merged in order; parts are cut by shape, so every run gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _kernels_backward as kernels
from numbanorm.backends.cpu._columns_backward import channel_sums, write_channels
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import (
    CHANNEL_BYTES,
    MAX_PARTS,
    SERIAL_BELOW,
    SHORT_SEGMENT,
    TILE,
    channels_at_once,
    n_parts,
    n_splits,
    rows_at_once,
)
from numbanorm.backends.cpu.affine import affine_cols, affine_rows

Array = NDArray[Any]

#: ``std_eps, ddof, use_mean`` of the launchers.
Scale = tuple[float, float, bool]

#: Longer rows are cut into tiles of columns: each part would need sums as long as a row.
LONGEST_ROW = 1 << 15
#: Rows of a part, at least, so that merging the parts' sums costs little.
FEWEST_ROWS = 16
_NOTHING = np.empty((0, 0))


def norm_rows_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_rows`: x (n_rows, n_cols), one parameter per column, or one for all.

    Reads dy and x once, or twice where rows are few or longer than a part's sums may be.
    """
    n_rows, n_cols = x.shape
    wanted = dgamma.size or dbeta.size
    if gamma.size == 1 and not (wanted and n_cols > 1 and max(dgamma.size, dbeta.size) == n_cols):
        cube = (n_rows, 1, n_cols)
        views = dy.reshape(cube), x.reshape(cube)
        target = dx.reshape(cube) if dx.size else dx
        norm_groups_backward(*views, gamma, mean, rstd, std_eps, ddof, use_mean, target, dgamma, dbeta)
        return
    gamma = np.repeat(gamma, n_cols) if gamma.size < n_cols else gamma
    scale = std_eps, ddof, use_mean
    mean = mean if use_mean else np.zeros_like(rstd)
    parts = max(1, min(MAX_PARTS, n_rows // FEWEST_ROWS, x.size // SERIAL_BELOW))
    if n_cols > LONGEST_ROW or (parts == 1 and x.size >= 4 * SERIAL_BELOW):
        _rows_in_two(dy, x, gamma, mean, rstd, scale, dx, dgamma, dbeta)
        return
    n_tiles = -(-n_cols // TILE)
    sums = np.zeros((parts, n_tiles, 2, TILE) if wanted else 0)
    kernels.rows_kernel(
        parts,
        flat_input(dy),
        flat_input(x),
        n_cols,
        rows_at_once(n_cols),
        flat_input(gamma),
        flat_input(mean),
        flat_input(rstd),
        scale,
        flat_output(dx),
        sums.reshape(-1),
    )
    if wanted:
        merged = sums.sum(0) if parts > 1 else sums[0]
        for out, of_tile in ((dgamma, merged[:, 0]), (dbeta, merged[:, 1])):
            if out.size:
                out[...] = of_tile.reshape(-1)[:n_cols]


def _rows_in_two(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    scale: Scale,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Sums of pieces of rows, then tiles of columns."""
    n_rows, n_cols = x.shape
    splits = n_splits(n_rows, n_cols)
    sums = np.empty((3, n_rows * splits))
    inputs = flat_input(dy), flat_input(x)
    statistics = flat_input(mean), flat_input(rstd)
    units = n_rows * splits
    kernels.row_sums_kernel(n_parts(units, x.size), *inputs, n_cols, splits, flat_input(gamma), *statistics, sums)
    sums = sums.reshape(3, n_rows, splits).sum(2)
    operands, _ = _operands(n_cols, sums, np.ones(n_rows), mean, rstd, scale, gamma.dtype)
    kernels.row_gradients_kernel(
        n_parts(-(-n_cols // TILE), x.size),
        *inputs,
        n_cols,
        TILE,
        rows_at_once(TILE),
        flat_input(gamma),
        operands,
        flat_output(dx),
        dgamma,
        dbeta,
    )


def _operands(
    count: float, sums: Array, gamma: Array, mean: Array, rstd: Array, scale: Scale, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """(operands (6, n), mean of xhat) from sums (3, n): :func:`._write_backward.set_operands` for arrays."""
    std_eps, ddof, use_mean = scale
    total, product, offset = sums
    with np.errstate(all="ignore"):
        low = offset / count * use_mean
        share = 1 - std_eps * rstd.astype(np.float64)
        slope = np.divide(1, share, out=np.zeros_like(share), where=share > 0)
        through_var = (product - low * total) / (count - ddof) * slope
        rows = mean, rstd, low, np.broadcast_to(gamma, low.shape), total / count * use_mean, through_var
        return np.array(rows, np.float64).astype(dtype), low


def norm_groups_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_groups`: x (n_rows, n_channels, n_inner), cyclic parameters per channel.

    Reads dy and x once, but for a few large groups.
    """
    n_rows, n_channels, n_inner = x.shape
    scale = std_eps, ddof, use_mean
    mean = mean if use_mean else np.zeros_like(rstd)
    wanted = dgamma.size or dbeta.size
    n_cols = n_channels * n_inner
    if n_splits(n_rows, n_cols) > 1:
        sums = _groups_in_two(dy, x, gamma, mean, rstd, scale, dx)
    else:
        sums = np.empty((2, n_rows * n_channels)) if wanted else _NOTHING
        kernels.groups_kernel(
            n_parts(n_rows, x.size),
            flat_input(dy),
            flat_input(x),
            n_inner,
            n_channels,
            max(1, rows_at_once(n_cols) // n_channels),
            flat_input(gamma),
            flat_input(mean),
            flat_input(rstd),
            scale,
            flat_output(dx),
            sums,
        )
    for out, of_segment in zip((dgamma, dbeta), sums, strict=False):
        if out.size:
            out[...] = of_segment.reshape(-1, out.size).sum(0)


def _groups_in_two(dy: Array, x: Array, gamma: Array, mean: Array, rstd: Array, scale: Scale, dx: Array) -> Array:
    """Sums of pieces of segments, then dx; what dgamma and dbeta are the sums of (2, segments)."""
    n_rows, n_channels, n_inner = x.shape
    mean, rstd = np.repeat(mean, n_channels), np.repeat(rstd, n_channels)
    gamma = np.resize(gamma, n_rows * n_channels).astype(np.float64)
    sums = _segment_sums(dy, x, mean, rstd)
    weighted = np.stack([sums[0] * gamma, sums[1] * gamma, sums[2]])
    of_group = np.repeat(weighted.reshape(3, n_rows, n_channels).sum(2), n_channels, axis=1)
    operands, low = _operands(n_channels * n_inner, of_group, gamma, mean, rstd, scale, _compute(x))
    if dx.size:
        _write_segments(dy, x, operands, dx)
    return np.stack([sums[1] - low * sums[0], sums[0]])


def _compute(x: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _segment_sums(dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    """Sums (3, segments) over the last axis of x, with cyclic statistics."""
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    sums = np.empty((3, n_segments * splits))
    kernels.segment_sums_kernel(
        n_parts(n_segments * splits, x.size),
        flat_input(dy),
        flat_input(x),
        n_inner,
        splits,
        flat_input(mean),
        flat_input(rstd),
        np.empty(0, _compute(x)),
        sums,
    )
    return sums if splits == 1 else sums.reshape(3, n_segments, splits).sum(2)


def _write_segments(dy: Array, x: Array, operands: Array, dx: Array) -> None:
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    parts = n_parts(n_segments * splits, x.size)
    kernels.segment_gradients_kernel(parts, flat_input(dy), flat_input(x), n_inner, splits, operands, flat_output(dx))


def norm_channels_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    fixed: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_channels`, or with `fixed` of an application of given statistics.

    Reads dy and x once where a channel stays in cache and channels are many, else twice.
    """
    n, n_channels, n_inner = x.shape
    count = float(n * n_inner)
    scale = std_eps, ddof, True
    channel_bytes = 2 * n * n_inner * x.itemsize
    many = n_channels >= MAX_PARTS or x.size < MAX_PARTS * 1024
    if not fixed and n_inner >= SHORT_SEGMENT and channel_bytes <= CHANNEL_BYTES and many:
        block = channels_at_once(n_channels, channel_bytes)
        sums = np.empty((2, n_channels))
        parts = n_parts(-(-n_channels // block), x.size)
        statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), scale
        inputs = flat_input(dy), flat_input(x), x.shape, block
        kernels.channels_kernel(parts, *inputs, *statistics, flat_output(dx), sums)
    else:
        by_columns = n_inner < SHORT_SEGMENT and n_channels > 1
        sums = np.zeros((3, n_channels))
        if not fixed or dgamma.size or dbeta.size:
            sums = _channel_sums(dy, x, mean, rstd, by_columns)
        if fixed:
            if dx.size:
                _apply_fixed(dy, gamma * rstd.astype(_compute(x)), by_columns, dx)
            sums = sums[1::-1]
        else:
            factor = np.broadcast_to(gamma, (n_channels,)).astype(np.float64)
            weighted = np.stack([sums[0] * factor, sums[1] * factor, sums[2]])
            operands, low = _operands(count, weighted, factor, mean, rstd, scale, _compute(x))
            if dx.size:
                (write_channels if by_columns else _write_segments)(dy, x, operands, dx)
            sums = np.stack([sums[1] - low * sums[0], sums[0]])
    for out, of_channel in zip((dgamma, dbeta), sums, strict=False):
        if out.size:
            out[...] = of_channel


def _channel_sums(dy: Array, x: Array, mean: Array, rstd: Array, by_columns: bool) -> Array:
    """Sums (3, C) of dy, dy * xhat and xhat over the first and last axis of x."""
    if by_columns:
        return channel_sums(dy, x, mean, rstd, np.empty(0, _compute(x)))
    n, n_channels, _ = x.shape
    sums: Array = _segment_sums(dy, x, mean, rstd).reshape(3, n, n_channels).sum(1)
    return sums


def _apply_fixed(dy: Array, factor: Array, by_columns: bool, dx: Array) -> None:
    """dx = dy * factor, a factor per channel: the forward of statistics 0 and 1 without eps."""
    n, n_channels, n_inner = dy.shape
    zero, one = np.zeros((1, 1, 1), factor.dtype), np.ones((1, 1, 1), factor.dtype)
    if by_columns:
        cube = (1, n, n_channels * n_inner)
        factor = np.repeat(factor, n_inner).reshape(1, 1, -1)
        mean, var = np.zeros_like(factor), np.ones_like(factor)
        affine_cols(dy.reshape(cube), mean, var, 0.0, False, factor, zero, dx.reshape(cube))
    else:
        affine_rows(dy, zero, one, 0.0, False, factor.reshape(1, -1, 1), zero, dx)
