"""Count, mean and m2 of rows and of columns, in one pass over x.

Numbers are summed in float64 as differences from a shift taken from among them, in
blocks of bounded length; blocks are merged with Chan's formula. For float32 data the
only error that shows is that of the last conversion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _recurrences
from numbanorm.backends.cpu._elements import flat_input, flat_output, load
from numbanorm.backends.cpu._jit import exact, inner, kernel
from numbanorm.backends.cpu._launch import (
    BLOCK,
    MAX_PARTS,
    QUICK_BLOCK,
    SHORT_ROW,
    TILE,
    fold,
    n_column_splits,
    n_parts,
    n_splits,
)
from numbanorm.backends.reference import moments as reference

Array = NDArray[Any]

#: Sums of squares between these have lost nothing to the range of float32.
SMALLEST_SQUARES, LARGEST_SQUARES = 1e-30, 1e37

#: About so few numbers that NumPy serves.
update_running = reference.update_running

block_moments = exact(_recurrences.block_moments)
welford_combine = exact(_recurrences.welford_combine)


@exact
def _finite_or_zero(value):
    """A shift must be finite: x - inf would make NaN of finite numbers."""
    return value if value - value == value - value else np.float64(0)


@inner
def segment_moments(x, start, stop):
    """Moments of x[start:stop], block by block."""
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, BLOCK):
        upper = min(lower + BLOCK, stop)
        shift = _finite_or_zero(np.float64(load(x, lower)))
        total, squares = np.float64(0), np.float64(0)
        for i in range(lower, upper):
            difference = np.float64(load(x, i)) - shift
            total += difference
            squares += difference * difference
        count_b, mean_b, m2_b = block_moments(np.float64(upper - lower), shift, total, squares)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
    return count, mean, m2


@inner
def quick_segment_moments(x, start, stop, like):
    """The same to some seven digits of m2, as a factor 1 / std needs: sums in the dtype of `like`, that of `load`.

    A block whose sums cancel, overflow or vanish is summed again in float64; short rows are anyway.
    """
    if stop - start < SHORT_ROW:
        return segment_moments(x, start, stop)
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    shift = like.dtype.type(0)
    for i in range(start, start + 16):
        shift += load(x, i) * like.dtype.type(0.0625)
    for lower in range(start, stop, QUICK_BLOCK):
        upper = min(lower + QUICK_BLOCK, stop)
        total = like.dtype.type(0)
        squares = like.dtype.type(0)
        for i in range(lower, upper):
            difference = load(x, i) - shift
            total += difference
            squares += difference * difference
        n = np.float64(upper - lower)
        count_b, mean_b, m2_b = block_moments(n, np.float64(shift), np.float64(total), np.float64(squares))
        if not (squares > SMALLEST_SQUARES and m2_b * 2 > squares and squares < LARGEST_SQUARES):
            count_b, mean_b, m2_b = segment_moments(x, lower, upper)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
        shift = like.dtype.type(mean)
    return count, mean, m2


@inner
def _weighted_segment_moments(x, weights, start, stop):
    """Moments of those x[start:stop] whose weight is not zero."""
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, BLOCK):
        upper = min(lower + BLOCK, stop)
        first = lower
        while first < upper and not load(weights, first):
            first += 1
        if first == upper:
            continue
        shift = _finite_or_zero(np.float64(load(x, first)))
        count_b, total, squares = np.float64(0), np.float64(0), np.float64(0)
        for i in range(first, upper):
            weight = np.float64(load(weights, i))
            difference = np.float64(load(x, i)) - shift if load(weights, i) else np.float64(0)
            count_b += weight
            total += weight * difference
            squares += weight * difference * difference
        count_b, mean_b, m2_b = block_moments(count_b, shift, total, squares)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
    return count, mean, m2


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
            count[unit], mean[unit], m2[unit] = _weighted_segment_moments(x, weights, start, stop)


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


@inner
def _column_sums(x, start, stride, n_rows, width, sums):
    """Shift of each column of a block, and sums of its differences and of their squares.

    Eight rows a visit, to spare loads and stores of the sums, which lie TILE apart.
    """
    for j in range(width):
        sums[j] = _finite_or_zero(np.float64(load(x, start + j)))
        sums[TILE + j] = 0
        sums[2 * TILE + j] = 0
    n_eights = n_rows // 8
    for eight in range(n_eights):
        a = start + 8 * eight * stride
        b = a + stride
        c = b + stride
        d = c + stride
        e = d + stride
        f = e + stride
        g = f + stride
        h = g + stride
        for j in range(width):
            shift = sums[j]
            da = np.float64(load(x, a + j)) - shift
            db = np.float64(load(x, b + j)) - shift
            dc = np.float64(load(x, c + j)) - shift
            dd = np.float64(load(x, d + j)) - shift
            de = np.float64(load(x, e + j)) - shift
            df = np.float64(load(x, f + j)) - shift
            dg = np.float64(load(x, g + j)) - shift
            dh = np.float64(load(x, h + j)) - shift
            sums[TILE + j] += ((da + db) + (dc + dd)) + ((de + df) + (dg + dh))
            squares = ((da * da + db * db) + (dc * dc + dd * dd)) + ((de * de + df * df) + (dg * dg + dh * dh))
            sums[2 * TILE + j] += squares
    for row in range(8 * n_eights, n_rows):
        a = start + row * stride
        for j in range(width):
            da = np.float64(load(x, a + j)) - sums[j]
            sums[TILE + j] += da
            sums[2 * TILE + j] += da * da


@inner
def _weighted_column_sums(x, weights, start, stride, n_rows, width, sums):
    """The same for those numbers whose weight is not zero, and the sums of weights.

    The shift is the first number of each column that takes part.
    """
    for k in range(4 * TILE):
        sums[k] = 0
    missing = width
    for row in range(n_rows):
        a = start + row * stride
        if missing > 0:
            for j in range(width):
                if sums[3 * TILE + j] == 0 and load(weights, a + j):
                    sums[j] = _finite_or_zero(np.float64(load(x, a + j)))
                    missing -= 1
        for j in range(width):
            weight = np.float64(load(weights, a + j))
            difference = np.float64(load(x, a + j)) - sums[j] if load(weights, a + j) else np.float64(0)
            sums[TILE + j] += weight * difference
            sums[2 * TILE + j] += weight * difference * difference
            sums[3 * TILE + j] += weight


@inner
def _merge_columns(n, weighted, sums, width, n_out, out, count, mean, m2):
    """Merge the sums of a block into the n_out outputs from `out` on, to which its columns belong in turn."""
    for first in range(0, width, n_out):
        for j in range(first, first + n_out):
            k = np.uintp(out + j - first)
            c = np.uintp(j)
            count_b = sums[c + np.uintp(3 * TILE)] if weighted else n
            moments_b = block_moments(count_b, sums[c], sums[c + np.uintp(TILE)], sums[c + np.uintp(2 * TILE)])
            count[k], mean[k], m2[k] = welford_combine(count[k], mean[k], m2[k], *moments_b)


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
                _column_sums(x, start, n_inner * at_once, n_rows, width, sums)
            else:
                _weighted_column_sums(x, weights, start, n_inner * at_once, n_rows, width, sums)
            n = np.float64(n_rows)
            _merge_columns(n, weights is not None, sums, width, n_cols, out, count, mean, m2)
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


@inner
def _merge_parts(count, mean, m2, first, n_parts, stride, width, out, out_count, out_mean, out_m2):
    """Merge n_parts parts that lie `stride` apart, for `width` neighbouring sets, part after part."""
    for j in range(width):
        k = np.uintp(out + j)
        out_count[k], out_mean[k], out_m2[k] = np.float64(0), np.float64(0), np.float64(0)
    for i in range(n_parts):
        part = first + i * stride
        for j in range(width):
            k = np.uintp(out + j)
            moments_b = load(count, part + j), load(mean, part + j), load(m2, part + j)
            merged = welford_combine(out_count[k], out_mean[k], out_m2[k], *moments_b)
            out_count[k], out_mean[k], out_m2[k] = merged


@kernel
def _combine_moments_kernel(part, n_parts, count, mean, m2, shape, out_count, out_mean, out_m2):
    """Unit = one set; neighbouring sets are merged together, so that memory is read in order."""
    n_outer, n_reduce, n_inner = shape
    unit, last = n_outer * n_inner * part // n_parts, n_outer * n_inner * (part + 1) // n_parts
    while unit < last:
        width = min(TILE, n_inner - unit % n_inner, last - unit)
        first = unit // n_inner * n_reduce * n_inner + unit % n_inner
        _merge_parts(count, mean, m2, first, n_reduce, n_inner, width, unit, out_count, out_mean, out_m2)
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
