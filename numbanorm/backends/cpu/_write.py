"""The loops that write a normalised x; everything else is arithmetic on a few numbers per row.

``operands`` is scratch of shape (5, n) in the compute dtype and holds, per row or per column,
the mean's high and low part, rstd, gamma and beta. The ``edge`` says whether whole cache lines
are streamed, see :mod:`._runs`.
"""

from __future__ import annotations

import numpy as np

from numbanorm import _recurrences
from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact, inner, spliced
from numbanorm.backends.cpu._runs import write_run, write_runs

centred = exact(_recurrences.centred)
reciprocal_std = exact(_recurrences.reciprocal_std)


@exact
def scaled(value, rstd, gamma):
    """``value * rstd * gamma`` in this order, which fastmath would not keep."""
    return value * rstd * gamma


@exact
def remainder(mean, high):
    """What is left of a float64 mean after its high part."""
    return mean - np.float64(high)


@exact
def finish(n, count, scale, statistics, operands):
    """Turn (mean, m2) of n rows of `count` numbers into (mean, rstd), and these into operands."""
    eps, eps_on_std, use_mean = scale
    for k in range(n):
        mean = statistics[0, k]
        var = statistics[1, k] / count
        if not use_mean:
            var += mean * mean
            mean = np.float64(0)
        rstd = reciprocal_std(var, eps, eps_on_std)
        statistics[0, k] = mean
        statistics[1, k] = rstd
        high = operands.dtype.type(mean)
        operands[0, k] = high
        operands[1, k] = operands.dtype.type(remainder(mean, high))
        operands[2, k] = operands.dtype.type(rstd)


@exact
def prepare(mean, var, eps, eps_on_std, first, n, operands, at):
    """n given statistics from `first` on as operands from `at` on."""
    for k in range(n):
        mu = np.float64(load(mean, first + k))
        high = operands.dtype.type(mu)
        operands[0, at + k] = high
        operands[1, at + k] = operands.dtype.type(remainder(mu, high))
        operands[2, at + k] = operands.dtype.type(reciprocal_std(np.float64(load(var, first + k)), eps, eps_on_std))


@spliced
def write_segments(x, start, n_segments, length, operands, y, edge):
    """y = (x - mean) * rstd * gamma + beta, all constant within a segment."""
    write_runs(x, start, y, operands, None, None, 0, n_segments, length, edge)


@spliced
def write_rows(x, start, n_rows, length, operands, gamma, beta, parameter, y, edge):
    """y = (x - mean) * rstd * gamma + beta, parameters per element from index `parameter` on."""
    write_runs(x, start, y, operands, gamma, beta, parameter, n_rows, length, edge)


@inner
def write_columns(x, start, n_rows, stride, width, operands, gamma, beta, parameter, mid, step, y, edge):
    """y = (x - mean) * rstd * gamma + beta, mean and rstd per column.

    With `step`, gamma and beta vary along a row, and the operands hold them already; without,
    they are constant in a row, and `mid` apart from row to row.
    """
    high, low, rstd, gammas, betas = operands[0], operands[1], operands[2], operands[3], operands[4]
    for k in range(n_rows):
        first = start + k * stride
        if not step:
            gammas[:width] = load(gamma, parameter + k * mid)
            betas[:width] = load(beta, parameter + k * mid)
        write_run(x, first, y, first, high, low, rstd, gammas, betas, 0, width, edge)
