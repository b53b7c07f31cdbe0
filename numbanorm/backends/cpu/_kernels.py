"""The kernels of :mod:`.normalize`: statistics of a batch of rows, then the same rows while they are in cache."""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._edges import new_edge, settle_edge
from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._launch import BATCH, BLOCK, TILE
from numbanorm.backends.cpu._line_sums import line_sums
from numbanorm.backends.cpu._memory import free, memory, small_memory
from numbanorm.backends.cpu._row_sums import row_moments
from numbanorm.backends.cpu._stream_rows import write_and_sum
from numbanorm.backends.cpu._sums import block_moments, finite_or_zero, tile_moments, welford_combine
from numbanorm.backends.cpu._write import finish, write_columns, write_rows, write_segments
from numbanorm.backends.cpu.affine import operands_of_rows, repeat_operands

statistics_of_rows = small_memory(2, BATCH)


@spliced
def keep_statistics(n, row, statistics, mean, rstd):
    """Statistics of n rows from `row` on to the outputs, if the caller wants them."""
    if mean.size:
        for k in range(n):
            mean[row + k] = statistics[0, k]
            rstd[row + k] = statistics[1, k]


@spliced
def write_rows_of(x, start, n, n_cols, operands, gamma, beta, y, edge):
    """Write n rows; gamma and beta have a row's length, or one element for all."""
    if gamma.size > 1:
        write_rows(x, start, n, n_cols, operands, gamma, beta, 0, y, edge)
        return
    for k in range(n):
        operands[3, k] = gamma[0]
        operands[4, k] = beta[0]
    write_segments(x, start, n, n_cols, operands, y, edge)


@kernel
def norm_rows_kernel(part, n_parts, x, n_cols, batch, gamma, beta, scale, y, past_caches, mean, rstd):
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    statistics, operands = statistics_of_rows(np.float64), operands_of_rows(gamma.dtype)
    edge = new_edge(past_caches, batch * n_cols)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        row_moments(x, row * n_cols, n, n_cols, operands, statistics)
        finish(n, np.float64(n_cols), scale, statistics, operands)
        write_rows_of(x, row * n_cols, n, n_cols, operands, gamma, beta, y, edge)
        keep_statistics(n, row, statistics, mean, rstd)
    settle_edge(y, edge)


@kernel
def stream_rows_kernel(part, n_parts, x, n_cols, gamma, beta, scale, y, mean, rstd):
    """The same for large outputs and rows of one block: each is written while the next is summed."""
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts - 1
    statistics, operands, edge = statistics_of_rows(np.float64), operands_of_rows(gamma.dtype), new_edge(True)
    row = n_rows * part // n_parts
    row_moments(x, row * n_cols, 1, n_cols, operands, statistics)
    while True:
        finish(1, np.float64(n_cols), scale, statistics, operands)
        keep_statistics(1, row, statistics, mean, rstd)
        if row == last:
            break
        centre_and_scale = operands[0, 0], operands[1, 0], operands[2, 0]
        if gamma.size > 1:
            write_and_sum(x, row * n_cols, n_cols, centre_and_scale, gamma, beta, y, edge, statistics)
        else:
            write_and_sum(x, row * n_cols, n_cols, centre_and_scale, gamma[0], beta[0], y, edge, statistics)
        row += 1
    write_rows_of(x, last * n_cols, 1, n_cols, operands, gamma, beta, y, edge)
    settle_edge(y, edge)


@kernel
def norm_groups_kernel(part, n_parts, x, n_inner, n_channels, batch, gamma, beta, scale, y, past_caches, mean, rstd):
    n_cols = n_inner * n_channels
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    statistics = memory((2, batch))
    rows = memory((5, batch), gamma.dtype)
    channels, edge = memory((5, batch * n_channels), gamma.dtype), new_edge(past_caches, batch * n_cols)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        row_moments(x, row * n_cols, n, n_cols, rows, statistics)
        finish(n, np.float64(n_cols), scale, statistics, rows)
        for k in range(n):
            of_row, parameter = k * n_channels, (row + k) * n_channels % gamma.size
            for c in range(of_row, of_row + n_channels):
                for i in range(3):
                    channels[i, c] = rows[i, k]
                channels[3, c], channels[4, c] = gamma[parameter], beta[parameter]
                parameter = parameter + 1 if parameter + 1 < gamma.size else 0
        write_segments(x, row * n_cols, n * n_channels, n_inner, channels, y, edge)
        keep_statistics(n, row, statistics, mean, rstd)
    settle_edge(y, edge)
    free(statistics, rows, channels)


