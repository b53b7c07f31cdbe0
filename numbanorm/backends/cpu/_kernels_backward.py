"""Kernels of gradients: one visit to dy and x where a row, group or channel stays in cache, else two.

Those for two visits come in pairs. The first leaves sums of dy, dy * xhat and xhat, piece by
piece; from these the host makes operands (:mod:`._write_backward`), and the second writes dx.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._stream import settle
from numbanorm.backends.cpu._sums_backward import (
    add_columns,
    column_gradient_sums,
    gradient_sums,
    weighted_gradient_sums,
)
from numbanorm.backends.cpu._write_backward import (
    set_operands,
    write_column_gradients,
    write_row_gradients,
    write_scaled_columns,
    write_segment_gradients,
)


@spliced
def gradients_of_rows(dy, x, row, n, n_cols, gamma, mean, rstd, scale, operands, dx, past_caches, short, sums, at):
    """n rows from `row` on, which stay in cache: their sums, their share of dgamma and dbeta, their dx.

    The share is added to sums[at:], for each tile of columns two stretches of TILE, if there are any.
    """
    start, one = row * n_cols, gamma.dtype.type(1)
    for k in range(n):
        first = start + k * n_cols
        high, scaling = gamma.dtype.type(load(mean, row + k)), gamma.dtype.type(load(rstd, row + k))
        of_row = weighted_gradient_sums(dy, x, first, first + n_cols, gamma, 0, high, scaling, operands)
        set_operands(k, np.float64(n_cols), of_row, high, load(rstd, row + k), one, scale, operands)
    if sums.size:
        for tile in range(-(-n_cols // TILE)):
            lower = tile * TILE
            width = min(TILE, n_cols - lower)
            add_columns(dy, x, start + lower, n, n_cols, width, operands, 0, short, sums, at + 2 * lower)
    if dx.size:
        write_row_gradients(dy, x, start, n, n_cols, n_cols, operands, 0, gamma, 0, dx, past_caches)


@kernel
def rows_kernel(part, n_parts, dy, x, n_cols, batch, gamma, mean, rstd, scale, dx, past_caches, sums):
    """A batch of rows at a time; `sums` are those of all parts, or nothing."""
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    operands, short = memory((6, batch), gamma.dtype), memory(2 * TILE, gamma.dtype)
    at = part * (sums.size // n_parts)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        gradients_of_rows(dy, x, row, n, n_cols, gamma, mean, rstd, scale, operands, dx, past_caches, short, sums, at)
    settle()
    free(operands, short)


@kernel
def row_sums_kernel(part, n_parts, dy, x, n_cols, n_splits, gamma, mean, rstd, sums):
    """Unit = one of the n_splits pieces of one row; sums of ``dy * gamma`` and so on."""
    n_units = x.size // n_cols * n_splits
    like = gamma
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        row, piece = unit // n_splits, unit % n_splits
        lower = n_cols * piece // n_splits
        start, stop = row * n_cols + lower, row * n_cols + n_cols * (piece + 1) // n_splits
        high, scaling = gamma.dtype.type(load(mean, row)), gamma.dtype.type(load(rstd, row))
        sums[0, unit], sums[1, unit], sums[2, unit] = weighted_gradient_sums(
            dy, x, start, stop, gamma, lower, high, scaling, like
        )


@kernel
def row_gradients_kernel(part, n_parts, dy, x, n_cols, width, batch, gamma, operands, dx, past_caches, dgamma, dbeta):
    """Unit = a tile of columns of all rows, whose dgamma and dbeta are then complete."""
    n_rows = x.size // n_cols
    n_units = -(-n_cols // width)
    sums = memory(2 * TILE)
    short = memory(2 * TILE, gamma.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        lower = unit * width
        n = min(width, n_cols - lower)
        sums[:] = 0
        for row in range(0, n_rows, batch):
            n_some = min(batch, n_rows - row)
            start = row * n_cols + lower
            if dgamma.size or dbeta.size:
                add_columns(dy, x, start, n_some, n_cols, n, operands, row, short, sums, 0)
            if dx.size:
                write_row_gradients(dy, x, start, n_some, n_cols, n, operands, row, gamma, lower, dx, past_caches)
        for j in range(n):
            if dgamma.size:
                dgamma[lower + j] = sums[j]
            if dbeta.size:
                dbeta[lower + j] = sums[TILE + j]
    settle()
    free(sums, short)


@kernel
def groups_kernel(part, n_parts, dy, x, n_inner, n_channels, batch, gamma, mean, rstd, scale, dx, past_caches, sums):
    """A batch of rows at a time; `sums` (2, segments) is for dgamma and dbeta, one of each per segment."""
    n_cols = n_inner * n_channels
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    operands = memory((6, batch * n_channels), gamma.dtype)
    segments = memory((2, n_channels))
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        for k in range(n):
            high, scaling = gamma.dtype.type(load(mean, row + k)), gamma.dtype.type(load(rstd, row + k))
            total, product, offset = np.float64(0), np.float64(0), np.float64(0)
            segment = (row + k) * n_channels
            parameter = segment % gamma.size
            for c in range(n_channels):
                start = (segment + c) * n_inner
                t, p, o = gradient_sums(dy, x, start, start + n_inner, high, scaling, operands)
                segments[0, c], segments[1, c] = t, p
                operands[3, k * n_channels + c] = load(gamma, parameter)
                factor = np.float64(load(gamma, parameter))
                total, product, offset = total + t * factor, product + p * factor, offset + o
                parameter = parameter + 1 if parameter + 1 < gamma.size else 0
            first, factor = k * n_channels, operands[3, k * n_channels]
            of_row = total, product, offset
            low = set_operands(first, np.float64(n_cols), of_row, high, load(rstd, row + k), factor, scale, operands)
            for c in range(1, n_channels):
                for i in (0, 1, 2, 4, 5):
                    operands[i, first + c] = operands[i, first]
            if sums.size:
                for c in range(n_channels):
                    sums[0, segment + c] = segments[1, c] - low * segments[0, c]
                    sums[1, segment + c] = segments[0, c]
        if dx.size:
            write_segment_gradients(dy, x, row * n_cols, n * n_channels, n_inner, operands, 0, dx, past_caches)
    settle()
    free(operands, segments)


@kernel
def segment_sums_kernel(part, n_parts, dy, x, n_inner, n_splits, mean, rstd, like, sums):
    """Unit = one of the n_splits pieces of a segment; statistics are cyclic."""
    n_units = x.size // n_inner * n_splits
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        segment, piece = unit // n_splits, unit % n_splits
        start = segment * n_inner + n_inner * piece // n_splits
        stop = segment * n_inner + n_inner * (piece + 1) // n_splits
        high = like.dtype.type(load(mean, segment % mean.size))
        scaling = like.dtype.type(load(rstd, segment % mean.size))
        sums[0, unit], sums[1, unit], sums[2, unit] = gradient_sums(dy, x, start, stop, high, scaling, like)


@kernel
def segment_gradients_kernel(part, n_parts, dy, x, n_inner, n_splits, operands, dx, past_caches):
    """Unit = one of the n_splits pieces of a segment; operands are cyclic."""
    n_units = x.size // n_inner * n_splits
    n_operands = operands.shape[1]
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        segment, piece = unit // n_splits, unit % n_splits
        lower = n_inner * piece // n_splits
        length = n_inner * (piece + 1) // n_splits - lower
        first = segment % n_operands
        write_segment_gradients(dy, x, segment * n_inner + lower, 1, length, operands, first, dx, past_caches)
    settle()


@kernel
def channels_kernel(part, n_parts, dy, x, shape, block, gamma, mean, rstd, scale, dx, past_caches, sums):
    """Unit = a block of neighbouring channels that stay in cache together; `sums` (2, channels)."""
    n, n_channels, n_inner = shape
    n_blocks = -(-n_channels // block)
    of_block = memory((3, block))
    operands = memory((6, block), gamma.dtype)
    count = np.float64(n) * np.float64(n_inner)
    for unit in range(n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts):
        first = unit * block
        width = min(block, n_channels - first)
        of_block[:] = 0
        for i in range(n):
            for k in range(width):
                start = (i * n_channels + first + k) * n_inner
                high = gamma.dtype.type(load(mean, first + k))
                scaling = gamma.dtype.type(load(rstd, first + k))
                t, p, o = gradient_sums(dy, x, start, start + n_inner, high, scaling, operands)
                of_block[0, k] += t
                of_block[1, k] += p
                of_block[2, k] += o
        for k in range(width):
            high, factor = gamma.dtype.type(load(mean, first + k)), load(gamma, (first + k) % gamma.size)
            total, product = of_block[0, k], of_block[1, k]
            weighted = total * np.float64(factor), product * np.float64(factor), of_block[2, k]
            low = set_operands(k, count, weighted, high, load(rstd, first + k), factor, scale, operands)
            sums[0, first + k] = product - low * total
            sums[1, first + k] = total
        if dx.size:
            for i in range(n):
                start = (i * n_channels + first) * n_inner
                write_segment_gradients(dy, x, start, width, n_inner, operands, 0, dx, past_caches)
    settle()
    free(of_block, operands)


@kernel
def column_sums_kernel(part, n_parts, dy, x, n_cols, n_tiles, n_chunks, mean, rstd, like, sums):
    """Unit = a chunk of the rows of one tile of columns; sums (chunk, 3, column)."""
    n_rows = x.size // n_cols
    n_units = n_tiles * n_chunks
    of_tile = memory((3, TILE))
    short = memory(5 * TILE, like.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_cols * tile // n_tiles
        width = n_cols * (tile + 1) // n_tiles - lower
        row, last = n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks
        for j in range(width):
            short[3 * TILE + j] = load(mean, lower + j)
            short[4 * TILE + j] = load(rstd, lower + j)
        column_gradient_sums(dy, x, row * n_cols + lower, last - row, n_cols, width, short, of_tile)
        for j in range(width):
            for i in range(3):
                sums[chunk, i, lower + j] = of_tile[i, j]
    free(of_tile, short)


@kernel
def column_gradients_kernel(part, n_parts, dy, x, n_cols, n_tiles, n_chunks, operands, dx):
    """Unit = a chunk of the rows of one tile of columns."""
    n_rows = x.size // n_cols
    n_units = n_tiles * n_chunks
    of_tile = memory(6 * TILE, operands.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_cols * tile // n_tiles
        width = n_cols * (tile + 1) // n_tiles - lower
        row, last = n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks
        for i in range(6):
            for j in range(width):
                of_tile[i * TILE + j] = operands[i, lower + j]
        write_column_gradients(dy, x, row * n_cols + lower, last - row, n_cols, width, of_tile, dx)
    settle()
    free(of_tile)


@kernel
def column_channels_kernel(part, n_parts, dy, x, shape, block, gamma, mean, rstd, scale, fixed, dx, sums):
    """Unit = a block of channels whose columns stay in cache; `sums` (2, channels)."""
    n, n_channels, n_inner = shape
    n_cols = n_channels * n_inner
    n_blocks = -(-n_channels // block)
    count = np.float64(n) * np.float64(n_inner)
    of_columns = memory((3, TILE))
    short = memory(6 * TILE, gamma.dtype)
    operands = memory((6, 1), gamma.dtype)
    for unit in range(n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts):
        first = unit * block
        n_some = min(block, n_channels - first)
        width = n_some * n_inner
        start = first * n_inner
        for k in range(n_some):
            for j in range(k * n_inner, (k + 1) * n_inner):
                short[3 * TILE + j] = load(mean, first + k)
                short[4 * TILE + j] = load(rstd, first + k)
        column_gradient_sums(dy, x, start, n, n_cols, width, short, of_columns)
        for k in range(n_some):
            total, product, offset = np.float64(0), np.float64(0), np.float64(0)
            for j in range(k * n_inner, (k + 1) * n_inner):
                total += of_columns[0, j]
                product += of_columns[1, j]
                offset += of_columns[2, j]
            factor = load(gamma, (first + k) % gamma.size)
            weight = np.float64(factor)
            weighted = total * weight, product * weight, offset
            high = gamma.dtype.type(load(mean, first + k))
            low = set_operands(0, count, weighted, high, load(rstd, first + k), factor, scale, operands)
            sums[0, first + k] = product - (np.float64(0) if fixed else low * total)
            sums[1, first + k] = total
            for i in range(6):
                for j in range(k * n_inner, (k + 1) * n_inner):
                    short[i * TILE + j] = operands[i, 0]
        if dx.size and fixed:
            write_scaled_columns(dy, start, n, n_cols, width, short, dx)
        elif dx.size:
            write_column_gradients(dy, x, start, n, n_cols, width, short, dx)
    settle()
    free(of_columns, short, operands)
