"""Applying given statistics: one read and one write of x."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._edges import new_edge, settle_edge
from numbanorm.backends.cpu._elements import flat_input, flat_output, load
from numbanorm.backends.cpu._jit import exact, kernel, spliced
from numbanorm.backends.cpu._launch import BATCH, TILE, fold, n_column_splits, n_parts, n_splits, rows_at_once
from numbanorm.backends.cpu._memory import free, memory, small_memory
from numbanorm.backends.cpu._stream import goes_past_caches
from numbanorm.backends.cpu._write import prepare, write_columns, write_rows, write_segments

Array = NDArray[Any]
Shape = tuple[int, ...]


@exact
def _offset(row, n_mid, outer_stride, mid_stride):
    """Offset in a broadcast operand of row (outer * n_mid + mid) of x."""
    return row // n_mid * outer_stride + row % n_mid * mid_stride


def _strides(shape: Shape) -> Shape:
    """Element strides of a dense 3-D operand, 0 along the axes that broadcast."""
    n_outer, n_mid, n_inner = shape
    return n_mid * n_inner * (n_outer > 1), n_inner * (n_mid > 1), int(n_inner > 1)


@lru_cache(maxsize=1024)
def _operand_strides(x: Shape, statistic: Shape, parameter: Shape) -> tuple[int, ...]:
    """From the shapes of x, of a statistic and of a parameter, what :func:`_offset` needs of each."""
    return (x[1], *_strides(statistic)[:2], *_strides(parameter))


def _same_shape(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """Both parameters with one shape, copied only where they differ."""
    if gamma.shape == beta.shape:
        return gamma, beta
    shape = np.broadcast_shapes(gamma.shape, beta.shape)
    return np.broadcast_to(gamma, shape).copy(), np.broadcast_to(beta, shape).copy()


operands_of_rows = small_memory(5, BATCH)


@spliced
def repeat_operands(operands, width, n):
    """Operands of `width` neighbours, again and again for the first n."""
    for i in range(len(operands)):
        for j in range(width, n):
            operands[i, j] = operands[i, j - width]


@kernel
def _affine_rows_kernel(
    part, n_parts, x, n_inner, n_splits, batch, mean, var, scale, strides, gamma, beta, y, past_caches
):
    """Unit = one of the n_splits pieces of one row; whole rows are written in batches.

    Strides say where the operands of a row lie.
    """
    n_mid, mean_outer, mean_mid, outer, mid, step = strides
    eps, eps_on_std = scale
    n_units = x.size // n_inner * n_splits
    last = n_units * (part + 1) // n_parts
    operands, edge = operands_of_rows(gamma.dtype), new_edge(past_caches)
    for unit in range(n_units * part // n_parts, last, batch):
        n = min(batch, last - unit)
        row = unit // n_splits
        lower = n_inner * (unit % n_splits) // n_splits
        length = n_inner * (unit % n_splits + 1) // n_splits - lower
        k = 0
        while k < n:  # division takes as long as some lines: once for all neighbours along the middle axis
            middle = (row + k) % n_mid
            outermost, alike = (row + k) // n_mid, min(n - k, n_mid - middle)
            statistic = outermost * mean_outer + middle * mean_mid
            parameter = outermost * outer + middle * mid
            n_statistics, n_parameters = alike if mean_mid else 1, alike if mid else 1
            prepare(mean, var, eps, eps_on_std, statistic, n_statistics, operands, k)
            repeat_operands(operands[:3, k:], n_statistics, alike)
            if not step:
                for j in range(k, k + n_parameters):
                    operands[3, j] = gamma[parameter + j - k]
                    operands[4, j] = beta[parameter + j - k]
                repeat_operands(operands[3:, k:], n_parameters, alike)
            k += alike
        if step:
            write_rows(x, row * n_inner + lower, 1, length, operands, gamma, beta, parameter + lower, y, edge)
        else:
            write_segments(x, row * n_inner + lower, n, length, operands, y, edge)
    settle_edge(y, edge)


def affine_rows(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics constant along the last axis; one read, one write."""
    n_inner = x.shape[2]
    gamma, beta = _same_shape(gamma, beta)
    n_rows = x.size // n_inner
    splits = n_splits(n_rows, n_inner)
    _affine_rows_kernel(
        n_parts(n_rows * splits, x.size),
        flat_input(x),
        n_inner,
        splits,
        rows_at_once(n_inner) if splits == 1 and gamma.shape[2] == 1 else 1,
        flat_input(mean),
        flat_input(var),
        (eps, eps_on_std),
        _operand_strides(x.shape, mean.shape, gamma.shape),
        flat_input(gamma),
        flat_input(beta),
        flat_output(y),
        goes_past_caches(x, y, n_inner // splits),
    )


@kernel
def _affine_cols_kernel(
    part, n_parts, x, n_inner, fold, n_tiles, n_chunks, mean, var, scale, strides, gamma, beta, y, past_caches
):
    """Unit = a chunk of the rows of one tile of columns; operands are prepared when they change.

    Where all rows share them, narrow rows are written `fold` at a time.
    """
    n_mid, mean_outer, mean_mid, outer, mid, step = strides
    eps, eps_on_std = scale
    n_rows = x.size // n_inner
    n_units = n_tiles * n_chunks
    operands, edge = memory((5, -(-n_inner // n_tiles) * fold), gamma.dtype), new_edge(past_caches)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_inner * tile // n_tiles
        width = n_inner * (tile + 1) // n_tiles - lower
        row, last = n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks
        at_once = fold
        while row < last:
            if row + at_once > last:
                at_once = 1
            statistic = _offset(row, n_mid, mean_outer, mean_mid) + lower
            parameter = _offset(row, n_mid, outer, mid) + lower * step
            prepare(mean, var, eps, eps_on_std, statistic, width, operands, 0)
            for j in range(width * step):
                operands[3, j] = load(gamma, parameter + j)
                operands[4, j] = load(beta, parameter + j)
            repeat_operands(operands, width, width * at_once)
            # Rows that follow with the same statistics (and parameters, if these vary along the row).
            n = 1 if mean_mid or (step and mid) else n_mid - row % n_mid
            n = (last - row) // at_once if fold > 1 else min(n, last - row)
            start, stride, wide = row * n_inner + lower, n_inner * at_once, width * at_once
            write_columns(x, start, n, stride, wide, operands, gamma, beta, parameter, mid, step, y, edge)
            row += n * at_once
    settle_edge(y, edge)
    free(operands)


def affine_cols(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics varying along the last axis; one read, one write."""
    gamma, beta = _same_shape(gamma, beta)
    n_inner = x.shape[2]
    n_rows = x.size // n_inner
    shared = mean.shape[:2] == gamma.shape[:2] == (1, 1)
    rows_at_once = fold(n_rows, n_inner) if shared else 1
    n_tiles = -(-n_inner // TILE)
    n_chunks = n_column_splits(n_tiles, n_rows // rows_at_once, x.size)
    _affine_cols_kernel(
        n_parts(n_tiles * n_chunks, x.size),
        flat_input(x),
        n_inner,
        rows_at_once,
        n_tiles,
        n_chunks,
        flat_input(mean),
        flat_input(var),
        (eps, eps_on_std),
        _operand_strides(x.shape, mean.shape, gamma.shape),
        flat_input(gamma),
        flat_input(beta),
        flat_output(y),
        goes_past_caches(x, y, n_inner * rows_at_once // n_tiles),
    )
