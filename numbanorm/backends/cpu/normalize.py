"""Normalisation: statistics of a block, then the same block written while it is in cache.

A call reads x from memory once and writes y once wherever a row, group or channel fits
in cache; a few huge ones are read twice, so that all threads can share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from numbanorm import _recurrences
from numbanorm.backends.cpu._elements import flat_input, flat_output, load, store
from numbanorm.backends.cpu._jit import exact, inner, kernel
from numbanorm.backends.cpu._launch import CHANNEL_BYTES, MAX_PARTS, SHORT_SEGMENT, TILE, n_parts, n_splits
from numbanorm.backends.cpu.moments import (
    combine_moments,
    moments_cols,
    moments_rows,
    segment_moments,
    welford_combine,
)

Array = NDArray[Any]

centred = exact(_recurrences.centred)
reciprocal_std = exact(_recurrences.reciprocal_std)


@inner
def _write_segment(x, start, stop, mean_hi, mean_lo, scale, shift, y):
    """y = (x - mean) * scale + shift, one scale and shift for all."""
    for i in range(start, stop):
        store(y, i, centred(load(x, i), mean_hi, mean_lo) * scale + shift)


@inner
def _write_scaled(x, start, n, mean_hi, mean_lo, rstd, gamma, beta, first, y):
    """y = (x - mean) * rstd * gamma + beta, gamma per element from index `first` on."""
    if beta.size == 1:
        shift = beta[0]
        for j in range(n):
            value = centred(load(x, start + j), mean_hi, mean_lo) * rstd
            store(y, start + j, value * load(gamma, first + j) + shift)
    else:
        for j in range(n):
            value = centred(load(x, start + j), mean_hi, mean_lo) * rstd
            store(y, start + j, value * load(gamma, first + j) + load(beta, first + j))


@exact
def _write_row(x, start, n, mean_hi, mean_lo, rstd, gamma, beta, first, y):
    """One row with a parameter per element, or one for all."""
    if gamma.size == 1:
        _write_segment(x, start, start + n, mean_hi, mean_lo, rstd * gamma[0], beta[0], y)
    else:
        _write_scaled(x, start, n, mean_hi, mean_lo, rstd, gamma, beta, first, y)


@exact
def _split(mean, like):
    """A float64 mean as a sum of two numbers of the dtype of `like`."""
    high = like.dtype.type(mean)
    return high, like.dtype.type(mean - np.float64(high))


@exact
def _row_statistics(x, start, stop, eps, eps_on_std, use_mean):
    """Mean and reciprocal standard deviation of x[start:stop], in float64."""
    count, mean, m2 = segment_moments(x, None, start, stop)
    var = m2 / count
    if not use_mean:
        var += mean * mean
        mean = np.float64(0)
    return mean, reciprocal_std(var, eps, eps_on_std)


@exact
def _norm_rows_part(part, n_parts, x, n_cols, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd):
    n_rows = x.size // n_cols
    for row in range(n_rows * part // n_parts, n_rows * (part + 1) // n_parts):
        start = row * n_cols
        mu, r = _row_statistics(x, start, start + n_cols, eps, eps_on_std, use_mean)
        mean_hi, mean_lo = _split(mu, gamma)
        scale = gamma.dtype.type(r)
        _write_row(x, start, n_cols, mean_hi, mean_lo, scale, gamma, beta, 0, y)
        if mean.size:
            mean[row] = mu
            rstd[row] = r


@kernel
def _norm_rows_kernel(n_parts, x, n_cols, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd):
    for part in prange(n_parts):
        _norm_rows_part(np.intp(part), n_parts, x, n_cols, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd)


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
    if n_splits(n_rows, n_cols) > 1:
        mu, r = _split_rows(x, eps, eps_on_std, use_mean, mean, rstd)
        cube = (1, n_rows, n_cols)
        affine_rows(x.reshape(cube), mu, r, gamma.reshape(1, 1, -1), beta.reshape(1, 1, -1), y.reshape(cube))
        return
    gamma, beta = _same_length(gamma, beta)
    flat, out = flat_input(x), flat_output(y)
    parts = n_parts(n_rows, x.size)
    _norm_rows_kernel(
        parts, flat, n_cols, flat_input(gamma), flat_input(beta), eps, eps_on_std, use_mean, out, mean, rstd
    )


def _same_length(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """A scalar gamma beside a vector beta as a vector too; the kernels know three cases, not four."""
    return (np.broadcast_to(gamma, beta.shape).copy(), beta) if gamma.size < beta.size else (gamma, beta)


def _split_rows(
    x: Array, eps: float, eps_on_std: bool, use_mean: bool, mean: Array, rstd: Array
) -> tuple[Array, Array]:
    """Statistics (1, n_rows, 1) of a few long rows, each shared by all threads."""
    count, mu, m2 = np.empty((3, len(x)))
    moments_rows(x, None, count, mu, m2)
    var = m2 / count
    if not use_mean:
        var += mu**2
        mu[:] = 0
    r = _recurrences.reciprocal_std(var, eps, eps_on_std)
    if mean.size:
        mean[:] = mu
        rstd[:] = r
    return mu.reshape(1, -1, 1), r.reshape(1, -1, 1)


def _per_channel(parameter: Array, n_channels: int) -> Array:
    """A cyclic parameter written out for `n_channels` channels; a single one stays single."""
    repeats = n_channels // parameter.size if parameter.size > 1 else 1
    return np.tile(parameter, repeats).reshape(1, -1, 1)


@exact
def _norm_groups_part(part, n_parts, x, n_inner, n_channels, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd):
    n_cols = n_inner * n_channels
    n_rows = x.size // n_cols
    for row in range(n_rows * part // n_parts, n_rows * (part + 1) // n_parts):
        start = row * n_cols
        mu, r = _row_statistics(x, start, start + n_cols, eps, eps_on_std, use_mean)
        mean_hi, mean_lo = _split(mu, gamma)
        scale = gamma.dtype.type(r)
        first = row * n_channels % gamma.size
        if n_inner == 1:
            _write_row(x, start, n_channels, mean_hi, mean_lo, scale, gamma, beta, first, y)
        else:
            for channel in range(n_channels):
                g = gamma[(first + channel) % gamma.size]
                b = beta[(first + channel) % beta.size]
                lower = start + channel * n_inner
                _write_segment(x, lower, lower + n_inner, mean_hi, mean_lo, scale * g, b, y)
        if mean.size:
            mean[row] = mu
            rstd[row] = r


@kernel
def _norm_groups_kernel(n_parts, x, n_inner, n_channels, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd):
    for part in prange(n_parts):
        _norm_groups_part(
            np.intp(part), n_parts, x, n_inner, n_channels, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd
        )


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
    gamma, beta = _same_length(gamma, beta)
    if n_splits(n_rows, n_channels * n_inner) > 1:
        mu, r = _split_rows(x.reshape(n_rows, -1), eps, eps_on_std, use_mean, mean, rstd)
        mu, r = np.repeat(mu, n_channels, axis=1), np.repeat(r, n_channels, axis=1)
        gamma, beta = _per_channel(gamma, n_rows * n_channels), _per_channel(beta, n_rows * n_channels)
        cube = (1, n_rows * n_channels, n_inner)
        affine_rows(x.reshape(cube), mu, r, gamma, beta, y.reshape(cube))
        return
    flat, out = flat_input(x), flat_output(y)
    parts = n_parts(n_rows, x.size)
    _norm_groups_kernel(
        parts,
        flat,
        n_inner,
        n_channels,
        flat_input(gamma),
        flat_input(beta),
        eps,
        eps_on_std,
        use_mean,
        out,
        mean,
        rstd,
    )


@exact
def _norm_channels_part(part, n_parts, x, shape, gamma, beta, eps, eps_on_std, y, mean, var):
    n, n_channels, n_inner = shape
    for channel in range(n_channels * part // n_parts, n_channels * (part + 1) // n_parts):
        count, mu, m2 = np.float64(0), np.float64(0), np.float64(0)
        for i in range(n):
            start = (i * n_channels + channel) * n_inner
            count_b, mean_b, m2_b = segment_moments(x, None, start, start + n_inner)
            count, mu, m2 = welford_combine(count, mu, m2, count_b, mean_b, m2_b)
        mean[channel] = mu
        var[channel] = m2 / count
        mean_hi, mean_lo = _split(mu, gamma)
        scale = gamma.dtype.type(reciprocal_std(m2 / count, eps, eps_on_std)) * gamma[channel % gamma.size]
        shift = beta[channel % beta.size]
        for i in range(n):
            start = (i * n_channels + channel) * n_inner
            _write_segment(x, start, start + n_inner, mean_hi, mean_lo, scale, shift, y)


@kernel
def _norm_channels_kernel(n_parts, x, shape, gamma, beta, eps, eps_on_std, y, mean, var):
    for part in prange(n_parts):
        _norm_channels_part(np.intp(part), n_parts, x, shape, gamma, beta, eps, eps_on_std, y, mean, var)


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
        flat, out = flat_input(x), flat_output(y)
        parts = n_parts(n_channels, x.size)
        _norm_channels_kernel(
            parts, flat, x.shape, flat_input(gamma), flat_input(beta), eps, eps_on_std, out, mean, var
        )
        return
    _channel_moments(x, mean, var)
    rstd = _recurrences.reciprocal_std(var, eps, eps_on_std)
    if n_inner >= SHORT_SEGMENT or n_channels == 1:
        mu, r, g, b = (a.reshape(1, -1, 1) for a in (mean, rstd, gamma, beta))
        affine_rows(x, mu, r, g, b, y)
    else:
        cube = (1, n, n_channels * n_inner)
        repeated = (a if a.size == 1 else np.repeat(a, n_inner) for a in (mean, rstd, gamma, beta))
        mu, r, g, b = (a.reshape(1, 1, -1) for a in repeated)
        affine_cols(x.reshape(cube), mu, r, g, b, y.reshape(cube))


def _channel_moments(x: Array, mean: Array, var: Array) -> None:
    """Mean and biased variance per channel of x (n, n_channels, n_inner), x read once."""
    n, n_channels, n_inner = x.shape
    if n_inner >= SHORT_SEGMENT:
        parts = np.empty((3, 1, n, n_channels))
        moments_rows(x.reshape(n * n_channels, n_inner), None, *parts.reshape(3, -1))
    else:
        parts = np.empty((3, n_channels, n_inner, 1))
        moments_cols(x.reshape(1, n, -1), None, *parts.reshape(3, 1, -1))
    count, m2 = np.empty((2, n_channels))
    outputs = [out.reshape(parts.shape[1], -1) for out in (count, mean, m2)]
    combine_moments(parts[0], parts[1], parts[2], *outputs)
    np.divide(m2, count, out=var)


@exact
def _affine_rows_part(part, n_parts, x, n_inner, n_splits, mean, rstd, strides, gamma, beta, y):
    """Unit = one of the n_splits pieces of one row; strides say where its operands lie."""
    n_mid, mean_outer, mean_mid, outer, mid, step = strides
    n_units = x.size // n_inner * n_splits
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        row = unit // n_splits
        split = unit % n_splits
        lower = n_inner * split // n_splits
        n = n_inner * (split + 1) // n_splits - lower
        statistic = _offset(row, n_mid, mean_outer, mean_mid)
        parameter = _offset(row, n_mid, outer, mid)
        mean_hi, mean_lo = _split(mean[statistic], gamma)
        scale = gamma.dtype.type(rstd[statistic])
        start = row * n_inner + lower
        if step:
            _write_scaled(x, start, n, mean_hi, mean_lo, scale, gamma, beta, parameter + lower, y)
        else:
            scale *= gamma[parameter]
            _write_segment(x, start, start + n, mean_hi, mean_lo, scale, beta[parameter], y)


@kernel
def _affine_rows_kernel(n_parts, x, n_inner, n_splits, mean, rstd, strides, gamma, beta, y):
    for part in prange(n_parts):
        _affine_rows_part(np.intp(part), n_parts, x, n_inner, n_splits, mean, rstd, strides, gamma, beta, y)


@exact
def _offset(row, n_mid, outer_stride, mid_stride):
    """Offset in a broadcast operand of row (outer * n_mid + mid) of x."""
    return row // n_mid * outer_stride + row % n_mid * mid_stride


def _strides(operand: Array) -> tuple[int, int, int]:
    """Element strides of a dense 3-D operand, 0 along the axes that broadcast."""
    n_outer, n_mid, n_inner = operand.shape
    return n_mid * n_inner * (n_outer > 1), n_inner * (n_mid > 1), int(n_inner > 1)


def affine_rows(x: Array, mean: Array, rstd: Array, gamma: Array, beta: Array, y: Array) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics constant along the last axis; one read, one write."""
    n_mid, n_inner = x.shape[1:]
    gamma, beta = _same_shape(gamma, beta)
    strides = (n_mid, *_strides(mean)[:2], *_strides(gamma))
    splits = n_splits(x.size // n_inner, n_inner)
    operands = (flat_input(mean), flat_input(rstd), strides, flat_input(gamma), flat_input(beta))
    flat, out = flat_input(x), flat_output(y)
    parts = n_parts(x.size // n_inner * splits, x.size)
    _affine_rows_kernel(parts, flat, n_inner, splits, *operands, out)


def _same_shape(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """Both parameters with one shape, copied only where they differ."""
    if gamma.shape == beta.shape:
        return gamma, beta
    shape = np.broadcast_shapes(gamma.shape, beta.shape)
    return np.broadcast_to(gamma, shape).copy(), np.broadcast_to(beta, shape).copy()


@inner
def _prepare(mean, rstd, gamma, statistic, parameter, step, mean_hi, mean_lo, scale):
    """Operands of a row of columns in the compute dtype, ready for the loop over x."""
    for j in range(scale.size):
        high, low = _split(load(mean, statistic + j), gamma)
        mean_hi[j] = high
        mean_lo[j] = low
        scale[j] = gamma.dtype.type(load(rstd, statistic + j))
        if step:
            scale[j] *= load(gamma, parameter + j)


@inner
def _write_columns(x, start, mean_hi, mean_lo, scale, gamma, beta, parameter, step, y):
    """y = (x - mean) * scale * gamma + beta; where gamma varies (step), scale holds it already."""
    if step:
        for j in range(scale.size):
            value = centred(load(x, start + j), mean_hi[j], mean_lo[j])
            store(y, start + j, value * scale[j] + load(beta, parameter + j))
    else:
        factor = gamma[parameter]
        shift = beta[parameter]
        for j in range(scale.size):
            value = centred(load(x, start + j), mean_hi[j], mean_lo[j])
            store(y, start + j, value * scale[j] * factor + shift)


@exact
def _affine_cols_part(part, n_parts, x, n_inner, n_tiles, n_chunks, mean, rstd, strides, gamma, beta, y):
    """Unit = a chunk of the rows of one tile of columns; operands are prepared when they change."""
    n_rows = x.size // n_inner
    n_units = n_tiles * n_chunks
    n_mid, mean_outer, mean_mid, outer, mid, step = strides
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        tile = unit // n_chunks
        chunk = unit % n_chunks
        lower = n_inner * tile // n_tiles
        width = n_inner * (tile + 1) // n_tiles - lower
        mean_hi = np.empty(width, gamma.dtype)
        mean_lo = np.empty(width, gamma.dtype)
        scale = np.empty(width, gamma.dtype)
        prepared = (-1, -1)
        for row in range(n_rows * chunk // n_chunks, n_rows * (chunk + 1) // n_chunks):
            statistic = _offset(row, n_mid, mean_outer, mean_mid) + lower
            parameter = _offset(row, n_mid, outer, mid) + lower * step
            needed = (statistic, parameter * step)
            if prepared != needed:
                _prepare(mean, rstd, gamma, statistic, parameter, step, mean_hi, mean_lo, scale)
                prepared = needed
            start = row * n_inner + lower
            _write_columns(x, start, mean_hi, mean_lo, scale, gamma, beta, parameter, step, y)


@kernel
def _affine_cols_kernel(n_parts, x, n_inner, n_tiles, n_chunks, mean, rstd, strides, gamma, beta, y):
    for part in prange(n_parts):
        _affine_cols_part(np.intp(part), n_parts, x, n_inner, n_tiles, n_chunks, mean, rstd, strides, gamma, beta, y)


def affine_cols(x: Array, mean: Array, rstd: Array, gamma: Array, beta: Array, y: Array) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics varying along the last axis; one read, one write."""
    n_mid, n_inner = x.shape[1:]
    n_rows = x.size // n_inner
    gamma, beta = _same_shape(gamma, beta)
    strides = (n_mid, *_strides(mean)[:2], *_strides(gamma))
    n_tiles = -(-n_inner // (8 * TILE))
    n_chunks = max(1, min(n_rows, MAX_PARTS // n_tiles))
    operands = (flat_input(mean), flat_input(rstd), strides, flat_input(gamma), flat_input(beta))
    flat, out = flat_input(x), flat_output(y)
    parts = n_parts(n_tiles * n_chunks, x.size)
    _affine_cols_kernel(parts, flat, n_inner, n_tiles, n_chunks, *operands, out)
