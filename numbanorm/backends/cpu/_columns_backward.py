"""Channels whose neighbours in memory are other channels: (N, C), (N, H, W, C), short (N, C, L)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _kernels_backward as kernels
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import (
    CHANNEL_BYTES,
    SERIAL_BELOW,
    SHORT_SEGMENT,
    TILE,
    fold,
    n_column_splits,
    n_parts,
)
from numbanorm.backends.cpu._segments_backward import Scale

Array = NDArray[Any]


def matrices(x: Array, *others: Array) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """x (n, C, n_inner) and its like as at most two matrices: narrow rows are joined, which may leave a few.

    With each the number of rows that were joined.
    """
    n, n_channels, n_inner = x.shape
    n_cols = n_channels * n_inner
    joined = fold(n, n_cols)
    whole = n - n % joined
    for lower, upper, by in ((0, whole, joined), (whole, n, 1)):
        if upper > lower:
            yield by, tuple(a[lower:upper].reshape(-1, by * n_cols) for a in (x, *others))


def tiles(matrix: Array) -> tuple[int, int, int]:
    """(parts, tiles of columns, chunks of rows)."""
    n_rows, n_cols = matrix.shape
    n_tiles = -(-n_cols // TILE)
    n_chunks = n_column_splits(n_tiles, n_rows, matrix.size)
    return n_parts(n_tiles * n_chunks, matrix.size), n_tiles, n_chunks


def channel_sums(dy: Array, x: Array, mean: Array, rstd: Array, like: Array) -> Array:
    """Sums (3, C) of dy, dy * xhat and xhat over the first and last axis."""
    _, n_channels, n_inner = x.shape
    total = np.zeros((3, n_channels))
    for joined, (values, gradients) in matrices(x, dy):
        parts, n_tiles, n_chunks = tiles(values)
        n_cols = values.shape[1]
        sums = np.empty((n_chunks, 3, n_cols))
        statistics = (flat_input(np.tile(np.repeat(s, n_inner), joined)) for s in (mean, rstd))
        inputs = flat_input(gradients), flat_input(values), n_cols, n_tiles, n_chunks
        kernels.column_sums_kernel(parts, *inputs, *statistics, like, sums)
        total += sums.sum(0).reshape(3, joined, n_channels, n_inner).sum((1, 3))
    return total


def write_channels(dy: Array, x: Array, operands: Array, dx: Array) -> None:
    """dx from operands (6, C)."""
    for joined, (values, gradients, out) in matrices(x, dy, dx):
        parts, n_tiles, n_chunks = tiles(values)
        spread = np.tile(np.repeat(operands, x.shape[2], axis=1), joined)
        inputs = flat_input(gradients), flat_input(values), values.shape[1], n_tiles, n_chunks
        kernels.column_gradients_kernel(parts, *inputs, spread, flat_output(out))


#: Shorter segments are summed and written as columns if there are samples enough to sum over.
LONGEST_SEGMENT = 128
FEWEST_SAMPLES = 8
#: More rows of a block of columns, each a stride apart, drive each other out of the caches.
MOST_SAMPLES = 256


def channels_at_once(x: Array) -> int:
    """Neighbouring channels of x (n, C, n_inner) whose columns stay in cache together; 0 if none do."""
    n, n_channels, n_inner = x.shape
    short = n_inner < SHORT_SEGMENT or (n_inner < LONGEST_SEGMENT and n >= FEWEST_SAMPLES)
    n_cols = n_channels * n_inner
    width = min(TILE, CHANNEL_BYTES // (2 * n * x.itemsize))
    if x.size >= SERIAL_BELOW:
        width = min(width, max(SHORT_SEGMENT, n_cols // 8))  # blocks enough to share out
    if not short or n_channels == 1 or (n > MOST_SAMPLES and n_cols > width):
        return 0
    return int(min(width // n_inner, n_channels))


def channels_in_one(
    dy: Array,
    x: Array,
    block: int,
    gamma: Array,
    mean: Array,
    rstd: Array,
    scale: Scale,
    fixed: bool,
    dx: Array,
) -> Array:
    """dx, and what dgamma and dbeta are (2, C), in one visit to a block of channels."""
    n_channels = x.shape[1]
    sums = np.empty((2, n_channels))
    parts = n_parts(-(-n_channels // block), x.size)
    statistics = flat_input(gamma), flat_input(mean), flat_input(rstd), scale, fixed
    inputs = flat_input(dy), flat_input(x), x.shape, block
    kernels.column_channels_kernel(parts, *inputs, *statistics, flat_output(dx), sums)
    return sums
