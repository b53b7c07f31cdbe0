"""Normalisation of the elements that take part, as the formulas are printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._recurrences import reciprocal_std

Array = NDArray[Any]


def as_mask(taken: Array, shape: tuple[int, ...]) -> Array:
    """Which elements take part, boolean, where `taken` may count the first ones of each line."""
    if taken.dtype == np.bool_:
        return taken
    n_lines = taken.size
    inside: Array = np.arange(np.prod(shape) // n_lines) < taken[:, None]
    return inside.reshape(shape)


def _statistics(values: Array, mask: Array, use_mean: bool, ddof: float) -> tuple[Array, Array]:
    """Mean and variance over all axes but the first, with x's rank; NaN where nothing takes part."""
    axes = tuple(range(1, values.ndim))
    count = mask.sum(axes, keepdims=True, dtype=np.float64)
    mean = values.sum(axes, keepdims=True, where=mask) / count
    deviations = values - mean
    # Centring twice removes the rounding of the first mean.
    shift = deviations.sum(axes, keepdims=True, where=mask) / count
    var = np.sum((deviations - shift) ** 2, axes, keepdims=True, where=mask) / np.maximum(count - ddof, 0)
    mean = mean + shift
    return (mean, var) if use_mean else (mean * 0, var + mean**2)


def _write(y: Array, x: Array, mask: Array, normalized: Array, keep: bool) -> None:
    """Round what takes part; the rest is x or zero."""
    y[...] = np.where(mask, normalized.astype(y.dtype), x if keep else np.zeros((), y.dtype))


def masked_norm_rows(
    x: Array,
    taken: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """:func:`norm_rows` of the elements of x (n_rows, n_cols) that take part."""
    mask = as_mask(taken, x.shape)
    _norm(x, mask, gamma, beta, eps, eps_on_std, use_mean, ddof, keep, y, mean, rstd)


def masked_norm_groups(
    x: Array,
    taken: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """:func:`norm_groups` of the elements of x (n_rows, n_channels, n_inner) that take part."""
    n_rows, n_channels, _ = x.shape
    mask = as_mask(taken, x.shape)
    line = np.arange(n_rows * n_channels).reshape(n_rows, n_channels, 1)
    g, b = gamma[line % gamma.size], beta[line % beta.size]
    _norm(x, mask, g, b, eps, eps_on_std, use_mean, ddof, keep, y, mean, rstd)


def _norm(
    x: Array,
    mask: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Sets along the first axis, with parameters that broadcast against x."""
    values = x.astype(np.float64)
    with np.errstate(all="ignore"):
        mu, var = _statistics(values, mask, use_mean, ddof)
        scale = reciprocal_std(var, eps, eps_on_std)
        _write(y, x, mask, (values - mu) * scale * gamma.astype(np.float64) + beta, keep)
    if mean.size:
        mean[...] = mu.reshape(-1)
        rstd[...] = scale.reshape(-1)


def masked_affine(
    x: Array,
    taken: Array,
    mean: Array,
    var: Array,
    eps: float,
    eps_on_std: bool,
    gamma: Array,
    beta: Array,
    keep: bool,
    y: Array,
) -> None:
    """``(x - mean) * rstd * gamma + beta`` of the elements of x (n, n_channels, n_inner) that take part."""
    with np.errstate(all="ignore"):
        rstd = reciprocal_std(var, eps, eps_on_std)[:, None]
        centred = x.astype(np.float64) - mean[:, None]
        result = centred * rstd * gamma[:, None].astype(np.float64) + beta[:, None]
        _write(y, x, as_mask(taken, x.shape), result, keep)
