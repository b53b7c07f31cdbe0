"""What masked gradients in two visits share: sums of segments or columns with their counts, and dx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _masked_kernels_backward as kernels
from numbanorm.backends.cpu._columns_backward import matrices, tiles
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import n_parts, n_splits
from numbanorm.backends.cpu._segments_backward import compute_of, streams

Array = NDArray[Any]


def segment_sums(dy: Array, x: Array, taken: Array, mean: Array, rstd: Array) -> Array:
    """Sums and counts (4, segments) over the last axis of x, with cyclic statistics."""
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    sums = np.empty((4, n_segments * splits))
    inputs = flat_input(dy), flat_input(x), flat_input(taken), n_inner, splits
    statistics = flat_input(mean), flat_input(rstd), np.empty(0, compute_of(x))
    kernels.segment_sums_kernel(n_parts(n_segments * splits, x.size), *inputs, *statistics, sums)
    return sums if splits == 1 else sums.reshape(4, n_segments, splits).sum(2)


def write_segments(dy: Array, x: Array, taken: Array, operands: Array, fixed: bool, keep: bool, dx: Array) -> None:
    """dx from cyclic operands (6, n)."""
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    inputs = flat_input(dy), flat_input(x), flat_input(taken), keep, n_inner, splits
    target = operands, fixed, flat_output(dx), streams(dy, x, dx, n_inner // splits)
    kernels.segment_gradients_kernel(n_parts(n_segments * splits, x.size), *inputs, *target)


def _matrices(x: Array, taken: Array, *others: Array) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """As matrices of booleans; numbers of first elements are those of rows, which cannot be joined."""
    if taken.dtype == np.bool_:
        yield from matrices(x, taken, *others)
    else:
        by_row = (a.reshape(x.shape[0], -1) for a in (x, taken, *others))
        yield 1, tuple(by_row)


def column_sums(dy: Array, x: Array, taken: Array, mean: Array, rstd: Array) -> Array:
    """Sums and counts (4, C) over the first and last axis."""
    _, n_channels, n_inner = x.shape
    total = np.zeros((4, n_channels))
    for joined, (values, mask, gradients) in _matrices(x, taken, dy):
        parts, n_tiles, n_chunks = tiles(values)
        n_cols = values.shape[1]
        sums = np.empty((n_chunks, 4, n_cols))
        statistics = (flat_input(np.tile(np.repeat(s, n_inner), joined)) for s in (mean, rstd))
        inputs = flat_input(gradients), flat_input(values), flat_input(mask), n_cols, n_tiles, n_chunks
        kernels.column_sums_kernel(parts, *inputs, *statistics, np.empty(0, compute_of(x)), sums)
        total += sums.sum(0).reshape(4, joined, n_channels, n_inner).sum((1, 3))
    return total


def write_columns(dy: Array, x: Array, taken: Array, operands: Array, fixed: bool, keep: bool, dx: Array) -> None:
    """dx from operands (6, C)."""
    for joined, (values, mask, gradients, out) in _matrices(x, taken, dy, dx):
        parts, n_tiles, n_chunks = tiles(values)
        spread = np.tile(np.repeat(operands, x.shape[2], axis=1), joined)
        inputs = flat_input(gradients), flat_input(values), flat_input(mask), keep, values.shape[1], n_tiles, n_chunks
        kernels.column_gradients_kernel(parts, *inputs, spread, fixed, flat_output(out))
