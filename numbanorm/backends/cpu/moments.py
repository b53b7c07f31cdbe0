"""Count, mean and m2 of rows and of columns, in one pass over x; the loops are in :mod:`._sums`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import bridge, flat_input, flat_output, load, store, store_float64
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._launch import (
    MAX_PARTS,
    TILE,
    column_cut,
    n_parts,
    n_splits,
)
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._sums import (
    merge_parts,
    segment_moments,
    tile_moments,
    weighted_segment_moments,
)
from numbanorm.backends.reference import moments as reference

Array = NDArray[Any]
Weights = reference.Weights


def _flat_weights(weights: Weights) -> tuple[Any, Any]:
    """Weights of elements and counts of lines as kernels take them; one of both is None."""
    if isinstance(weights, np.ndarray):
        flat = flat_input(weights)
        return (None, flat) if reference.are_counts(weights) else (flat, None)
    return weights, None


@kernel
def _moments_rows_kernel(part, n_parts, x, weights, counts, n_cols, n_splits, count, mean, m2):
    """Unit = one of the n_splits pieces of one row."""
    n_units = count.size
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        row = unit // n_splits
        split = unit % n_splits
        start = row * n_cols + n_cols * split // n_splits
        stop = row * n_cols + n_cols * (split + 1) // n_splits
        if counts is not None:
            end, stop = stop, max(start, min(stop, row * n_cols + counts[np.uintp(row)]))
        if weights is None:
            count[unit], mean[unit], m2[unit] = segment_moments(x, start, stop)
        else:
            count[unit], mean[unit], m2[unit] = weighted_segment_moments(x, weights, start, stop)
        if counts is not None:
            bridge(x, stop, end)


def moments_rows(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of each row of x (n_rows, n_cols); reads x once."""
    if n_splits(*x.shape) == 1:
        _moments_of_rows(x, weights, (count, mean, m2))
        return
    pieces = pieces_of_rows(x, weights)[:, :, :, None]
    outputs = [out.reshape(-1, 1) for out in (count, mean, m2)]
    combine_moments(pieces[0], pieces[1], pieces[2], *outputs)


def _moments_of_rows(x: Array, weights: Weights, outputs: Iterable[Array]) -> None:
    """Moments of each piece of the rows."""
    n_rows, n_cols = x.shape
    splits = n_splits(n_rows, n_cols)
    inputs = flat_input(x), *_flat_weights(weights)
    _moments_rows_kernel(n_parts(n_rows * splits, x.size), *inputs, n_cols, splits, *outputs)


def pieces_of_rows(x: Array, weights: Weights) -> Array:
    """Moments (3, n_rows, pieces) of parts of each row of x (n_rows, n_cols)."""
    pieces = np.empty((3, len(x), n_splits(*x.shape)))
    _moments_of_rows(x, weights, pieces.reshape(3, -1))
    return pieces


@kernel
def _moments_cols_kernel(part, n_parts, x, weights, counts, shape, fold, n_tiles, n_splits, count, mean, m2):
    """Unit = one of the n_splits pieces of the rows of one tile of columns of one outer index."""
    n_outer, n_reduce, n_inner = shape
    n_units = n_outer * n_splits * n_tiles
    sums = memory(4 * TILE)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile = unit % n_tiles
        outer = unit // n_tiles // n_splits
        split = unit // n_tiles % n_splits
        row = n_reduce * split // n_splits
        n_rows = n_reduce * (split + 1) // n_splits - row
        col = n_inner * tile // n_tiles
        n_cols = n_inner * (tile + 1) // n_tiles - col
        start = (outer * n_reduce + row) * n_inner + col
        out = (outer * n_splits + split) * n_inner + col
        tile_moments(x, weights, counts, start, n_inner, n_rows, n_cols, fold, sums, out, count, mean, m2)
    free(sums)


def moments_cols(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of x (n_outer, n_reduce, n_inner) over its middle axis; reads x once."""
    if column_cut(x.shape, x.itemsize)[2] > 1:
        pieces = pieces_of_columns(x, weights)
        combine_moments(pieces[0], pieces[1], pieces[2], count, mean, m2)
        return
    _moments_of_columns(x, weights, [flat_output(out) for out in (count, mean, m2)])


def _moments_of_columns(x: Array, weights: Weights, outputs: Iterable[Array]) -> None:
    """Moments of each piece of the columns."""
    rows_at_once, n_tiles, splits = column_cut(x.shape, x.itemsize)
    parts = n_parts(len(x) * n_tiles * splits, x.size)
    taken = _flat_weights(weights)
    _moments_cols_kernel(parts, flat_input(x), *taken, x.shape, rows_at_once, n_tiles, splits, *outputs)


def pieces_of_columns(x: Array, weights: Weights) -> Array:
    """Moments (3, n_outer, pieces, n_inner) of x (n_outer, n_reduce, n_inner) over parts of its middle axis."""
    n_outer, _, n_inner = x.shape
    pieces = np.empty((3, n_outer, column_cut(x.shape, x.itemsize)[2], n_inner))
    _moments_of_columns(x, weights, pieces.reshape(3, -1))
    return pieces


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


#: Sets whose moments NumPy finishes a few microseconds later than a kernel that would have to be compiled first.
FEW_SETS = 1 << 12


@spliced
def finish(k, count, mu, m2, ddof, use_mean, root, out_mean, out_var):
    """Mean and variance (or its root) of moments to element k of the outputs that have elements."""
    if out_var.size:
        var = m2 / max(count - ddof, np.float64(0))
        if not use_mean:
            var += mu * mu
        store_float64(out_var, k, np.sqrt(var) if root else var)
    if out_mean.size:
        store_float64(out_mean, k, mu * use_mean if count > 0 else np.nan)


@kernel
def _finish_moments_kernel(part, n_parts, count, mean, m2, ddof, use_mean, root, out_mean, out_var):
    for k in range(count.size * part // n_parts, count.size * (part + 1) // n_parts):
        finish(k, load(count, k), load(mean, k), load(m2, k), ddof, use_mean, root, out_mean, out_var)


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
    if count.size < FEW_SETS:
        reference.finish_moments(count, mean, m2, ddof, use_mean, root, out_mean, out_var)
        return
    inputs = (flat_input(a) for a in (count, mean, m2))
    parts = n_parts(MAX_PARTS, count.size)
    _finish_moments_kernel(parts, *inputs, float(ddof), use_mean, root, flat_output(out_mean), flat_output(out_var))


@kernel
def _update_running_kernel(part, n_parts, new, factor, momentum, running):
    for k in range(running.size):
        old = np.float64(load(running, k))
        store(running, k, running.dtype.type((1 - momentum) * old + momentum * (np.float64(load(new, k)) * factor)))


def update_running(
    mean: Array, var: Array, unbias: float, momentum: float, running_mean: Array | None, running_var: Array | None
) -> None:
    """``running = (1 - momentum) * running + momentum * new`` in place; `unbias` multiplies the new variance."""
    for running, new, factor in ((running_mean, mean, 1.0), (running_var, var, unbias)):
        if running is None:
            continue
        if running.itemsize > 2 and running.flags.carray and running.dtype.isnative:
            _update_running_kernel(1, flat_input(new), float(factor), float(momentum), flat_output(running))
        else:
            reference.update_running(new, new, factor, momentum, None, running)
