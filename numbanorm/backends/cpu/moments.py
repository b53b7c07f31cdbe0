"""Count, mean and m2 of rows and of columns, in one pass over x; the loops are in :mod:`._sums`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._jit import kernel
from numbanorm.backends.cpu._launch import (
    BLOCK,
    MAX_PARTS,
    SHORT_SEGMENT,
    TILE,
    fold,
    n_column_splits,
    n_parts,
    n_splits,
)
from numbanorm.backends.cpu._sums import (
    column_sums,
    merge_columns,
    merge_parts,
    segment_moments,
    weighted_column_sums,
    weighted_segment_moments,
)
from numbanorm.backends.reference import moments as reference

Array = NDArray[Any]

#: About so few numbers that NumPy serves.
update_running = reference.update_running


@kernel
def _moments_rows_kernel(part, n_parts, x, weights, n_cols, n_splits, count, mean, m2):
    """Unit = one of the n_splits pieces of one row."""
    n_units = count.size
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        row = unit // n_splits
        split = unit % n_splits
        start = row * n_cols + n_cols * split // n_splits
        stop = row * n_cols + n_cols * (split + 1) // n_splits
        if weights is None:
            count[unit], mean[unit], m2[unit] = segment_moments(x, start, stop)
        else:
            count[unit], mean[unit], m2[unit] = weighted_segment_moments(x, weights, start, stop)


def moments_rows(x: Array, weights: Array | None, count: Array, mean: Array, m2: Array) -> None:
    """Moments of each row of x (n_rows, n_cols); reads x once."""
    n_rows, n_cols = x.shape
    splits = n_splits(n_rows, n_cols)
    flat = flat_input(x)
    taken = None if weights is None else flat_input(weights)
    parts = n_parts(n_rows * splits, x.size)
    if splits == 1:
        _moments_rows_kernel(parts, flat, taken, n_cols, 1, count, mean, m2)
        return
    pieces = np.empty((3, n_rows, splits, 1))
    _moments_rows_kernel(parts, flat, taken, n_cols, splits, *pieces.reshape(3, -1))
    outputs = [out.reshape(n_rows, 1) for out in (count, mean, m2)]
    combine_moments(pieces[0], pieces[1], pieces[2], *outputs)


@kernel
def _moments_cols_kernel(part, n_parts, x, weights, shape, fold, n_tiles, n_splits, count, mean, m2):
    """Unit = one of the n_splits pieces of the rows of one tile of columns of one outer index.

    Narrow matrices are read `fold` rows at a time, as one wide row (there is one tile then),
    and the rows that are left over one at a time.
    """
    n_outer, n_reduce, n_inner = shape
    n_units = n_outer * n_splits * n_tiles
    sums = np.empty(4 * TILE)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile = unit % n_tiles
        outer = unit // n_tiles // n_splits
        split = unit // n_tiles % n_splits
        row = n_reduce * split // n_splits
        last = n_reduce * (split + 1) // n_splits
        first_col = n_inner * tile // n_tiles
        n_cols = n_inner * (tile + 1) // n_tiles - first_col
        out = (outer * n_splits + split) * n_inner + first_col
        for k in range(out, out + n_cols):
            count[k] = 0
            mean[k] = 0
            m2[k] = 0
        at_once = fold
        while row < last:
            if row + at_once > last:
                at_once = 1
            n_rows = min(BLOCK, (last - row) // at_once)
            width = n_cols * at_once
            start = (outer * n_reduce + row) * n_inner + first_col
            if weights is None:
                column_sums(x, start, n_inner * at_once, n_rows, width, sums)
            else:
                weighted_column_sums(x, weights, start, n_inner * at_once, n_rows, width, sums)
            n = np.float64(n_rows)
            merge_columns(n, weights is not None, sums, width, n_cols, out, count, mean, m2)
            row += n_rows * at_once


def moments_cols(x: Array, weights: Array | None, count: Array, mean: Array, m2: Array) -> None:
    """Moments of x (n_outer, n_reduce, n_inner) over its middle axis; reads x once."""
    n_outer, n_reduce, n_inner = x.shape
    rows_at_once = fold(n_reduce, n_inner)
    n_tiles = -(-n_inner // TILE)
    splits = n_column_splits(n_outer * n_tiles, n_reduce // rows_at_once)
    flat = flat_input(x)
    taken = None if weights is None else flat_input(weights)
    parts = n_parts(n_outer * n_tiles * splits, x.size)
    if splits == 1:
        outputs = [flat_output(out) for out in (count, mean, m2)]
        _moments_cols_kernel(parts, flat, taken, x.shape, rows_at_once, n_tiles, 1, *outputs)
        return
    pieces = np.empty((3, n_outer, splits, n_inner))
    flat_pieces = pieces.reshape(3, -1)
    _moments_cols_kernel(parts, flat, taken, x.shape, rows_at_once, n_tiles, splits, *flat_pieces)
    combine_moments(pieces[0], pieces[1], pieces[2], count, mean, m2)


@kernel
def _combine_moments_kernel(part, n_parts, count, mean, m2, shape, out_count, out_mean, out_m2):
    """Unit = one set; neighbouring sets are merged together, so that memory is read in order."""
    n_outer, n_reduce, n_inner = shape
    unit, last = n_outer * n_inner * part // n_parts, n_outer * n_inner * (part + 1) // n_parts
    while unit < last:
        width = min(TILE, n_inner - unit % n_inner, last - unit)
        first = unit // n_inner * n_reduce * n_inner + unit % n_inner
        merge_parts(count, mean, m2, first, n_reduce, n_inner, width, unit, out_count, out_mean, out_m2)
        unit += width


def combine_moments(count: Array, mean: Array, m2: Array, out_count: Array, out_mean: Array, out_m2: Array) -> None:
    """Merge parts (n_outer, n_reduce, n_inner) over the middle axis, in a fixed order."""
    parts = n_parts(out_count.size, count.size)
    inputs = [flat_input(a) for a in (count, mean, m2)]
    outputs = [flat_output(a) for a in (out_count, out_mean, out_m2)]
    _combine_moments_kernel(parts, *inputs, count.shape, *outputs)


@kernel
def _finish_moments_kernel(part, n_parts, count, mean, m2, ddof, use_mean, root, out_mean, out_var):
    for i in range(count.size * part // n_parts, count.size * (part + 1) // n_parts):
        k = np.uintp(i)
        mu = mean[k]
        if out_var.size:
            var = m2[k] / max(count[k] - ddof, np.float64(0))
            if not use_mean:
                var += mu * mu
            out_var[k] = np.sqrt(var) if root else var
        if out_mean.size:
            out_mean[k] = mu * use_mean if count[k] > 0 else np.nan


def finish_moments(
    count: Array,
    mean: Array,
    m2: Array,
    ddof: float,
    use_mean: bool,
    root: bool,
    out_mean: Array,
    out_var: Array,
) -> None:
    """Mean and ``m2 / (count - ddof)`` of moments, or its square root, in the outputs' dtypes."""
    if out_var.itemsize == 2 or out_mean.itemsize == 2:  # rounded once, which the kernel cannot
        reference.finish_moments(count, mean, m2, ddof, use_mean, root, out_mean, out_var)
        return
    inputs = (flat_input(a) for a in (count, mean, m2))
    parts = n_parts(MAX_PARTS, count.size)
    _finish_moments_kernel(parts, *inputs, float(ddof), use_mean, root, flat_output(out_mean), flat_output(out_var))


