"""Normalisation: statistics of a batch of rows, then the same rows written while they are in cache.

A call reads x from memory once and writes y once wherever a row, group or channel fits
in cache; a few huge ones are read twice, so that all threads can share them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _recurrences
from numbanorm.backends.cpu import _kernels as kernels
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import (
    BLOCK_BYTES,
    IN_L1,
    MAX_PARTS,
    QUICK_BLOCK,
    SERIAL_BELOW,
    SHORT_SEGMENT,
    channels_at_once,
    fold,
    n_parts,
    n_splits,
    rows_at_once,
)
from numbanorm.backends.cpu._row_sums import QUICK_FROM
from numbanorm.backends.cpu._stream import goes_past_caches
from numbanorm.backends.cpu.affine import affine_cols, affine_rows
from numbanorm.backends.cpu.mean_var import mean_var_channels
from numbanorm.backends.cpu.moments import finish_moments, moments_rows

Array = NDArray[Any]
#: eps, eps_on_std and use_mean.
Scale = tuple[float, bool, bool]


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
    parameters = (flat_input(parameter) for parameter in same_length(gamma, beta))
    parts, source, target = n_parts(n_rows, x.size), flat_input(x), flat_output(y)
    past_caches = goes_past_caches(x, y, n_cols)
    if past_caches and QUICK_FROM <= n_cols <= QUICK_BLOCK:
        kernels.stream_rows_kernel(parts, source, n_cols, *parameters, scale, target, mean, rstd)
        return
    batch = rows_at_once(n_cols, IN_L1)
    kernels.norm_rows_kernel(parts, source, n_cols, batch, *parameters, scale, target, past_caches, mean, rstd)


def same_length(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """A single gamma beside a vector beta as a vector too, and the other way round."""
    if gamma.size == beta.size:
        return gamma, beta
    return _repeated(gamma, beta.size), _repeated(beta, gamma.size)


def _repeated(parameter: Array, length: int) -> Array:
    """A single parameter as a vector; a vector as it is."""
    if parameter.size > 1:
        return parameter
    fill = _filled if length <= _KEPT_LENGTH else _filled.__wrapped__
    return fill(float(parameter[0]), length, parameter.dtype)


#: Vectors that stand for a missing parameter are kept up to this length, since making one takes a microsecond.
_KEPT_LENGTH = 1 << 16


@lru_cache(maxsize=64)
def _filled(value: float, length: int, dtype: np.dtype[Any]) -> Array:
    filled = np.full(length, value, dtype)
    filled.flags.writeable = False
    return filled


def _split_rows(x: Array, scale: Scale, mean: Array, rstd: Array) -> tuple[Array, Array]:
    """Mean and variance (1, n_rows, 1) of a few long rows, each shared by all threads."""
    count, mu, m2 = np.empty((3, len(x)))
    moments_rows(x, None, count, mu, m2)
    mu, var = finished(count, mu, m2, scale, 0, mean, rstd)
    return mu.reshape(1, -1, 1), var.reshape(1, -1, 1)


def finished(
    count: Array, mu: Array, m2: Array, scale: Scale, ddof: float, mean: Array, rstd: Array
) -> tuple[Array, Array]:
    """Mean and variance of moments, which they replace; to the outputs mean and rstd if these are wanted."""
    eps, eps_on_std, use_mean = scale
    finish_moments(count, mu, m2, ddof, use_mean, False, mu, m2)
    if mean.size:
        mean[:] = mu
        with np.errstate(divide="ignore"):
            rstd[:] = _recurrences.reciprocal_std(m2, eps, eps_on_std)
    return mu, m2


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
    gamma, beta = same_length(gamma, beta)
    if n_splits(n_rows, n_cols) > 1:
        statistics = _split_rows(x.reshape(n_rows, n_cols), scale, mean, rstd)
        mu, var = (np.repeat(statistic, n_channels, axis=1) for statistic in statistics)
        gamma, beta = _per_channel(gamma, n_rows * n_channels), _per_channel(beta, n_rows * n_channels)
        cube = (1, n_rows * n_channels, n_inner)
        affine_rows(x.reshape(cube), mu, var, eps, eps_on_std, gamma, beta, y.reshape(cube))
        return
    kernels.norm_groups_kernel(
        n_parts(n_rows, x.size),
        flat_input(x),
        n_inner,
        n_channels,
        max(1, rows_at_once(n_cols, IN_L1) // n_channels),
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
    cached = n * n_inner * x.itemsize <= BLOCK_BYTES
    many = n_channels >= MAX_PARTS or x.size < MAX_PARTS * 1024
    if n_inner >= SHORT_SEGMENT and cached and many:
        gamma, beta = same_length(gamma, beta)
        block = channels_at_once(n_channels, n * n_inner * x.itemsize)
        flat, parameters = flat_input(x), (flat_input(gamma), flat_input(beta))
        parts = n_parts(-(-n_channels // block), x.size)
        target = flat_output(y), goes_past_caches(x, y, n_inner)
        kernels.norm_channels_kernel(parts, flat, x.shape, block, *parameters, eps, eps_on_std, *target, mean, var)
        return
    if n_inner == 1 and x.size < SERIAL_BELOW:
        of_columns = (flat_input(parameter) for parameter in same_length(gamma, beta))
        shape, rows_at_once = (n, n_channels), fold(n, n_channels)
        kernels.norm_columns_kernel(
            1, flat_input(x), shape, rows_at_once, *of_columns, eps, eps_on_std, flat_output(y), mean, var
        )
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
