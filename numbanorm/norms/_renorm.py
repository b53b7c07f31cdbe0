"""Batch renormalisation: batch norm whose training agrees with its evaluation."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm._arguments import as_running
from numbanorm._arrays import place_of
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import checked_scale
from numbanorm._errors import degenerate_batch
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments, weights_of
from numbanorm._recurrences import reciprocal_std
from numbanorm._reduction import statistics
from numbanorm.norms._checks import (
    applied,
    channel_axis_of,
    channel_parameters,
    checked_input,
    delivered,
    other_axes,
)
from numbanorm.norms._running import update_masked, update_running

Array = NDArray[Any]


@everywhere
def batch_renorm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
    r_max: float = 3.0,
    d_max: float = 5.0,
    momentum: float = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Batch renormalisation (Ioffe 2017): the batch's statistics, corrected towards the running ones.

    With ``std = sqrt(var + eps)`` of the batch and ``sigma = sqrt(running_var + eps)``, both biased::

        r = clip(std / sigma, 1 / r_max, r_max)
        d = clip((mean - running_mean) / sigma, -d_max, d_max)
        y = ((x - mean) / std * r + d) * gamma + beta

    r and d are constants to the gradient. Where nothing is clipped, y is what evaluation gives;
    with ``r_max=1, d_max=0`` this is batch norm. Then, as in the article, the averages of mean and
    of *standard deviation* move by `momentum`::

        running_mean += momentum * (mean - running_mean)
        sigma += momentum * (std - sigma),  running_var = sigma**2 - eps

    In evaluation, ``y = (x - running_mean) / sigma * gamma + beta``.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C) or more axes.
    gamma, beta : array_like, optional
        Scale and shift per channel, (C,).
    running_mean, running_var : array
        (C,), floating point; needed in training too, where they are updated in place after use.
    training : bool
        Whether to use the statistics of the batch.
    r_max, d_max : float
        At least 1, and at least 0. The article starts with batch norm (1 and 0) and raises them to
        the defaults (3 and 5) over the first 40,000 and 25,000 steps.
    momentum : float
        Weight of the *new* statistics; the article takes 0.01.
    eps, channel_axis, where, lengths, length_axis, padding, out
        As in :func:`batch_norm`.
    return_stats : bool
        Also return what the gradient needs.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, rstd, r, d : array
        Only with `return_stats`; shaped to broadcast against x. In evaluation r is 1 and d is 0.

    Raises
    ------
    TypeError
        If x is not floating point, or a running statistic is not a floating-point array.
    ValueError
        If a running statistic is missing, `r_max` or `d_max` is too small, there is one value per
        channel in training, `eps` is not positive in training, or a length is not that of the channels.

    Notes
    -----
    Unlike batch norm's, the running variance is the biased one: r would otherwise not be 1 for a
    batch like all others.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, mean, var = np.array([[1.0], [5.0]]), np.zeros(1), np.ones(1)
    >>> nn.batch_renorm(x, None, None, mean, var, training=True, r_max=1.5).round(3).ravel()
    array([1.5, 4.5])
    >>> mean, var.round(3)
    (array([0.3]), array([1.21]))
    """
    operands = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    array, backend = checked_input(x, out, **operands, where=where)
    axis = channel_axis_of(array, channel_axis)
    channels = array.shape[axis]
    scale = checked_scale("batch_renorm", eps, positive=training)
    parameters = channel_parameters(gamma, beta, channels, axis)
    running = as_running("running_mean", running_mean, channels, writeable=training)
    spread = as_running("running_var", running_var, channels, writeable=training)
    if running is None or spread is None:
        raise ValueError("batch_renorm needs running_mean and running_var, in training too, but got None")
    check_limits(r_max, d_max)
    reduced = other_axes(array.ndim, axis)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    want = "rstd" if return_stats else ""
    if not training:
        result = applied(backend, array, running, spread, reduced, parameters, scale, mask, out, want)
        return delivered((*result, *_corrections(array, axis, None)), return_stats)
    if prod([array.shape[i] for i in reduced]) == 1:
        raise degenerate_batch(array.shape)
    count, mean, var = statistics(backend, array, reduced, weights_of(mask, place_of(array)))
    renorm = Renorm(float(eps), float(r_max), float(d_max))
    place = place_of(array)
    r, d = (place.evaluate(f, mean, var, running, spread) for f in (renorm.r, renorm.d))
    if mask is not None:  # a channel without elements is corrected by nothing, and has no part in a gradient
        r = place.evaluate(lambda n, ratio: np.where(n > 0, ratio, 1), count, r)
        d = place.evaluate(lambda n, distance: np.where(n > 0, distance, 0), count, d)
    features, gamma, beta = parameters
    gamma, beta = scaled(place, gamma, r), shifted(place, gamma, beta, d)
    result = applied(backend, array, mean, var, reduced, (features, gamma, beta), scale, mask, out, want)
    if array.size:
        new = place.evaluate(lambda v, old: renorm.updated(v, old, momentum), var, spread)
        if mask is not None:
            new = place.evaluate(lambda n, after, old: np.where(n > 0, after, old), count, new, spread)
            update_masked(backend, count, mean, var, True, momentum, running, None)
        else:
            update_running(backend, mean, var, 1.0, momentum, running, None)
        place.copy(spread, new)
    return delivered((*result, *_corrections(array, axis, (r, d))), return_stats)


