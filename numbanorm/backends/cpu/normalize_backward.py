"""Gradients of norms: dx, dgamma and dbeta of a piece while its dy and x are in cache.

Parameter gradients are sums over many rows or segments. Each part sums its own, in float64,
and parts are merged in order; parts are cut by shape, so every run gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _kernels_backward as kernels
from numbanorm.backends.cpu._columns_backward import channel_sums, channels_in_one, write_channels
from numbanorm.backends.cpu._columns_backward import channels_at_once as channel_columns_at_once
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
from numbanorm.backends.cpu._segments_backward import (
    Scale,
    apply_fixed,
    compute_of,
    operands_of,
    segment_sums,
    streams,
    write_segments,
)

Array = NDArray[Any]

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
        streams(dy, x, dx, n_cols),
        sums.reshape(-1),
    )
    if wanted:
        merge_columns(sums, dgamma, dbeta)


def merge_columns(sums: Array, dgamma: Array, dbeta: Array) -> None:
    """dgamma and dbeta, as far as wanted, from the sums (part, tile, 2, TILE) of both, part by part in order."""
    merged = sums.sum(0)
    for k, out in enumerate((dgamma, dbeta)):
        if out.size:
            out[...] = merged[:, k].reshape(-1)[: out.size]


def merge_segments(sums: Array, dgamma: Array, dbeta: Array) -> None:
    """The same from sums (2, segments), whose parameters are cyclic; nothing from nothing."""
    for out, of_segment in zip((dgamma, dbeta), sums, strict=False):
        if out.size:
            out[...] = of_segment.reshape(-1, out.size).sum(0)


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
    operands, _ = operands_of(n_cols, sums, np.ones(n_rows), mean, rstd, scale, gamma.dtype)
    kernels.row_gradients_kernel(
        n_parts(-(-n_cols // TILE), x.size),
        *inputs,
        n_cols,
        TILE,
        rows_at_once(TILE),
        flat_input(gamma),
        operands,
        flat_output(dx),
        streams(dy, x, dx, TILE),
        dgamma,
        dbeta,
    )


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
            streams(dy, x, dx, n_inner),
            sums,
        )
    merge_segments(sums, dgamma, dbeta)


def _groups_in_two(dy: Array, x: Array, gamma: Array, mean: Array, rstd: Array, scale: Scale, dx: Array) -> Array:
    """Sums of pieces of segments, then dx; what dgamma and dbeta are the sums of (2, segments)."""
    n_rows, n_channels, n_inner = x.shape
    mean, rstd = np.repeat(mean, n_channels), np.repeat(rstd, n_channels)
    gamma = np.resize(gamma, n_rows * n_channels).astype(np.float64)
    sums = segment_sums(dy, x, mean, rstd)
    weighted = np.stack([sums[0] * gamma, sums[1] * gamma, sums[2]])
    of_group = np.repeat(weighted.reshape(3, n_rows, n_channels).sum(2), n_channels, axis=1)
    operands, low = operands_of(n_channels * n_inner, of_group, gamma, mean, rstd, scale, compute_of(x))
    if dx.size:
        write_segments(dy, x, operands, dx)
    return np.stack([sums[1] - low * sums[0], sums[0]])


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
    scale = std_eps, ddof, True
    channel_bytes = 2 * n * n_inner * x.itemsize
    many = n_channels >= MAX_PARTS or x.size < MAX_PARTS * 1024
    block = channel_columns_at_once(x)
    if block:
        sums = channels_in_one(dy, x, block, gamma, mean, rstd, scale, fixed, dx)
    elif not fixed and n_inner >= SHORT_SEGMENT and channel_bytes <= CHANNEL_BYTES and many:
        block = channels_at_once(n_channels, channel_bytes)
        sums = np.empty((2, n_channels))
        parts = n_parts(-(-n_channels // block), x.size)
        statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), scale
        inputs = flat_input(dy), flat_input(x), x.shape, block
        kernels.channels_kernel(parts, *inputs, *statistics, flat_output(dx), streams(dy, x, dx, n_inner), sums)
    else:
        wanted = bool(dgamma.size or dbeta.size)
        sums = _channels_in_two(dy, x, gamma, mean, rstd, scale, fixed, wanted, dx)
    merge_segments(sums, dgamma, dbeta)


def _channels_in_two(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    scale: Scale,
    fixed: bool,
    wanted: bool,
    dx: Array,
) -> Array:
    """Sums per channel, then dx; what dgamma and dbeta are (2, C)."""
    n, n_channels, n_inner = x.shape
    by_columns = n_inner < SHORT_SEGMENT and n_channels > 1
    sums = np.zeros((3, n_channels))
    if by_columns and (wanted or not fixed):
        sums = channel_sums(dy, x, mean, rstd, np.empty(0, compute_of(x)))
    elif wanted or not fixed:
        sums = segment_sums(dy, x, mean, rstd).reshape(3, n, n_channels).sum(1)
    if fixed:
        if dx.size:
            apply_fixed(dy, gamma * rstd.astype(compute_of(x)), by_columns, dx)
        return sums[1::-1]
    factor = np.broadcast_to(gamma, (n_channels,)).astype(np.float64)
    weighted = np.stack([sums[0] * factor, sums[1] * factor, sums[2]])
    operands, low = operands_of(float(n * n_inner), weighted, factor, mean, rstd, scale, compute_of(x))
    if dx.size:
        (write_channels if by_columns else write_segments)(dy, x, operands, dx)
    return np.stack([sums[1] - low * sums[0], sums[0]])
