"""Applying given statistics: one read and one write of x."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import flat_input, flat_output, load
from numbanorm.backends.cpu._jit import exact, kernel
from numbanorm.backends.cpu._launch import TILE, WIDE, n_column_splits, n_parts, n_splits, rows_at_once
from numbanorm.backends.cpu._stream import goes_past_caches, settle
from numbanorm.backends.cpu._write import prepare, write_columns, write_rows, write_segments

Array = NDArray[Any]


@exact
def _offset(row, n_mid, outer_stride, mid_stride):
    """Offset in a broadcast operand of row (outer * n_mid + mid) of x."""
    return row // n_mid * outer_stride + row % n_mid * mid_stride


def _strides(operand: Array) -> tuple[int, int, int]:
    """Element strides of a dense 3-D operand, 0 along the axes that broadcast."""
    n_outer, n_mid, n_inner = operand.shape
    return n_mid * n_inner * (n_outer > 1), n_inner * (n_mid > 1), int(n_inner > 1)


def _same_shape(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """Both parameters with one shape, copied only where they differ."""
    if gamma.shape == beta.shape:
        return gamma, beta
    shape = np.broadcast_shapes(gamma.shape, beta.shape)
    return np.broadcast_to(gamma, shape).copy(), np.broadcast_to(beta, shape).copy()


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
    operands = np.empty((5, batch), gamma.dtype)
    for unit in range(n_units * part // n_parts, last, batch):
        n = min(batch, last - unit)
        row = unit // n_splits
        lower = n_inner * (unit % n_splits) // n_splits
        length = n_inner * (unit % n_splits + 1) // n_splits - lower
        for k in range(n):
            prepare(mean, var, eps, eps_on_std, _offset(row + k, n_mid, mean_outer, mean_mid), 1, operands, k)
        if step:
            parameter = _offset(row, n_mid, outer, mid) + lower
            write_rows(x, row * n_inner + lower, 1, length, operands, gamma, beta, parameter, y, past_caches)
        else:
            for k in range(n):
                parameter = _offset(row + k, n_mid, outer, mid)
                operands[3, k] = gamma[parameter]
                operands[4, k] = beta[parameter]
            write_segments(x, row * n_inner + lower, n, length, operands, y, past_caches)
    settle()


def affine_rows(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics constant along the last axis; one read, one write."""
    n_mid, n_inner = x.shape[1:]
    gamma, beta = _same_shape(gamma, beta)
    strides = (n_mid, *_strides(mean)[:2], *_strides(gamma))
    splits = n_splits(x.size // n_inner, n_inner)
    _affine_rows_kernel(
        n_parts(x.size // n_inner * splits, x.size),
        flat_input(x),
        n_inner,
        splits,
        rows_at_once(n_inner) if splits == 1 and gamma.shape[2] == 1 else 1,
        flat_input(mean),
        flat_input(var),
        (eps, eps_on_std),
        strides,
        flat_input(gamma),
        flat_input(beta),
        flat_output(y),
        goes_past_caches(x, y, n_inner // splits),
    )


@kernel
def _affine_cols_kernel(
    part, n_parts, x, n_inner, n_tiles, n_chunks, mean, var, scale, strides, gamma, beta, y, past_caches
):
    """Unit = a chunk of the rows of one tile of columns; operands are prepared when they change."""
    n_mid, mean_outer, mean_mid, outer, mid, step = strides
    eps, eps_on_std = scale
    n_rows = x.size // n_inner
    n_units = n_tiles * n_chunks
    operands = np.empty((5, -(-n_inner // n_tiles)), gamma.dtype)
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile, chunk = unit // n_chunks, unit % n_chunks
        lower = n_inner * tile // n_tiles
        width = n_inner * (tile + 1) // n_tiles - lower
        row, last = n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks
        while row < last:
            statistic = _offset(row, n_mid, mean_outer, mean_mid) + lower
            parameter = _offset(row, n_mid, outer, mid) + lower * step
            prepare(mean, var, eps, eps_on_std, statistic, width, operands, 0)
            for j in range(width * step):
                operands[3, j] = load(gamma, parameter + j)
                operands[4, j] = load(beta, parameter + j)
            # Rows that follow with the same statistics (and parameters, if these vary along the row).
            n = 1 if mean_mid or (step and mid) else n_mid - row % n_mid
            n = min(n, last - row)
            start = row * n_inner + lower
            write_columns(x, start, n, n_inner, width, operands, gamma, beta, parameter, mid, step, y, past_caches)
            row += n
    settle()


def affine_cols(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics varying along the last axis; one read, one write."""
    gamma, beta = _same_shape(gamma, beta)
    scale = eps, eps_on_std
    n_inner = x.shape[2]
    n_rows = x.size // n_inner
    repeats = min(WIDE // n_inner, n_rows)
    if repeats > 1 and mean.shape[:2] == gamma.shape[:2] == (1, 1):
        # Operands that all rows share are applied to several narrow rows at once.
        x, y = x.reshape(1, n_rows, n_inner), y.reshape(1, n_rows, n_inner)
        wide = n_rows - n_rows % repeats
        shape = (1, wide // repeats, repeats * n_inner)
        mu, spread = np.tile(mean, repeats), np.tile(var, repeats)
        g, b = (np.tile(a, repeats) if a.size > 1 else a for a in (gamma, beta))
        _launch_cols(x[:, :wide].reshape(shape), mu, spread, scale, g, b, y[:, :wide].reshape(shape))
        x, y = x[:, wide:], y[:, wide:]
    if x.size:
        _launch_cols(x, mean, var, scale, gamma, beta, y)


def _launch_cols(
    x: Array, mean: Array, var: Array, scale: tuple[float, bool], gamma: Array, beta: Array, y: Array
) -> None:
    n_mid, n_inner = x.shape[1:]
    n_rows = x.size // n_inner
    n_tiles = -(-n_inner // TILE)
    n_chunks = n_column_splits(n_tiles, n_rows)
    _affine_cols_kernel(
        n_parts(n_tiles * n_chunks, x.size),
        flat_input(x),
        n_inner,
        n_tiles,
        n_chunks,
        flat_input(mean),
        flat_input(var),
        scale,
        (n_mid, *_strides(mean)[:2], *_strides(gamma)),
        flat_input(gamma),
        flat_input(beta),
        flat_output(y),
        goes_past_caches(x, y, n_inner // n_tiles),
    )
