"""Gradients of norms in which not all elements take part.

As in :mod:`.normalize_backward`, but sums are of the elements that take part, and so is their
number. Padding after the first elements of a line is not read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _masked_kernels_backward as kernels
from numbanorm.backends.cpu import _masked_rows_backward as rows
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
from numbanorm.backends.cpu._masked_rows import are_whole
from numbanorm.backends.cpu._masked_two_visits import (
    column_sums,
    segment_sums,
    write_columns,
    write_segments,
)
from numbanorm.backends.cpu._segments_backward import Scale, compute_of, operands_of, streams
from numbanorm.backends.cpu.normalize_backward import FEWEST_ROWS, LONGEST_ROW, merge_columns, merge_segments

Array = NDArray[Any]

_NOTHING = np.empty((0, 0))


def masked_rows_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_norm_rows`: x (n_rows, n_cols), one parameter per column, or one for all.

    Reads dy and x once, or twice where rows are few or longer than a part's sums may be.
    """
    n_rows, n_cols = x.shape
    wanted = dgamma.size or dbeta.size
    as_one = gamma.size == 1 and not (wanted and n_cols > 1 and max(dgamma.size, dbeta.size) == n_cols)
    whole = not (as_one and wanted) and are_whole(taken, n_cols)
    if as_one and not whole:
        cube = (n_rows, 1, n_cols)
        views = dy.reshape(cube), x.reshape(cube), taken
        target = dx.reshape(cube) if dx.size else dx
        masked_groups_backward(*views, gamma, mean, rstd, std_eps, ddof, use_mean, keep, target, dgamma, dbeta)
        return
    gamma = np.repeat(gamma, n_cols) if gamma.size < n_cols else gamma
    scale = std_eps, ddof, use_mean
    mean = mean if use_mean else np.zeros_like(rstd)
    parts = max(1, min(MAX_PARTS, n_rows // FEWEST_ROWS, x.size // SERIAL_BELOW))
    in_two = n_cols > LONGEST_ROW or (parts == 1 and x.size >= 4 * SERIAL_BELOW)
    sums = np.zeros((1 if in_two else parts, -(-n_cols // TILE), 2, TILE) if wanted else 0)
    if in_two:
        _rows_in_two(dy, x, taken, gamma, mean, rstd, scale, keep, dx, sums)
    else:
        inputs = flat_input(dy), flat_input(x), flat_input(taken), keep, n_cols, rows_at_once(n_cols)
        statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), scale
        output = flat_output(dx), streams(dy, x, dx, n_cols)
        run = rows.whole_rows_kernel if whole else rows.rows_kernel
        run(parts, *inputs, *statistics, *output, sums.reshape(-1))
    if wanted:
        merge_columns(sums, dgamma, dbeta)


def _rows_in_two(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    scale: Scale,
    keep: bool,
    dx: Array,
    sums: Array,
) -> None:
    """Sums of pieces of rows, then tiles of columns; `sums` are those of dgamma and dbeta per tile."""
    n_rows, n_cols = x.shape
    splits = n_splits(n_rows, n_cols)
    of_pieces = np.empty((4, n_rows * splits))
    inputs = flat_input(dy), flat_input(x), flat_input(taken)
    statistics = flat_input(gamma), flat_input(mean), flat_input(rstd)
    rows.row_sums_kernel(n_parts(n_rows * splits, x.size), *inputs, n_cols, splits, *statistics, of_pieces)
    *of_row, count = of_pieces.reshape(4, n_rows, splits).sum(2)
    operands, _ = operands_of(np.maximum(count, 1), np.array(of_row), np.ones(n_rows), mean, rstd, scale, gamma.dtype)
    parts = n_parts(-(-n_cols // TILE), x.size)
    target = operands, flat_output(dx), streams(dy, x, dx, TILE), sums.reshape(-1)
    rows.row_gradients_kernel(parts, *inputs, keep, n_cols, rows_at_once(TILE), flat_input(gamma), *target)


def masked_groups_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_norm_groups`: x (n_rows, n_channels, n_inner), cyclic parameters per channel.

    Reads dy and x once, but for a few large groups.
    """
    n_rows, n_channels, n_inner = x.shape
    scale = std_eps, ddof, use_mean
    mean = mean if use_mean else np.zeros_like(rstd)
    wanted = dgamma.size or dbeta.size
    if n_splits(n_rows, n_channels * n_inner) > 1:
        sums = _groups_in_two(dy, x, taken, gamma, mean, rstd, scale, keep, dx)
    else:
        sums = np.empty((2, n_rows * n_channels)) if wanted else _NOTHING
        inputs = flat_input(dy), flat_input(x), flat_input(taken), keep, x.shape
        statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), scale
        output = flat_output(dx), streams(dy, x, dx, n_inner), sums
        kernels.groups_kernel(n_parts(n_rows, x.size), *inputs, *statistics, *output)
    merge_segments(sums, dgamma, dbeta)


def _groups_in_two(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    scale: Scale,
    keep: bool,
    dx: Array,
) -> Array:
    """Sums of pieces of segments, then dx; what dgamma and dbeta are the sums of (2, segments)."""
    n_rows, n_channels, _ = x.shape
    mean, rstd = np.repeat(mean, n_channels), np.repeat(rstd, n_channels)
    gamma = np.resize(gamma, n_rows * n_channels).astype(np.float64)
    sums = segment_sums(dy, x, taken, mean, rstd)
    weighted = np.stack([sums[0] * gamma, sums[1] * gamma, sums[2], sums[3]])
    *of_group, count = np.repeat(weighted.reshape(4, n_rows, n_channels).sum(2), n_channels, axis=1)
    count = np.maximum(count, 1)
    operands, low = operands_of(count, np.array(of_group), gamma, mean, rstd, scale, compute_of(x))
    if dx.size:
        write_segments(dy, x, taken, operands, False, keep, dx)
    excess = np.where(sums[3] > 0, low * sums[0], 0.0)  # low may be NaN
    return np.stack([sums[1] - excess, sums[0]])


def masked_channels_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    fixed: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_affine` with statistics of x, or with `fixed` with given ones.

    Reads dy and x once where a channel stays in cache and channels are many, else twice.
    """
    n, n_channels, n_inner = x.shape
    channel_bytes = 2 * n * n_inner * x.itemsize
    many = n_channels >= MAX_PARTS or x.size < MAX_PARTS * 1024
    if not fixed and n_inner >= SHORT_SEGMENT and channel_bytes <= CHANNEL_BYTES and many:
        block = channels_at_once(n_channels, channel_bytes)
        of_channels = np.empty((2, n_channels))
        inputs = flat_input(dy), flat_input(x), flat_input(taken), keep, x.shape, block
        statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), (std_eps, ddof, True)
        target = flat_output(dx), streams(dy, x, dx, n_inner), of_channels
        kernels.channels_kernel(n_parts(-(-n_channels // block), x.size), *inputs, *statistics, *target)
        merge_segments(of_channels, dgamma, dbeta)
        return
    in_columns = taken.dtype == np.bool_ or n_inner == 1  # else lines, too short to be columns
    by_columns = n_inner < SHORT_SEGMENT and n_channels > 1 and in_columns
    sums = np.zeros((4, n_channels))
    if dgamma.size or dbeta.size or not fixed:
        sums = (column_sums if by_columns else segment_sums)(dy, x, taken, mean, rstd)
        sums = sums if by_columns else sums.reshape(4, n, n_channels).sum(1)
    factor = np.broadcast_to(gamma, (n_channels,)).astype(np.float64)
    weighted = np.stack([sums[0] * factor, sums[1] * factor, sums[2]])
    scale = std_eps, ddof, True
    operands, low = operands_of(np.maximum(sums[3], 1), weighted, factor, mean, rstd, scale, compute_of(x))
    if dx.size:
        (write_columns if by_columns else write_segments)(dy, x, taken, operands, fixed, keep, dx)
    products = sums[1] if fixed else sums[1] - low * sums[0]
    merge_segments(np.stack([products, sums[0]]), dgamma, dbeta)
