"""Mean and variance in one call: moments, merged where there are parts, and finished in the same launch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._jit import kernel
from numbanorm.backends.cpu._launch import SERIAL_BELOW, SHORT_SEGMENT, TILE, column_cut, n_parts, n_splits
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._sums import channel_moments, merge_parts, segment_moments, tile_moments
from numbanorm.backends.cpu.moments import finish, moments_cols, moments_rows, pieces_of_columns, pieces_of_rows

Array = NDArray[Any]


@kernel
def _finish_parts_kernel(part, n_parts, count, mean, m2, shape, ddof, root, out_mean, out_var):
    """Parts are merged first."""
    n_outer, n_reduce, n_inner = shape
    unit, last = n_outer * n_inner * part // n_parts, n_outer * n_inner * (part + 1) // n_parts
    merged = memory((3, TILE))
    while unit < last:
        width = min(TILE, n_inner - unit % n_inner, last - unit)
        first = unit // n_inner * n_reduce * n_inner + unit % n_inner
        merge_parts(count, mean, m2, first, n_reduce, n_inner, width, 0, merged[0], merged[1], merged[2])
        for j in range(width):
            finish(unit + j, merged[0, j], merged[1, j], merged[2, j], ddof, True, root, out_mean, out_var)
        unit += width
    free(merged)


def _finish_parts(parts: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of parts (3, n_outer, n_reduce, n_inner), merged in a fixed order."""
    _, n_outer, n_reduce, n_inner = parts.shape
    n, shape = n_parts(n_outer * n_inner, parts[0].size), (n_outer, n_reduce, n_inner)
    outputs = flat_output(mean), flat_output(var)
    _finish_parts_kernel(n, *map(flat_input, parts), shape, float(ddof), root, *outputs)


@kernel
def _mean_var_rows_kernel(part, n_parts, x, n_cols, ddof, root, mean, var):
    n_rows = x.size // n_cols
    for row in range(n_rows * part // n_parts, n_rows * (part + 1) // n_parts):
        count, mu, m2 = segment_moments(x, row * n_cols, (row + 1) * n_cols)
        finish(row, count, mu, m2, ddof, True, root, mean, var)


def mean_var_rows(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of each row of x (n_rows, n_cols); reads x once."""
    n_rows, n_cols = x.shape
    if n_splits(n_rows, n_cols) == 1:
        outputs = flat_output(mean), flat_output(var)
        _mean_var_rows_kernel(n_parts(n_rows, x.size), flat_input(x), n_cols, float(ddof), root, *outputs)
        return
    _finish_parts(pieces_of_rows(x, None)[:, :, :, None], ddof, root, mean, var)


@kernel
def _mean_var_cols_kernel(part, n_parts, x, shape, fold, n_tiles, ddof, root, mean, var):
    """Unit = one tile of columns of one outer index."""
    n_outer, n_reduce, n_inner = shape
    n_units = n_outer * n_tiles
    sums, moments = memory(4 * TILE), memory((3, TILE))
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        outer, tile = unit // n_tiles, unit % n_tiles
        col = n_inner * tile // n_tiles
        n_cols = n_inner * (tile + 1) // n_tiles - col
        start = outer * n_reduce * n_inner + col
        tile_moments(x, None, None, start, n_inner, n_reduce, n_cols, fold, sums, 0, moments[0], moments[1], moments[2])
        for j in range(n_cols):
            count, mu, m2 = moments[0, j], moments[1, j], moments[2, j]
            finish(outer * n_inner + col + j, count, mu, m2, ddof, True, root, mean, var)
    free(sums, moments)


def mean_var_cols(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n_outer, n_reduce, n_inner) over the middle; reads x once."""
    rows_at_once, n_tiles, splits = column_cut(x.shape, x.itemsize)
    if splits == 1:
        parts, outputs = n_parts(len(x) * n_tiles, x.size), (flat_output(mean), flat_output(var))
        _mean_var_cols_kernel(parts, flat_input(x), x.shape, rows_at_once, n_tiles, float(ddof), root, *outputs)
        return
    _finish_parts(pieces_of_columns(x, None), ddof, root, mean, var)


@kernel
def _mean_var_channels_kernel(part, n_parts, x, shape, ddof, root, mean, var):
    """Unit = one channel."""
    n_channels = shape[1]
    for channel in range(n_channels * part // n_parts, n_channels * (part + 1) // n_parts):
        count, mu, m2 = channel_moments(x, shape, channel)
        finish(channel, count, mu, m2, ddof, True, root, mean, var)


def mean_var_channels(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n, n_channels, n_inner) over the outer axes; reads x once."""
    n, n_channels, n_inner = x.shape
    if n_inner == 1:
        mean_var_cols(x.reshape(1, n, n_channels), ddof, root, mean, var)
        return
    if n_inner >= SHORT_SEGMENT and x.size < SERIAL_BELOW:
        outputs = flat_output(mean), flat_output(var)
        _mean_var_channels_kernel(1, flat_input(x), x.shape, float(ddof), root, *outputs)
        return
    if n_inner >= SHORT_SEGMENT:
        parts = np.empty((3, 1, n, n_channels))
        moments_rows(x.reshape(n * n_channels, n_inner), None, *parts.reshape(3, -1))
    else:
        parts = np.empty((3, n_channels, n_inner, 1))
        moments_cols(x.reshape(1, n, -1), None, *parts.reshape(3, 1, -1))
    _finish_parts(parts, ddof, root, mean, var)
