"""Kernels of gradients in which not all elements take part: those of :mod:`._kernels_backward` with a mask.

`taken` is a boolean for each element, or says how many of the first elements of each line take
part, and `keep` what dx is elsewhere: dy, or 0. A set without elements gives zeros.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._masked_elements import count_taken, reach
from numbanorm.backends.cpu._masked_sums_backward import (
    AT_ONCE,
    copy_taken,
    count_columns,
    standardize_taken_columns,
)
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._stream import settle
from numbanorm.backends.cpu._sums_backward import column_gradient_sums, gradient_sums
from numbanorm.backends.cpu._write_backward import (
    set_operands,
    write_column_gradients,
    write_padding,
    write_scaled_columns,
    write_scaled_segment,
    write_segment_gradients,
)


@spliced
def _write_segment(dy, x, taken, keep, segment, n_inner, lower, upper, operands, at, dx, past_caches, fixed):
    """dx of the elements [lower, upper) of a segment."""
    start = segment * n_inner + lower
    n = max(reach(taken, segment, upper) - lower, 0)
    if fixed:
        write_scaled_segment(dy, start, n, operands, at, dx, taken, keep)
    else:
        write_segment_gradients(dy, x, start, 1, n, operands, at, dx, past_caches, taken, keep)
    write_padding(dy, keep, start + n, upper - lower - n, dx, past_caches)


@kernel
def groups_kernel(part, n_parts, dy, x, taken, keep, shape, gamma, mean, rstd, scale, dx, past_caches, sums):
    """A row at a time; `sums` (2, segments) is for dgamma and dbeta, one of each per segment."""
    n_rows, n_channels, n_inner = shape
    operands = memory((6, n_channels), gamma.dtype)
    segments = memory((3, n_channels))
    for row in range(n_rows * part // n_parts, n_rows * (part + 1) // n_parts):
        high, scaling = gamma.dtype.type(load(mean, row)), gamma.dtype.type(load(rstd, row))
        total, product, offset, count = np.float64(0), np.float64(0), np.float64(0), np.float64(0)
        first = row * n_channels
        parameter = first % gamma.size
        for c in range(n_channels):
            start = (first + c) * n_inner
            stop = start + reach(taken, first + c, n_inner)
            t, p, o = gradient_sums(dy, x, start, stop, high, scaling, operands, taken)
            segments[0, c], segments[1, c] = t, p
            segments[2, c] = count_taken(taken, first + c, n_inner, 0, n_inner)
            factor = np.float64(load(gamma, parameter))
            operands[3, c] = load(gamma, parameter)
            total, product, offset = total + t * factor, product + p * factor, offset + o
            count += segments[2, c]
            parameter = parameter + 1 if parameter + 1 < gamma.size else 0
        of_row, count = (total, product, offset), max(count, np.float64(1))
        low = set_operands(0, count, of_row, high, load(rstd, row), operands[3, 0], scale, operands)
        for c in range(n_channels):
            for i in (0, 1, 2, 4, 5):
                operands[i, c] = operands[i, 0]
            if sums.size:
                excess = low * segments[0, c] if segments[2, c] > 0 else np.float64(0)  # low may be NaN
                sums[0, first + c] = segments[1, c] - excess
                sums[1, first + c] = segments[0, c]
            if dx.size:
                line = first + c
                _write_segment(dy, x, taken, keep, line, n_inner, 0, n_inner, operands, c, dx, past_caches, False)
    settle()
    free(operands, segments)


@kernel
def channels_kernel(part, n_parts, dy, x, taken, keep, shape, block, gamma, mean, rstd, scale, dx, past_caches, sums):
    """Unit = a block of neighbouring channels that stay in cache together; `sums` (2, channels)."""
    n, n_channels, n_inner = shape
    n_blocks = -(-n_channels // block)
    of_block, operands = memory((4, block)), memory((6, block), gamma.dtype)
    for unit in range(n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts):
        first = unit * block
        width = min(block, n_channels - first)
        of_block[:] = 0
        for i in range(n * width):
            k = i % width
            segment = i // width * n_channels + first + k
            start = segment * n_inner
            high, scaling = gamma.dtype.type(load(mean, first + k)), gamma.dtype.type(load(rstd, first + k))
            stop = start + reach(taken, segment, n_inner)
            t, p, o = gradient_sums(dy, x, start, stop, high, scaling, operands, taken)
            of_block[0, k] += t
            of_block[1, k] += p
            of_block[2, k] += o
            of_block[3, k] += count_taken(taken, segment, n_inner, 0, n_inner)
        for k in range(width):
            high, factor = gamma.dtype.type(load(mean, first + k)), load(gamma, (first + k) % gamma.size)
            total, product, count = of_block[0, k], of_block[1, k], of_block[3, k]
            weighted = total * np.float64(factor), product * np.float64(factor), of_block[2, k]
            of_all = max(count, np.float64(1))
            low = set_operands(k, of_all, weighted, high, load(rstd, first + k), factor, scale, operands)
            sums[0, first + k] = product - low * total if count > 0 else np.float64(0)  # low may be NaN
            sums[1, first + k] = total
        if dx.size:
            for i in range(n * width):
                k = i % width
                line = i // width * n_channels + first + k
                _write_segment(dy, x, taken, keep, line, n_inner, 0, n_inner, operands, k, dx, past_caches, False)
    settle()
    free(of_block, operands)


@kernel
def segment_sums_kernel(part, n_parts, dy, x, taken, n_inner, n_splits, mean, rstd, like, sums):
    """Unit = one of the n_splits pieces of a segment; statistics are cyclic; the count is summed too."""
    n_units = x.size // n_inner * n_splits
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        segment, piece = unit // n_splits, unit % n_splits
        lower, upper = n_inner * piece // n_splits, n_inner * (piece + 1) // n_splits
        start, stop = segment * n_inner + lower, segment * n_inner + reach(taken, segment, upper)
        high = like.dtype.type(load(mean, segment % mean.size))
        scaling = like.dtype.type(load(rstd, segment % mean.size))
        sums[0, unit], sums[1, unit], sums[2, unit] = gradient_sums(dy, x, start, stop, high, scaling, like, taken)
        sums[3, unit] = count_taken(taken, segment, n_inner, lower, upper)


@kernel
def segment_gradients_kernel(part, n_parts, dy, x, taken, keep, n_inner, n_splits, operands, fixed, dx, past_caches):
    """Unit = one of the n_splits pieces of a segment; operands are cyclic."""
    n_units = x.size // n_inner * n_splits
    n_operands = operands.shape[1]
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        segment, piece = unit // n_splits, unit % n_splits
        lower, upper = n_inner * piece // n_splits, n_inner * (piece + 1) // n_splits
        at = segment % n_operands
        _write_segment(dy, x, taken, keep, segment, n_inner, lower, upper, operands, at, dx, past_caches, fixed)
    settle()


@kernel
def column_sums_kernel(part, n_parts, dy, x, taken, n_cols, n_tiles, n_chunks, mean, rstd, like, sums):
    """Unit = a chunk of the rows of one tile of columns; sums (chunk, 4, column), the last ones counts."""
    n_rows = x.size // n_cols
    n_units = n_tiles * n_chunks
    of_tile, of_rows, counts = memory((3, TILE)), memory((3, TILE)), memory(TILE, np.int32)
    statistics, scratch = memory(2 * TILE, like.dtype), memory((2, AT_ONCE * TILE), like.dtype)
    short = memory(5 * TILE, like.dtype)
    short[:] = 0
    short[4 * TILE :] = 1
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_cols * tile // n_tiles
        upper = n_cols * (tile + 1) // n_tiles
        width = upper - lower
        for j in range(width):
            statistics[j], statistics[TILE + j] = load(mean, lower + j), load(rstd, lower + j)
        of_tile[:] = 0
        counts[:] = 0
        last = n_rows * (chunk + 1) // n_chunks
        for top in range(n_rows * chunk // n_chunks, last, AT_ONCE):
            n = 0
            for row in range(top, min(top + AT_ONCE, last)):
                start, length = row * n_cols + lower, reach(taken, row, upper) - lower
                if length > 0:
                    copy_taken(dy, taken, start, length, width, scratch[0], n * TILE)
                    standardize_taken_columns(x, taken, start, length, width, statistics, scratch[1], n * TILE)
                    count_columns(taken, start, length, counts)
                    n += 1
            column_gradient_sums(scratch[0], scratch[1], 0, n, TILE, width, short, of_rows)
            of_tile += of_rows
        for j in range(width):
            for i in range(3):
                sums[chunk, i, lower + j] = of_tile[i, j]
            sums[chunk, 3, lower + j] = counts[j]
    free(of_tile, of_rows, counts, statistics, scratch, short)


@kernel
def column_gradients_kernel(part, n_parts, dy, x, taken, keep, n_cols, n_tiles, n_chunks, operands, fixed, dx):
    """Unit = a chunk of the rows of one tile of columns."""
    n_rows = x.size // n_cols
    n_units = n_tiles * n_chunks
    of_tile = memory(6 * TILE, operands.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_cols * tile // n_tiles
        upper = n_cols * (tile + 1) // n_tiles
        for i in range(6):
            for j in range(upper - lower):
                of_tile[i * TILE + j] = operands[i, lower + j]
        for row in range(n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks):
            start = row * n_cols + lower
            n = max(reach(taken, row, upper) - lower, 0)
            if fixed:
                write_scaled_columns(dy, start, 1, n_cols, n, of_tile, dx, taken, keep)
            else:
                write_column_gradients(dy, x, start, 1, n_cols, n, of_tile, dx, taken, keep)
            write_padding(dy, keep, start + n, upper - lower - n, dx, False)
    settle()
    free(of_tile)
