"""The kernels of :mod:`.masked`: norms of the elements that take part.

These are those for which `mask` is true, or the first `lengths[line]` of each line; the
other of the two is None.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._lanes import LINE
from numbanorm.backends.cpu._launch import BLOCK
from numbanorm.backends.cpu._masked_sums import finish_sets, piece_moments, set_moments
from numbanorm.backends.cpu._masked_write import spread_lengths, write_piece, write_runs
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._stream import settle
from numbanorm.backends.cpu._write import prepare
from numbanorm.backends.cpu.affine import repeat_operands


@spliced
def _write_piece(x, mask, lengths, piece, centre_and_scale, gamma, beta, by_column, keep, y, past_caches):
    """A piece of a line with parameters per column, or with those of the line, which are cyclic."""
    high, low, rstd = centre_and_scale
    line, _, lower, _ = piece
    if by_column:
        write_piece(x, mask, lengths, piece, (high, low, rstd, gamma, beta), lower, keep, y, past_caches)
    else:
        operands = high, low, rstd, gamma[line % gamma.size], beta[line % beta.size]
        write_piece(x, mask, lengths, piece, operands, 0, keep, y, past_caches)


@kernel
def masked_norm_kernel(
    part, n_parts, x, mask, lengths, cut, gamma, beta, by_column, scale, ddof, keep, y, past_caches, mean, rstd
):
    """Unit = one set of n_lines lines; a batch of them is summed, then written."""
    n_lines, length, batch = cut
    n_sets = x.size // (n_lines * length)
    last = n_sets * (part + 1) // n_parts
    counts, statistics, of_line = memory(batch), memory((2, batch)), memory((2, 1))
    operands = memory((3, batch), gamma.dtype)
    for first in range(n_sets * part // n_parts, last, batch):
        n = min(batch, last - first)
        for k in range(n):
            counts[k], statistics[0, k], statistics[1, k] = set_moments(
                x, mask, lengths, (first + k) * n_lines, n_lines, length, past_caches, operands, of_line
            )
        finish_sets(n, counts, ddof, scale, statistics, operands)
        for k in range(n * n_lines):
            of = k // n_lines
            centre_and_scale = operands[0, of], operands[1, of], operands[2, of]
            piece = first * n_lines + k, length, 0, length
            _write_piece(x, mask, lengths, piece, centre_and_scale, gamma, beta, by_column, keep, y, past_caches)
        if mean.size:
            for k in range(n):
                mean[first + k], rstd[first + k] = statistics[0, k], statistics[1, k]
    settle()
    free(counts, statistics, of_line, operands)


@kernel
def masked_pieces_kernel(part, n_parts, x, mask, lengths, length, n_splits, count, mean, m2):
    """Moments; unit = one of the n_splits pieces of one line."""
    n_units = count.size
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        line, split = unit // n_splits, unit % n_splits
        lower = length * split // n_splits
        size = length * (split + 1) // n_splits - lower
        count[unit], mean[unit], m2[unit] = piece_moments(x, mask, lengths, (line, length, lower, size))


@kernel
def masked_lines_kernel(
    part, n_parts, x, mask, lengths, length, n_splits, mean, var, scale, gamma, beta, by_column, keep, y, past_caches
):
    """Given statistics of each line, cyclic; unit = one of the n_splits pieces of one line."""
    eps, eps_on_std = scale
    n_units = x.size // length * n_splits
    operands = memory((3, 1), gamma.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        line, split = unit // n_splits, unit % n_splits
        lower = length * split // n_splits
        size = length * (split + 1) // n_splits - lower
        prepare(mean, var, eps, eps_on_std, line % mean.size, 1, operands, 0)
        centre_and_scale = operands[0, 0], operands[1, 0], operands[2, 0]
        piece = line, length, lower, size
        _write_piece(x, mask, lengths, piece, centre_and_scale, gamma, beta, by_column, keep, y, past_caches)
    settle()
    free(operands)


@spliced
def _write_rows(x, mask, lengths, line, rows, tile, columns, flags, keep, y, past_caches):
    """Write `at_once` rows of a tile of columns as one, up to n times; how many rows that was.

    Lines of `line` elements become flags first, those of a whole row (0) do not.
    """
    row, n, at_once = rows
    n_cols, lower, width = tile
    start, stride, wide = row * n_cols + lower, n_cols * at_once, width * at_once
    if mask is not None:
        write_runs(x, start, n, stride, wide, columns, 0, (mask, start, stride), keep, y, past_caches)
    if lengths is not None:
        if line:
            n = min(n, (flags.size - LINE) // wide)
            spread_lengths(lengths, start // line, stride // line, n, wide // line, line, flags)
            write_runs(x, start, n, stride, wide, columns, 0, (flags, 0, wide), keep, y, past_caches)
        else:
            write_runs(x, start, n, stride, wide, columns, 0, (lengths, row, lower), keep, y, past_caches)
    return n * at_once


@kernel
def masked_columns_kernel(part, n_parts, x, mask, lengths, cut, mean, var, scale, gamma, beta, keep, y, past_caches):
    """Given statistics of each column; unit = a chunk of the rows of one tile of columns.

    A tile begins with a channel, which is `n_inner` columns. Narrow rows are written `fold` at a time.
    """
    n_cols, n_inner, line, fold, n_tiles, n_chunks = cut
    eps, eps_on_std = scale
    n_rows, n_channels = x.size // n_cols, n_cols // n_inner
    n_units = n_tiles * n_chunks
    widest = -(-n_channels // n_tiles) * n_inner * fold
    operands = memory((5, widest), gamma.dtype)
    columns = operands[0], operands[1], operands[2], operands[3], operands[4]
    flags = memory(max(widest, BLOCK) + LINE, np.bool_)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_channels * tile // n_tiles * n_inner
        width = n_channels * (tile + 1) // n_tiles * n_inner - lower
        prepare(mean, var, eps, eps_on_std, lower, width, operands, 0)
        for j in range(width):
            operands[3, j] = gamma[(lower + j) % gamma.size]
            operands[4, j] = beta[(lower + j) % beta.size]
        repeat_operands(operands, width, width * fold)
        at_once = fold
        row, last = n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks
        while row < last:
            if row + at_once > last:
                at_once = 1
            rows, columns_of_tile = (row, (last - row) // at_once, at_once), (n_cols, lower, width)
            row += _write_rows(x, mask, lengths, line, rows, columns_of_tile, columns, flags, keep, y, past_caches)
    settle()
    free(operands, flags)
