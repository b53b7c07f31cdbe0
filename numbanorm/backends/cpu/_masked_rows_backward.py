"""Kernels of gradients of rows in which not all elements take part, see :mod:`._masked_kernels_backward`."""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._kernels_backward import gradients_of_rows
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._masked_elements import count_taken, reach
from numbanorm.backends.cpu._masked_rows import alike
from numbanorm.backends.cpu._masked_sums_backward import (
    AT_ONCE,
    add_taken_columns,
)
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._stream import settle
from numbanorm.backends.cpu._sums_backward import weighted_gradient_sums
from numbanorm.backends.cpu._write_backward import (
    set_operands,
    write_padding,
    write_row_gradients,
)


@spliced
def _write_row(dy, x, taken, keep, row, n_cols, lower, width, operands, at, gamma, dx, past_caches):
    """dx of `width` columns of a row."""
    start = row * n_cols + lower
    n = max(reach(taken, row, lower + width) - lower, 0)
    write_row_gradients(dy, x, start, 1, n_cols, n, operands, at, gamma, lower, dx, past_caches, taken, keep)
    write_padding(dy, keep, start + n, width - n, dx, past_caches)


@kernel
def rows_kernel(part, n_parts, dy, x, taken, keep, n_cols, batch, gamma, mean, rstd, scale, dx, past_caches, sums):
    """A batch of rows at a time: their sums, their share of dgamma and dbeta, their dx.

    `sums` holds for each part and each tile of columns two stretches of TILE, or nothing.
    """
    n_rows = x.size // n_cols
    n_tiles = -(-n_cols // TILE)
    last = n_rows * (part + 1) // n_parts
    operands = memory((6, batch), gamma.dtype)
    short, scratch = memory(2 * TILE, gamma.dtype), memory((2, AT_ONCE * TILE), gamma.dtype)
    as_it_is = memory((3, AT_ONCE), gamma.dtype)
    as_it_is[:] = 0
    as_it_is[1, :] = 1
    one = gamma.dtype.type(1)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        for k in range(n):
            first = (row + k) * n_cols
            stop = first + reach(taken, row + k, n_cols)
            high, scaling = gamma.dtype.type(load(mean, row + k)), gamma.dtype.type(load(rstd, row + k))
            of_row = weighted_gradient_sums(dy, x, first, stop, gamma, 0, high, scaling, operands, taken)
            count = max(count_taken(taken, row + k, n_cols, 0, n_cols), np.float64(1))
            set_operands(k, count, of_row, high, load(rstd, row + k), one, scale, operands)
        if sums.size:
            for tile in range(n_tiles):
                lower = tile * TILE
                at = 2 * TILE * (part * n_tiles + tile)
                width = min(TILE, n_cols - lower)
                columns = row, n, n_cols, lower, width
                add_taken_columns(dy, x, taken, columns, operands, 0, scratch, as_it_is, short, sums, at)
        if dx.size:
            for k in range(n):
                _write_row(dy, x, taken, keep, row + k, n_cols, 0, n_cols, operands, k, gamma, dx, past_caches)
    settle()
    free(operands, short, scratch, as_it_is)


@kernel
def whole_rows_kernel(
    part, n_parts, dy, x, lengths, keep, n_cols, batch, gamma, mean, rstd, scale, dx, past_caches, sums
):
    """The rows kernel of rows that take part as wholes or not at all; those that follow one another make a batch."""
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    operands, short = memory((6, batch), gamma.dtype), memory(2 * TILE, gamma.dtype)
    at = part * (sums.size // n_parts)
    row = n_rows * part // n_parts
    while row < last:
        n = alike(lengths, row, min(batch, last - row))
        if lengths[row]:
            gradients_of_rows(
                dy, x, row, n, n_cols, gamma, mean, rstd, scale, operands, dx, past_caches, short, sums, at
            )
        elif dx.size:
            write_padding(dy, keep, row * n_cols, n * n_cols, dx, past_caches)
        row += n
    settle()
    free(operands, short)


@kernel
def row_sums_kernel(part, n_parts, dy, x, taken, n_cols, n_splits, gamma, mean, rstd, sums):
    """Unit = one of the n_splits pieces of one row; sums of ``dy * gamma`` and so on, and the count."""
    n_units = x.size // n_cols * n_splits
    like = gamma
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        row, piece = unit // n_splits, unit % n_splits
        lower, upper = n_cols * piece // n_splits, n_cols * (piece + 1) // n_splits
        start, stop = row * n_cols + lower, row * n_cols + reach(taken, row, upper)
        high, scaling = gamma.dtype.type(load(mean, row)), gamma.dtype.type(load(rstd, row))
        sums[0, unit], sums[1, unit], sums[2, unit] = weighted_gradient_sums(
            dy, x, start, stop, gamma, lower, high, scaling, like, taken
        )
        sums[3, unit] = count_taken(taken, row, n_cols, lower, upper)


@kernel
def row_gradients_kernel(part, n_parts, dy, x, taken, keep, n_cols, batch, gamma, operands, dx, past_caches, sums):
    """Unit = a tile of columns of all rows, whose `sums`, two stretches of TILE, are then complete."""
    n_rows = x.size // n_cols
    n_units = -(-n_cols // TILE)
    short, scratch = memory(2 * TILE, gamma.dtype), memory((2, AT_ONCE * TILE), gamma.dtype)
    as_it_is = memory((3, AT_ONCE), gamma.dtype)
    as_it_is[:] = 0
    as_it_is[1, :] = 1
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        lower = unit * TILE
        width = min(TILE, n_cols - lower)
        for row in range(0, n_rows, batch):
            n = min(batch, n_rows - row)
            if sums.size:
                columns = row, n, n_cols, lower, width
                at = 2 * TILE * unit
                add_taken_columns(dy, x, taken, columns, operands, row, scratch, as_it_is, short, sums, at)
            if dx.size:
                for k in range(row, row + n):
                    _write_row(dy, x, taken, keep, k, n_cols, lower, width, operands, k, gamma, dx, past_caches)
    settle()
    free(short, scratch, as_it_is)