def mean_var_rows(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of each row of x (n_rows, n_cols); reads x once."""
    count, mu, m2 = np.empty((3, len(x)))
    moments_rows(x, None, count, mu, m2)
    finish_moments(count, mu, m2, ddof, True, root, mean, var)


def mean_var_cols(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n_outer, n_reduce, n_inner) over the middle; reads x once."""
    count, mu, m2 = np.empty((3, x.shape[0], x.shape[2]))
    moments_cols(x, None, count, mu, m2)
    finish_moments(count, mu, m2, ddof, True, root, mean, var)


def mean_var_channels(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n, n_channels, n_inner) over the outer axes; reads x once."""
    n, n_channels, n_inner = x.shape
    if n_inner >= SHORT_SEGMENT:
        parts = np.empty((3, 1, n, n_channels))
        moments_rows(x.reshape(n * n_channels, n_inner), None, *parts.reshape(3, -1))
    else:
        parts = np.empty((3, n_channels, n_inner, 1))
        moments_cols(x.reshape(1, n, -1), None, *parts.reshape(3, 1, -1))
    merged = np.empty((3, n_channels))
    combine_moments(parts[0], parts[1], parts[2], *merged.reshape(3, parts.shape[1], -1))
    finish_moments(merged[0], merged[1], merged[2], ddof, True, root, mean, var)
