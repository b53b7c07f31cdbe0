"""The loops that write a normalised x; everything else is arithmetic on a few numbers per row.

A function here writes many short rows, not one: entering a vector loop costs as much as
some hundred elements. ``operands`` is scratch of shape (4, n) in the compute dtype and
holds, per row or per column, the mean's high and low part, the scale and the shift.
"""

from __future__ import annotations

import numpy as np

from numbanorm import _recurrences
from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import exact, inner

centred = exact(_recurrences.centred)
reciprocal_std = exact(_recurrences.reciprocal_std)


@inner
def finish(n, count, eps, eps_on_std, use_mean, statistics):
    """Turn (mean, m2) of n rows of `count` numbers into (mean, rstd)."""
    for k in range(n):
        var = statistics[1, k] / count
        if not use_mean:
            var += statistics[0, k] * statistics[0, k]
            statistics[0, k] = 0
        statistics[1, k] = reciprocal_std(var, eps, eps_on_std)


@inner
def prepare(mean, rstd, first, n, operands, at):
    """High and low part of the mean, and the scale, of n float64 statistics; into operands from `at` on."""
    for k in range(n):
        high = operands.dtype.type(load(mean, first + k))
        operands[0, at + k] = high
        operands[1, at + k] = operands.dtype.type(remainder(load(mean, first + k), high))
        operands[2, at + k] = operands.dtype.type(load(rstd, first + k))


@exact
def remainder(mean, high):
    """What is left of a float64 mean after its high part."""
    return mean - np.float64(high)


@inner
def write_segments(x, start, n_segments, length, operands, y):
    """y = (x - mean) * scale + shift, all constant within a segment."""
    for k in range(n_segments):
        first = start + k * length
        high, low, scale, shift = operands[0, k], operands[1, k], operands[2, k], operands[3, k]
        for i in range(first, first + length):
            store(y, i, centred(load(x, i), high, low) * scale + shift)


@inner
def write_rows(x, start, n_rows, length, operands, gamma, beta, parameter, y):
    """y = (x - mean) * scale * gamma + beta, gamma per element from index `parameter` on."""
    if beta.size == 1:
        shift = beta[0]
        for k in range(n_rows):
            first = start + k * length
            high, low, scale = operands[0, k], operands[1, k], operands[2, k]
            for j in range(length):
                value = centred(load(x, first + j), high, low) * scale
                store(y, first + j, value * load(gamma, parameter + j) + shift)
    else:
        for k in range(n_rows):
            first = start + k * length
            high, low, scale = operands[0, k], operands[1, k], operands[2, k]
            for j in range(length):
                value = centred(load(x, first + j), high, low) * scale
                store(y, first + j, value * load(gamma, parameter + j) + load(beta, parameter + j))


@inner
def write_columns(x, start, n_rows, stride, width, operands, gamma, beta, parameter, mid, step, y):
    """y = (x - mean) * scale * gamma + beta, mean and scale per column.

    With `step`, gamma and beta vary along a row, and the operands hold them already; without,
    they are constant in a row, and `mid` apart from row to row.
    """
    if step:
        for k in range(n_rows):
            first = start + k * stride
            for j in range(width):
                value = centred(load(x, first + j), operands[0, j], operands[1, j])
                store(y, first + j, value * operands[2, j] + operands[3, j])
    else:
        for k in range(n_rows):
            first = start + k * stride
            factor, shift = load(gamma, parameter + k * mid), load(beta, parameter + k * mid)
            for j in range(width):
                value = centred(load(x, first + j), operands[0, j], operands[1, j])
                store(y, first + j, value * operands[2, j] * factor + shift)
