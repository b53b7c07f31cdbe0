"""Normalisation: statistics of a batch of rows, then the same rows written while they are in cache.

A call reads x from memory once and writes y once wherever a row, group or channel fits
in cache; a few huge ones are read twice, so that all threads can share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _recurrences
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._jit import exact, kernel
from numbanorm.backends.cpu._launch import (
    CHANNEL_BYTES,
    MAX_PARTS,
    QUICK_BLOCK,
    SHORT_SEGMENT,
    channels_at_once,
    n_parts,
    n_splits,
    rows_at_once,
)
from numbanorm.backends.cpu._row_sums import QUICK_FROM, row_moments
from numbanorm.backends.cpu._stream import goes_past_caches, settle
from numbanorm.backends.cpu._stream_rows import write_and_sum
from numbanorm.backends.cpu._sums import segment_moments, welford_combine
from numbanorm.backends.cpu._write import finish, write_rows, write_segments
from numbanorm.backends.cpu.affine import affine_cols, affine_rows
from numbanorm.backends.cpu.moments import finish_moments, mean_var_channels, moments_rows

Array = NDArray[Any]


@exact
def _keep(n, row, statistics, mean, rstd):
    """Statistics of n rows from `row` on to the outputs, if the caller wants them."""
    if mean.size:
        for k in range(n):
            mean[row + k] = statistics[0, k]
            rstd[row + k] = statistics[1, k]


@exact
def _write(x, start, n, n_cols, operands, gamma, beta, y, past_caches):
    """Write n rows; gamma and beta have a row's length, or one element for all."""
    if gamma.size > 1:
        write_rows(x, start, n, n_cols, operands, gamma, beta, 0, y, past_caches)
        return
    for k in range(n):
        operands[3, k] = gamma[0]
        operands[4, k] = beta[0]
    write_segments(x, start, n, n_cols, operands, y, past_caches)


@kernel
def _norm_rows_kernel(part, n_parts, x, n_cols, batch, gamma, beta, scale, y, past_caches, mean, rstd):
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    statistics = np.empty((2, batch))
    operands = np.empty((5, batch), gamma.dtype)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        row_moments(x, row * n_cols, n, n_cols, operands, statistics)
        finish(n, np.float64(n_cols), scale, statistics, operands)
        _write(x, row * n_cols, n, n_cols, operands, gamma, beta, y, past_caches)
        _keep(n, row, statistics, mean, rstd)
    settle()


@kernel
def _stream_rows_kernel(part, n_parts, x, n_cols, gamma, beta, scale, y, mean, rstd):
    """The same for large outputs and rows of one block: each is written while the next is summed."""
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts - 1
    statistics, operands = np.empty((2, 1)), np.empty((5, 1), gamma.dtype)
    row = n_rows * part // n_parts
    row_moments(x, row * n_cols, 1, n_cols, operands, statistics)
    while True:
        finish(1, np.float64(n_cols), scale, statistics, operands)
        _keep(1, row, statistics, mean, rstd)
        if row == last:
            break
        centre_and_scale = operands[0, 0], operands[1, 0], operands[2, 0]
        if gamma.size > 1:
            write_and_sum(x, row * n_cols, n_cols, centre_and_scale, gamma, beta, y, statistics)
        else:
            write_and_sum(x, row * n_cols, n_cols, centre_and_scale, gamma[0], beta[0], y, statistics)
        row += 1
    _write(x, last * n_cols, 1, n_cols, operands, gamma, beta, y, True)
    settle()


