"""Gradients of norms in which not all elements take part, as the formulas are printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.reference.masked import as_mask

Array = NDArray[Any]


def masked_gradient(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    axes: tuple[int, ...],
    std_eps: float,
    ddof: float,
    use_mean: bool,
    fixed: bool = False,
    weights: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of a norm over `axes` of the elements that take part, for any layout and place.

    Parameters
    ----------
    dy, x : array
        Of one shape. What does not take part may hold anything.
    taken : array of bool
        Which elements take part; this, gamma, mean and rstd broadcast against x.
    gamma, mean, rstd : array
        Of mean, rounding is taken off again; with ``use_mean=False`` it is not looked at.
    axes : tuple of int
        Axes whose elements share statistics.
    std_eps, ddof, use_mean
        As launchers take them, see :mod:`numbanorm.backends`.
    fixed : bool
        Whether statistics do not depend on x.
    weights : array, optional
        How much each element counts in statistics, where that is not the same.

    Returns
    -------
    dx, dy * xhat, dy : array of float64
        Of x's shape, and 0 where elements do not take part: dgamma and dbeta are sums of the last two.
    """
    taken = np.broadcast_to(taken, x.shape)
    scale = rstd.astype(np.float64)
    with np.errstate(all="ignore"):  # a set without elements has NaN as statistics
        share = np.where(taken, 1.0 if weights is None else weights, 0.0)
        total = share.sum(axes, keepdims=True)
        n = np.where(total > 0, total, 1.0)
        gradient = np.where(taken, dy.astype(np.float64), 0.0)
        g = np.where(taken, gradient * gamma, 0.0)
        centred = x.astype(np.float64) - mean if use_mean else x.astype(np.float64)
        if use_mean and not fixed:
            centred = centred - (share * np.where(taken, centred, 0.0)).sum(axes, keepdims=True) / n
        xhat = np.where(taken, centred * scale, 0.0)
        dx = scale * g
        if not fixed:
            steepness = 1 - std_eps * scale  # std / (std + eps)
            slope = np.where(steepness > 0, 1 / steepness, 0.0)
            through_mean = g.sum(axes, keepdims=True) / n * use_mean
            through_var = xhat * (g * xhat).sum(axes, keepdims=True) / (n - ddof) * slope
            dx = scale * (g - share * (through_mean + through_var))
        return np.where(taken, dx, 0.0), gradient * xhat, gradient


def masked_rows_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_norm_rows`: x (n_rows, n_cols), one parameter per column, or one for all."""
    target = dx.reshape(*x.shape, 1) if dx.size else dx
    operands = dy[:, :, None], x[:, :, None], as_mask(taken, x.shape)[:, :, None], gamma, mean, rstd
    masked_groups_backward(*operands, std_eps, ddof, use_mean, keep, target, dgamma, dbeta)


def masked_groups_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_norm_groups`: x (n_rows, n_channels, n_inner), cyclic parameters per channel."""
    n_rows, n_channels, _ = x.shape
    inside = as_mask(taken, x.shape)
    factor = gamma[np.arange(n_rows * n_channels).reshape(n_rows, n_channels, 1) % gamma.size]
    operands = dy, x, inside, factor, mean[:, None, None], rstd[:, None, None]
    gradient, products, terms = masked_gradient(*operands, (1, 2), std_eps, ddof, use_mean)
    _store(dy, inside, keep, gradient, dx)
    for out, of_parameter in ((dgamma, products), (dbeta, terms)):
        if out.size:
            out[...] = of_parameter.sum(2).reshape(-1, out.size).sum(0)


def masked_channels_backward(
    dy: Array,
    x: Array,
    taken: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    fixed: bool,
    keep: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`masked_affine` with statistics of x, or with `fixed` with given ones."""
    inside = as_mask(taken, x.shape)
    operands = dy, x, inside, gamma[:, None], mean[:, None], rstd[:, None]
    gradient, products, terms = masked_gradient(*operands, (0, 2), std_eps, ddof, True, fixed)
    _store(dy, inside, keep, gradient, dx)
    for out, of_parameter in ((dgamma, products), (dbeta, terms)):
        if out.size:
            out[...] = of_parameter.sum((0, 2))


def _store(dy: Array, taken: Array, keep: bool, gradient: Array, dx: Array) -> None:
    """dx in its own dtype; with `keep` dy where elements do not take part."""
    if dx.size:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = gradient.astype(dx.dtype)
        dx[...] = np.where(taken, rounded, dy) if keep else rounded
