"""Gradients of normalisation as the formulas are printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _xhat(x: Array, mean: Array, rstd: Array, axes: tuple[int, ...], recentred: bool) -> Array:
    """x normalised; `recentred` removes the rounding of the saved mean."""
    centred = x.astype(np.float64) - mean
    if recentred:
        centred -= centred.mean(axes, keepdims=True)
    return np.asarray(centred * rstd)


def through_statistics(
    g: Array, xhat: Array, rstd: Array, axes: tuple[int, ...], std_eps: float, ddof: float, use_mean: bool
) -> Array:
    """dx of ``y = xhat`` whose statistics over `axes` depend on x, for a gradient g with respect to xhat."""
    n = np.prod([g.shape[axis] for axis in axes])
    share = 1 - std_eps * rstd  # std / (std + eps)
    slope = np.divide(1, share, out=np.zeros_like(share), where=share > 0)
    through_var = xhat * (g * xhat).sum(axes, keepdims=True) / (n - ddof) * slope
    return np.asarray(rstd * (g - g.mean(axes, keepdims=True) * use_mean - through_var))


def norm_rows_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_rows`: x (n_rows, n_cols), one parameter per column, or one for all."""
    target = dx.reshape(*x.shape, 1) if dx.size else dx
    norm_groups_backward(
        dy[:, :, None], x[:, :, None], gamma, mean, rstd, std_eps, ddof, use_mean, target, dgamma, dbeta
    )


def norm_groups_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_groups`: x (n_rows, n_channels, n_inner), cyclic parameters per channel."""
    n_rows, n_channels, _ = x.shape
    scale = rstd.astype(np.float64)[:, None, None]
    mu = mean.astype(np.float64)[:, None, None] * use_mean
    xhat = _xhat(x, mu, scale, (1, 2), use_mean)
    gradient = dy.astype(np.float64)
    if dx.size:
        parameter = np.arange(n_rows * n_channels).reshape(n_rows, n_channels, 1)
        g = gradient * gamma[parameter % gamma.size]
        dx[...] = through_statistics(g, xhat, scale, (1, 2), std_eps, ddof, use_mean).astype(dx.dtype)
    if dgamma.size:
        dgamma[...] = (gradient * xhat).sum(2).reshape(-1, dgamma.size).sum(0)
    if dbeta.size:
        dbeta[...] = gradient.sum(2).reshape(-1, dbeta.size).sum(0)


def norm_channels_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    fixed: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_channels`, or with `fixed` of an application of given statistics."""
    scale, mu, factor = (a.astype(np.float64)[:, None] for a in (rstd, mean, gamma))
    xhat = _xhat(x, mu, scale, (0, 2), not fixed)
    gradient = dy.astype(np.float64)
    if dx.size:
        g = gradient * factor
        result = scale * g if fixed else through_statistics(g, xhat, scale[None], (0, 2), std_eps, ddof, True)
        dx[...] = result.astype(dx.dtype)
    if dgamma.size:
        dgamma[...] = (gradient * xhat).sum((0, 2))
    if dbeta.size:
        dbeta[...] = gradient.sum((0, 2))