@spliced
def channels_moments(samples, n, sums, counts, statistics):
    """Mean and m2 of neighbouring channels over n samples, to statistics (2, channels).

    Few numbers of a sample are summed with those of the next, about one shift.
    """
    x, stride, start, width, n_inner = samples
    at_once = max(1, BLOCK // n_inner)
    counts[:width] = 0
    for lower in range(0, n, at_once):
        upper = min(lower + at_once, n)
        for k in range(width):
            sums[0, k] = finite_or_zero(np.float64(load(x, start + lower * stride + k * n_inner)))
            sums[1, k], sums[2, k] = np.float64(0), np.float64(0)
        for i in range(lower, upper):
            for k in range(width):
                total, squares = line_sums(x, start + i * stride + k * n_inner, n_inner, sums[0, k])
                sums[1, k] += total
                sums[2, k] += squares
        for k in range(width):
            of_block = block_moments(np.float64((upper - lower) * n_inner), sums[0, k], sums[1, k], sums[2, k])
            merged = welford_combine(counts[k], statistics[0, k], statistics[1, k], *of_block)
            counts[k], statistics[0, k], statistics[1, k] = merged


@kernel
def norm_channels_kernel(part, n_parts, x, shape, block, gamma, beta, eps, eps_on_std, y, past_caches, mean, var):
    """Unit = a block of neighbouring channels that stay in cache together."""
    n, n_channels, n_inner = shape
    n_blocks = -(-n_channels // block)
    sums, counts, statistics = memory((3, block)), memory(block), memory((2, block))
    operands, edge = memory((5, block), gamma.dtype), new_edge(past_caches, block * n_inner)
    for unit in range(n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts):
        first = unit * block
        width = min(block, n_channels - first)
        samples = x, n_channels * n_inner, first * n_inner, width, n_inner
        channels_moments(samples, n, sums, counts, statistics)
        count = np.float64(n) * np.float64(n_inner)
        for k in range(width):
            mean[first + k] = statistics[0, k]
            var[first + k] = statistics[1, k] / count
        finish(width, count, (eps, eps_on_std, True), statistics, operands)
        for k in range(width):
            operands[3, k] = gamma[(first + k) % gamma.size]
            operands[4, k] = beta[(first + k) % beta.size]
        for i in range(n):
            write_segments(x, (i * n_channels + first) * n_inner, width, n_inner, operands, y, edge)
    settle_edge(y, edge)
    free(sums, counts, statistics, operands)


@kernel
def norm_columns_kernel(part, n_parts, x, shape, fold, gamma, beta, eps, eps_on_std, y, mean, var):
    """Channels-last x that stays in cache: its statistics, then itself."""
    n_rows, n_channels = shape
    sums, moments = memory(4 * TILE), memory((3, n_channels))
    operands, edge = memory((5, n_channels * fold), gamma.dtype), new_edge(False)
    for col in range(0, n_channels, TILE):
        width = min(TILE, n_channels - col)
        tile_moments(x, None, None, col, n_channels, n_rows, width, fold, sums, col, moments[0], moments[1], moments[2])
    count = np.float64(n_rows)
    for k in range(n_channels):
        mean[k] = moments[1, k]
        var[k] = moments[2, k] / count
        operands[3, k] = gamma[k % gamma.size]
        operands[4, k] = beta[k % beta.size]
    finish(n_channels, count, (eps, eps_on_std, True), moments[1:], operands)
    repeat_operands(operands, n_channels, n_channels * fold)
    row, at_once = 0, fold
    while row < n_rows:
        if row + at_once > n_rows:
            at_once = 1
        start, n, width = row * n_channels, (n_rows - row) // at_once, n_channels * at_once
        write_columns(x, start, n, width, width, operands, gamma, beta, 0, 0, 1, y, edge)
        row += n * at_once
    free(sums, moments, operands)