def check_limits(r_max: float, d_max: float) -> None:
    """Raise ``ValueError`` unless r may be 1 and d may be 0."""
    if not r_max >= 1:
        raise ValueError(f"r_max must be at least 1, but got {r_max}")
    if not d_max >= 0:
        raise ValueError(f"d_max must be at least 0, but got {d_max}")


class Renorm(NamedTuple):
    """The arithmetic of the correction, per channel and in float64."""

    eps: float
    r_max: float
    d_max: float

    def r(self, mean: Array, var: Array, running_mean: Array, running_var: Array) -> Array:
        """Ratio of the standard deviations."""
        sigma, std = (reciprocal_std(v.astype(np.float64), self.eps, False) for v in (running_var, var))
        ratio: Array = np.clip(sigma / std, 1 / self.r_max, self.r_max)
        return ratio

    def d(self, mean: Array, var: Array, running_mean: Array, running_var: Array) -> Array:
        """Distance of the means."""
        sigma = reciprocal_std(running_var.astype(np.float64), self.eps, False)
        distance: Array = np.clip((mean - running_mean) * sigma, -self.d_max, self.d_max)
        return distance

    def updated(self, var: Array, running_var: Array, momentum: float) -> Array:
        """The running variance after this batch."""
        old, new = (np.reciprocal(reciprocal_std(v.astype(np.float64), self.eps, False)) for v in (running_var, var))
        variance: Array = np.maximum(np.square((1 - momentum) * old + momentum * new) - self.eps, 0)
        return variance.astype(running_var.dtype)


def scaled(place: Any, gamma: Array | None, r: Array) -> Array:
    """``gamma * r``, in float64."""
    return r if gamma is None else place.evaluate(lambda g, r: g.astype(np.float64) * r, gamma, r)


def shifted(place: Any, gamma: Array | None, beta: Array | None, d: Array) -> Array:
    """``gamma * d + beta``, in float64."""
    shift = scaled(place, gamma, d)
    return shift if beta is None else place.evaluate(lambda s, b: s + b.astype(np.float64), shift, beta)


def _corrections(x: Array, axis: int, given: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """r and d shaped to broadcast against x, in the dtype of saved statistics."""
    place, channels = place_of(x), x.shape[axis]
    dtype = compute_dtype(x.dtype)
    if given is None:
        zero = place.zeros(channels, dtype)
        given = place.evaluate(lambda z: z + z.dtype.type(1), zero), zero
    shape = tuple(channels if i == axis else 1 for i in range(x.ndim))
    return place.dense(given[0], dtype).reshape(shape), place.dense(given[1], dtype).reshape(shape)