def norm_rows(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise each row of x (n_rows, n_cols), one parameter per column; reads x once."""
    n_rows, n_cols = x.shape
    scale = (eps, eps_on_std, use_mean)
    if n_splits(n_rows, n_cols) > 1:
        statistics = _split_rows(x, scale, mean, rstd)
        cube = (1, n_rows, n_cols)
        affine_rows(
            x.reshape(cube),
            *statistics,
            eps,
            eps_on_std,
            gamma.reshape(1, 1, -1),
            beta.reshape(1, 1, -1),
            y.reshape(cube),
        )
        return
    parameters = (flat_input(parameter) for parameter in _same_length(gamma, beta))
    parts, source, target = n_parts(n_rows, x.size), flat_input(x), flat_output(y)
    past_caches = goes_past_caches(x, y, n_cols)
    if past_caches and QUICK_FROM <= n_cols <= QUICK_BLOCK:
        _stream_rows_kernel(parts, source, n_cols, *parameters, scale, target, mean, rstd)
        return
    batch = rows_at_once(n_cols)
    _norm_rows_kernel(parts, source, n_cols, batch, *parameters, scale, target, past_caches, mean, rstd)


def _same_length(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """A single gamma beside a vector beta as a vector too, and the other way round."""
    if gamma.size == beta.size:
        return gamma, beta
    length = max(gamma.size, beta.size)
    gamma, beta = (np.full(length, p[0], p.dtype) if p.size == 1 else p for p in (gamma, beta))
    return gamma, beta


def _split_rows(x: Array, scale: tuple[float, bool, bool], mean: Array, rstd: Array) -> tuple[Array, Array]:
    """Mean and variance (1, n_rows, 1) of a few long rows, each shared by all threads."""
    eps, eps_on_std, use_mean = scale
    count, mu, m2 = np.empty((3, len(x)))
    moments_rows(x, None, count, mu, m2)
    var = np.empty_like(m2)
    finish_moments(count, mu, m2, 0, use_mean, False, mu, var)
    if mean.size:
        mean[:] = mu
        with np.errstate(divide="ignore"):
            rstd[:] = _recurrences.reciprocal_std(var, eps, eps_on_std)
    return mu.reshape(1, -1, 1), var.reshape(1, -1, 1)


@kernel
def _norm_groups_kernel(part, n_parts, x, n_inner, n_channels, batch, gamma, beta, scale, y, past_caches, mean, rstd):
    n_cols = n_inner * n_channels
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    statistics = np.empty((2, batch))
    rows = np.empty((5, batch), gamma.dtype)
    channels = np.empty((5, batch * n_channels), gamma.dtype)
    for row in range(n_rows * part // n_parts, last, batch):
        n = min(batch, last - row)
        row_moments(x, row * n_cols, n, n_cols, rows, statistics)
        finish(n, np.float64(n_cols), scale, statistics, rows)
        for k in range(n * n_channels):
            for i in range(3):
                channels[i, k] = rows[i, k // n_channels]
            channels[3, k] = gamma[(row * n_channels + k) % gamma.size]
            channels[4, k] = beta[(row * n_channels + k) % beta.size]
        write_segments(x, row * n_cols, n * n_channels, n_inner, channels, y, past_caches)
        _keep(n, row, statistics, mean, rstd)
    settle()


def norm_groups(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise each row of x (n_rows, n_channels, n_inner), cyclic parameters; reads x once."""
    n_rows, n_channels, n_inner = x.shape
    n_cols = n_channels * n_inner
    scale = (eps, eps_on_std, use_mean)
    gamma, beta = _same_length(gamma, beta)
    if n_splits(n_rows, n_cols) > 1:
        statistics = _split_rows(x.reshape(n_rows, n_cols), scale, mean, rstd)
        mu, var = (np.repeat(statistic, n_channels, axis=1) for statistic in statistics)
        gamma, beta = _per_channel(gamma, n_rows * n_channels), _per_channel(beta, n_rows * n_channels)
        cube = (1, n_rows * n_channels, n_inner)
        affine_rows(x.reshape(cube), mu, var, eps, eps_on_std, gamma, beta, y.reshape(cube))
        return
    _norm_groups_kernel(
        n_parts(n_rows, x.size),
        flat_input(x),
        n_inner,
        n_channels,
        max(1, rows_at_once(n_cols) // n_channels),
        flat_input(gamma),
        flat_input(beta),
        scale,
        flat_output(y),
        goes_past_caches(x, y, n_inner),
        mean,
        rstd,
    )


def _per_channel(parameter: Array, n_channels: int) -> Array:
    """A cyclic parameter written out for `n_channels` channels; a single one stays single."""
    repeats = n_channels // parameter.size if parameter.size > 1 else 1
    return np.tile(parameter, repeats).reshape(1, -1, 1)


@kernel
def _norm_channels_kernel(part, n_parts, x, shape, block, gamma, beta, eps, eps_on_std, y, past_caches, mean, var):
    """Unit = a block of neighbouring channels that stay in cache together."""
    n, n_channels, n_inner = shape
    n_blocks = -(-n_channels // block)
    counts = np.empty(block)
    statistics = np.empty((2, block))
    operands = np.empty((5, block), gamma.dtype)
    for unit in range(n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts):
        first = unit * block
        width = min(block, n_channels - first)
        for k in range(width):
            counts[k] = 0
        for i in range(n):
            for k in range(width):
                start = (i * n_channels + first + k) * n_inner
                count, mu, m2 = segment_moments(x, start, start + n_inner)
                counts[k], statistics[0, k], statistics[1, k] = welford_combine(
                    counts[k], statistics[0, k], statistics[1, k], count, mu, m2
                )
        count = np.float64(n) * np.float64(n_inner)
        for k in range(width):
            mean[first + k] = statistics[0, k]
            var[first + k] = statistics[1, k] / count
        finish(width, count, (eps, eps_on_std, True), statistics, operands)
        for k in range(width):
            operands[3, k] = gamma[(first + k) % gamma.size]
            operands[4, k] = beta[(first + k) % beta.size]
        for i in range(n):
            write_segments(x, (i * n_channels + first) * n_inner, width, n_inner, operands, y, past_caches)
    settle()


def norm_channels(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    y: Array,
    mean: Array,
    var: Array,
) -> None:
    """Normalise each channel of x (n, n_channels, n_inner) over the first and last axis.

    Reads x once where a channel stays in cache and channels are many, else twice.
    """
    n, n_channels, n_inner = x.shape
    cached = n * n_inner * x.itemsize <= CHANNEL_BYTES
    many = n_channels >= MAX_PARTS or x.size < MAX_PARTS * 1024
    if n_inner >= SHORT_SEGMENT and cached and many:
        gamma, beta = _same_length(gamma, beta)
        block = channels_at_once(n_channels, n * n_inner * x.itemsize)
        flat, parameters = flat_input(x), (flat_input(gamma), flat_input(beta))
        parts = n_parts(-(-n_channels // block), x.size)
        target = flat_output(y), goes_past_caches(x, y, n_inner)
        _norm_channels_kernel(parts, flat, x.shape, block, *parameters, eps, eps_on_std, *target, mean, var)
        return
    mean_var_channels(x, 0, False, mean, var)
    if n_inner >= SHORT_SEGMENT or n_channels == 1:
        mu, spread, g, b = (a.reshape(1, -1, 1) for a in (mean, var, gamma, beta))
        affine_rows(x, mu, spread, eps, eps_on_std, g, b, y)
    else:
        cube = (1, n, n_channels * n_inner)
        repeated = (a if a.size == 1 else np.repeat(a, n_inner) for a in (mean, var, gamma, beta))
        mu, spread, g, b = (a.reshape(1, 1, -1) for a in repeated)
        affine_cols(x.reshape(cube), mu, spread, eps, eps_on_std, g, b, y.reshape(cube))
