"""Normalisation as the formulas are printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._recurrences import reciprocal_std
from numbanorm.backends.reference.affine import write

Array = NDArray[Any]


def _statistics(x: Array, axis: tuple[int, ...], use_mean: bool) -> tuple[Array, Array, Array]:
    """(x - mean, mean, var), the last two with x's rank."""
    values = x.astype(np.float64)
    mean = values.mean(axis, keepdims=True) * use_mean
    centred = values - mean
    # Centring twice removes the rounding of the first mean.
    shift = centred.mean(axis, keepdims=True) * use_mean
    centred -= shift
    return centred, mean + shift, (centred**2).mean(axis, keepdims=True)


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
    """Normalise each row of x (n_rows, n_cols), one parameter per column."""
    norm_groups(x[:, :, None], gamma, beta, eps, eps_on_std, use_mean, y[:, :, None], mean, rstd)


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
    """Normalise each row of x (n_rows, n_channels, n_inner), cyclic parameters per channel."""
    n_rows, n_channels, _ = x.shape
    centred, mu, var = _statistics(x, (1, 2), use_mean)
    scale = reciprocal_std(var, eps, eps_on_std)
    parameter = np.arange(n_rows * n_channels).reshape(n_rows, n_channels, 1)
    write(y, centred, scale, gamma[parameter % gamma.size], beta[parameter % beta.size])
    if mean.size:
        mean[...] = mu[:, 0, 0]
        rstd[...] = scale[:, 0, 0]


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
    """Normalise each channel of x (n, n_channels, n_inner) over the first and last axis."""
    centred, mu, spread = _statistics(x, (0, 2), True)
    write(y, centred, reciprocal_std(spread, eps, eps_on_std), gamma[:, None], beta[:, None])
    mean[...] = mu[0, :, 0]
    var[...] = spread[0, :, 0]
