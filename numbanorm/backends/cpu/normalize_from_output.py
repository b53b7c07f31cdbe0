"""Gradients of norms from what the forward returned, so that x need not be kept.

``xhat = (y - beta) / gamma``: the mean is not needed, and of the sums that dx takes, that of
``dy * gamma * xhat = dy * (y - beta)`` needs no division. Rows are visited as for gradients from x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import flat_input, flat_output, load, store
from numbanorm.backends.cpu._jit import exact, inner, kernel
from numbanorm.backends.cpu._launch import MAX_PARTS, QUICK_BLOCK, SERIAL_BELOW, TILE, rows_at_once
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._sums_backward import add_columns
from numbanorm.backends.cpu._write_backward import gradient, set_operands

Array = NDArray[Any]

#: Rows of a part, at least, and elements of all parts' sums, at most.
FEWEST_ROWS = 16
MOST_SUMS = 1 << 21


def norm_rows_backward_from_output(
    dy: Array,
    y: Array,
    gamma: Array,
    beta: Array,
    rstd: Array,
    std_eps: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_rows` from y (n_rows, n_cols) instead of x; gamma without zeros.

    Reads dy and y once.
    """
    n_rows, n_cols = y.shape
    gammas, betas = (np.repeat(p, n_cols) if p.size < n_cols else p for p in (gamma, beta))
    wanted = dgamma.size or dbeta.size
    parts = max(1, min(MAX_PARTS, n_rows // FEWEST_ROWS, y.size // SERIAL_BELOW, MOST_SUMS // n_cols))
    sums = np.zeros((parts, -(-n_cols // TILE), 2, TILE) if wanted else 0)
    parameters = flat_input(gammas), flat_input(1 / gammas), flat_input(betas)
    scale = std_eps, 0.0, use_mean
    operands = flat_input(dy), flat_input(y), n_cols, rows_at_once(n_cols), *parameters, flat_input(rstd), scale
    rows_from_output_kernel(parts, *operands, flat_output(dx), sums.reshape(-1))
    if wanted:
        products, totals = (sums.sum(0)[:, i].reshape(-1)[:n_cols] for i in range(2))
        if dgamma.size:
            dgamma[...] = (products - totals * betas) / gammas
        if dbeta.size:
            dbeta[...] = totals


@exact
def _recovered(y, beta, inverse):
    """xhat, or with an inverse of 1 gamma times it."""
    return (y - beta) * inverse


@inner
def _output_sums(dy, y, start, n, gamma, beta):
    """Sums of ``dy * gamma`` and of ``dy * gamma * xhat`` of one row."""
    total, product = np.float64(0), np.float64(0)
    one = gamma.dtype.type(1)
    for lower in range(0, n, QUICK_BLOCK):
        a, b = gamma.dtype.type(0), gamma.dtype.type(0)
        for i in range(lower, min(lower + QUICK_BLOCK, n)):
            of_y = load(dy, start + i)
            a += of_y * load(gamma, i)
            b += of_y * _recovered(load(y, start + i), load(beta, i), one)
        total += np.float64(a)
        product += np.float64(b)
    return total, product


@inner
def _write_from_output(dy, y, start, n, operands, k, gamma, inverse, beta, dx):
    """dx of one row."""
    rstd, slope, constant = operands[1, k], operands[4, k], operands[5, k]
    for i in range(n):
        xhat = _recovered(load(y, start + i), load(beta, i), load(inverse, i))
        store(dx, start + i, gradient(load(dy, start + i), xhat, rstd, load(gamma, i), slope, constant))


@kernel
def rows_from_output_kernel(part, n_parts, dy, y, n_cols, batch, gamma, inverse, beta, rstd, scale, dx, sums):
    """A batch of rows at a time; `sums` are those of dy * y and dy, column by column, as in ``rows_kernel``."""
    n_rows = y.size // n_cols
    n_tiles = -(-n_cols // TILE)
    last = n_rows * (part + 1) // n_parts
    operands = memory((6, batch), gamma.dtype)
    as_it_is = memory((3, batch), gamma.dtype)
    as_it_is[:] = 0
    as_it_is[1, :] = 1
    short = memory(2 * TILE, gamma.dtype)
    zero, one = gamma.dtype.type(0), gamma.dtype.type(1)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        start = row * n_cols
        for k in range(n):
            total, product = _output_sums(dy, y, start + k * n_cols, n_cols, gamma, beta)
            of_row = total, product, np.float64(0)
            set_operands(k, np.float64(n_cols), of_row, zero, load(rstd, row + k), one, scale, operands)
        if sums.size:
            for tile in range(n_tiles):
                lower = tile * TILE
                at = 2 * TILE * (part * n_tiles + tile)
                width = min(TILE, n_cols - lower)
                add_columns(dy, y, start + lower, n, n_cols, width, as_it_is, 0, short, sums, at)
        if dx.size:
            for k in range(n):
                _write_from_output(dy, y, start + k * n_cols, n_cols, operands, k, gamma, inverse, beta, dx)
    free(operands, as_it_is, short)
