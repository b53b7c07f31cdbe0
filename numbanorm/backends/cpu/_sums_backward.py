"""The loops that read dy and x for the sums of a gradient.

They see ``xhat = (x - high) * rstd`` with the mean rounded to the compute dtype. What the
rounding leaves out is the mean of those very numbers, so it is summed along and taken off
afterwards: a saved mean in float32 is good enough at any distance from zero.

Sums are short in the compute dtype, and long in float64. A column loop holds all that lies
beside dy and x in one array, at constant distances: then LLVM needs no more than eight
checks that memory does not overlap, beyond which it would not vectorise.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact, inner
from numbanorm.backends.cpu._launch import BATCH, QUICK_BLOCK, TILE
from numbanorm.backends.cpu._masked_elements import is_taken


@exact
def standardized(value, high, rstd, low):
    """xhat: in this order nothing is lost at a mean far from zero."""
    return (value - high) * rstd - low


@inner
def gradient_sums(dy, x, start, stop, high, rstd, like, taken=None):
    """Sums of dy, dy * xhat and xhat over the elements of [start, stop) that take part."""
    zero = like.dtype.type(0)
    total, product, offset = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, QUICK_BLOCK):
        upper = min(lower + QUICK_BLOCK, stop)
        a, b, c = zero, zero, zero
        for i in range(lower, upper):
            inside = is_taken(taken, i)
            gradient, xhat = load(dy, i), standardized(load(x, i), high, rstd, zero)
            gradient, xhat = gradient if inside else zero, xhat if inside else zero
            a += gradient
            b += gradient * xhat
            c += xhat
        total += np.float64(a)
        product += np.float64(b)
        offset += np.float64(c)
    return total, product, offset


@inner
def weighted_gradient_sums(dy, x, start, stop, gamma, parameter, high, rstd, like, taken=None):
    """The same of ``dy * gamma``, with gamma per element from index `parameter` on."""
    zero = like.dtype.type(0)
    total, product, offset = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, QUICK_BLOCK):
        n = min(QUICK_BLOCK, stop - lower)
        of = parameter + lower - start
        a, b, c = zero, zero, zero
        for i in range(n):
            inside = is_taken(taken, lower + i)
            gradient = load(dy, lower + i) * load(gamma, of + i)
            xhat = standardized(load(x, lower + i), high, rstd, zero)
            gradient, xhat = gradient if inside else zero, xhat if inside else zero
            a += gradient
            b += gradient * xhat
            c += xhat
        total += np.float64(a)
        product += np.float64(b)
        offset += np.float64(c)
    return total, product, offset


@inner
def add_columns(dy, x, start, n_rows, stride, width, operands, first, short, sums, at):
    """Add dy * xhat to sums[at:] and dy to sums[at + TILE:], column by column, four rows a visit.

    Statistics of row k are operands[:3, first + k]. `short` is scratch for the sums of these
    rows, at most BATCH, in the compute dtype.
    """
    for k in range(2 * TILE):
        short[k] = 0
    n_fours = n_rows // 4
    for four in range(n_fours):
        a = start + 4 * four * stride
        b = a + stride
        c = b + stride
        d = c + stride
        k = first + 4 * four
        high_a, rstd_a, low_a = operands[0, k], operands[1, k], operands[2, k]
        high_b, rstd_b, low_b = operands[0, k + 1], operands[1, k + 1], operands[2, k + 1]
        high_c, rstd_c, low_c = operands[0, k + 2], operands[1, k + 2], operands[2, k + 2]
        high_d, rstd_d, low_d = operands[0, k + 3], operands[1, k + 3], operands[2, k + 3]
        for j in range(width):
            ga, gb = load(dy, a + j), load(dy, b + j)
            gc, gd = load(dy, c + j), load(dy, d + j)
            xa = standardized(load(x, a + j), high_a, rstd_a, low_a)
            xb = standardized(load(x, b + j), high_b, rstd_b, low_b)
            xc = standardized(load(x, c + j), high_c, rstd_c, low_c)
            xd = standardized(load(x, d + j), high_d, rstd_d, low_d)
            column = np.uintp(j)
            short[column] += (ga * xa + gb * xb) + (gc * xc + gd * xd)
            short[column + np.uintp(TILE)] += (ga + gb) + (gc + gd)
    for row in range(4 * n_fours, n_rows):
        a = start + row * stride
        high, rstd, low = operands[0, first + row], operands[1, first + row], operands[2, first + row]
        for j in range(width):
            gradient = load(dy, a + j)
            column = np.uintp(j)
            short[column] += gradient * standardized(load(x, a + j), high, rstd, low)
            short[column + np.uintp(TILE)] += gradient
    for j in range(width):
        column = np.uintp(at + j)
        sums[column] += np.float64(short[np.uintp(j)])
        sums[column + np.uintp(TILE)] += np.float64(short[np.uintp(TILE + j)])


@inner
def column_gradient_sums(dy, x, start, n_rows, stride, width, short, sums):
    """Per column, sums (3, TILE) of dy, dy * xhat and xhat, four rows a visit.

    `short` is flat scratch in the compute dtype: three stretches of TILE for the sums of at
    most BATCH rows, then high and rstd.
    """
    zero = short.dtype.type(0)
    sums[:] = 0
    for top in range(0, n_rows, BATCH):
        n = min(BATCH, n_rows - top)
        for k in range(3 * TILE):
            short[k] = zero
        for four in range(n // 4):
            a = start + (top + 4 * four) * stride
            b = a + stride
            c = b + stride
            d = c + stride
            for j in range(width):
                column = np.uintp(j)
                high, rstd = short[column + np.uintp(3 * TILE)], short[column + np.uintp(4 * TILE)]
                ga, gb = load(dy, a + j), load(dy, b + j)
                gc, gd = load(dy, c + j), load(dy, d + j)
                xa = standardized(load(x, a + j), high, rstd, zero)
                xb = standardized(load(x, b + j), high, rstd, zero)
                xc = standardized(load(x, c + j), high, rstd, zero)
                xd = standardized(load(x, d + j), high, rstd, zero)
                short[column] += (ga + gb) + (gc + gd)
                short[column + np.uintp(TILE)] += (ga * xa + gb * xb) + (gc * xc + gd * xd)
                short[column + np.uintp(2 * TILE)] += (xa + xb) + (xc + xd)
        for row in range(top + n // 4 * 4, top + n):
            a = start + row * stride
            for j in range(width):
                column = np.uintp(j)
                high, rstd = short[column + np.uintp(3 * TILE)], short[column + np.uintp(4 * TILE)]
                gradient = load(dy, a + j)
                xhat = standardized(load(x, a + j), high, rstd, zero)
                short[column] += gradient
                short[column + np.uintp(TILE)] += gradient * xhat
                short[column + np.uintp(2 * TILE)] += xhat
        for i in range(3):
            for j in range(width):
                sums[i, j] += np.float64(short[np.uintp(i * TILE + j)])
