"""Gradient of switchable norm."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import HOST, place_of
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale, checked_scale
from numbanorm._engine_backward import Sets, normalize_backward
from numbanorm._engine_masked import put_right
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm._recurrences import reciprocal_std
from numbanorm.norms._adaptive import content_sets, per_sample
from numbanorm.norms._checks import channel_axis_of, channel_parameters, sample_axis_of, spatial_axes
from numbanorm.norms._switchable import Levels, checked_running, checked_weights, mixed, softmax
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic, count_of

Array = NDArray[Any]


@everywhere
def switchable_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean_weights: Any,
    var_weights: Any,
    mean: Any,
    var: Any,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> tuple[Array, Array | None, Array | None, Array, Array]:
    """Gradient of :func:`numbanorm.switchable_norm`.

    With statistics ``m_k, v_k`` of the three levels, mixed into mean and var, and with
    ``xhat = (x - mean) * rstd``, ``g = dy * gamma`` and sums over an instance::

        dmean = -rstd * sum(g),  dvar = -rstd**2 * sum(g * xhat) / 2
        dx = g * rstd + sum over k of the means over level k of
                 w[k] * dmean + 2 * u[k] * dvar * (x - m_k)
        dmean_weights[k] = w[k] * sum(dmean * (m_k - mean))
        dvar_weights[k] = u[k] * sum(dvar * (v_k - var))

    In evaluation the batch's statistics are the running ones, and constant.

    Parameters
    ----------
    dy, x, gamma : array_like
        As in :func:`instance_norm_backward`.
    mean_weights, var_weights : array_like
        (3,), as in the forward.
    mean, var : array_like
        Of the instances, as the forward returned them with ``return_stats=True``.
    running_mean, running_var : array_like, optional
        (C,); needed in evaluation, and not looked at in training.
    training, eps, channel_axis, where, lengths, length_axis, padding, out
        As in the forward.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        (C,); None without gamma.
    dmean_weights, dvar_weights : array
        (3,).

    Raises
    ------
    TypeError, ValueError
        As the forward.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma, w = np.array([[[1.0, 2.0, 4.0]]]), np.ones(1), np.zeros(3)
    >>> y, *saved = nn.switchable_norm(x, gamma, None, w, w, training=True, return_stats=True)
    >>> dy = np.array([[[1.0, 0.0, 0.0]]])
    >>> dx, dgamma, dbeta, dw, du = nn.switchable_norm_backward(dy, x, gamma, w, w, *saved, training=True)
    >>> dx.round(3), dgamma.round(3), dbeta, dw
    (array([[[ 0.229, -0.344,  0.115]]]), array([-1.069]), array([1.]), array([0., 0., 0.]))
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, var, where=where)
    axis = channel_axis_of(array, channel_axis)
    checked_scale("switchable_norm", eps)
    _, gamma, _ = channel_parameters(gamma, None, array.shape[axis], axis)
    weights = checked_weights(mean_weights, var_weights)
    reduced = spatial_axes(array, axis)
    mean, var = (checked_statistic(n, s, array.shape, reduced) for n, s in (("mean", mean), ("var", var)))
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    place, sets = place_of(array), content_sets(array, axis)
    mean, var = (place.dense(s.reshape(sets), np.dtype(np.float64)) for s in (mean, var))
    if mask is None:
        n = count_of(array.shape, reduced)
        count = place.evaluate(lambda m: np.full_like(m, n), mean)
    else:
        count = place.evaluate(lambda m: m.sum(reduced).astype(np.float64), mask.boolean_at(place))
    data = place.evaluate(lambda n, m, v: np.stack([n, m, v * n]), count, mean, var)
    running = None
    if not training:
        running = checked_running(running_mean, running_var, array.shape[axis], False)
    levels = Levels.of(backend, data, axis, running, mask is not None)
    ones = place.evaluate(np.ones_like, mean)
    shared = out is not None and (place.overlap(out, array) or place.overlap(out, gradient))
    plain = Sets(reduced, per_sample(axis), mask=mask)
    # Its dx is that of an instance norm, and written over; what counts are both sums.
    operands = backend, gradient, array, None, mean, ones, plain, Scale(0.0)
    dx, products, sums = normalize_backward(*operands, None if shared else out)
    flows = Flows(float(eps), 1 if axis else 0, training)
    given = *weights, *levels.means, *levels.variances, products, sums, _along(gamma, axis, place), count
    slopes = [place.evaluate(lambda *a, k=k: flows.slopes(*a)[k], *given) for k in range(3)]
    if array.size:
        _combine(place, gradient, array, mean, slopes, axis, dx)
        if mask is not None:
            put_right(place, gradient, dx, mask, dx)
    if shared:
        place.copy(out, dx)
        dx = out
    dtype = compute_dtype(array.dtype)
    learnt = [place.evaluate(lambda *a, k=k: flows.parameters(*a)[k].astype(dtype), *given) for k in range(4)]
    dgamma, dbeta = learnt[:2] if gamma is not None else (None, None)
    return dx, dgamma, dbeta, learnt[2], learnt[3]


def _along(gamma: Array | None, axis: int, place: Any) -> Array:
    """gamma shaped to broadcast against the instances."""
    if gamma is None:
        gamma = place.constant(1, np.dtype(np.float64))
    return gamma.reshape((1, -1) if axis else (-1, 1))


class Flows(NamedTuple):
    """What flows back through the statistics, per instance and in float64.

    Arguments are both weights, means and variances of the three levels, and over each instance
    `products`, the sum of ``dy * (x - mean_instance)``, and `sums`, that of dy; gamma, and how many
    elements each has.
    """

    eps: float
    #: The axis of channels among (samples, channels).
    channel: int
    training: bool

    def _statistics(self, *given: Array) -> tuple[Array, Array, Array, Array, Array]:
        """rstd, mean, var, and the gradients with respect to the latter two."""
        w, u, mi, ml, mb, vi, vl, vb, products, sums, gamma, _ = given
        mean, var = mixed(w, mi, ml, mb), mixed(u, vi, vl, vb)
        rstd = reciprocal_std(var, self.eps, False)
        dot = (products + (mi - mean) * sums) * rstd * gamma
        return rstd, mean, var, -rstd * gamma * sums, -(rstd**2) * dot / 2

    def slopes(self, *given: Array) -> tuple[Array, Array, Array]:
        """(a, p, q) such that ``dx = a * dy + p * (x - mean_instance) + q``."""
        w, u, mi, ml, mb, *_, gamma, count = given
        rstd, _, _, dmean, dvar = self._statistics(*given)
        w, u = softmax(w), softmax(u)
        n = np.maximum(count, 1)
        p, q = 2 * u[0] * dvar / n, w[0] * dmean / n
        levels = [(1, ml, self.channel), (2, mb, 1 - self.channel)]
        for k, level, along in levels if self.training else levels[:1]:
            size = np.maximum(count.sum(along, keepdims=True), 1)
            slope = 2 * u[k] * dvar.sum(along, keepdims=True) / size
            p = p + slope
            q = q + w[k] * dmean.sum(along, keepdims=True) / size + slope * (mi - level)
        return rstd * gamma, p, q

    def parameters(self, *given: Array) -> tuple[Array, Array, Array, Array]:
        """Gradients of gamma, beta and both weights."""
        w, u, mi, ml, mb, vi, vl, vb, products, sums, *_ = given
        rstd, mean, var, dmean, dvar = self._statistics(*given)
        samples = 1 - self.channel
        dgamma = ((products + (mi - mean) * sums) * rstd).sum(samples)
        dw = [(dmean * (level - mean)).sum() for level in (mi, ml, mb)]
        du = [(dvar * (level - var)).sum() for level in (vi, vl, vb)]
        stacked = softmax(w) * np.stack(dw), softmax(u) * np.stack(du)
        return dgamma, sums.astype(np.float64).sum(samples), *stacked


def _combine(place: Any, dy: Array, x: Array, mean: Array, slopes: list[Array], axis: int, dx: Array) -> None:
    """``dx = a * dy + p * (x - mean) + q`` in float64; on the host a sample at a time, to stay in cache."""
    sets = per_sample(axis)
    shape = tuple(n if i in sets else 1 for i, n in enumerate(x.shape))
    a, p, q, mu = (s.reshape(shape) for s in (*slopes, mean))
    sample = sample_axis_of(axis)
    step = 1 if place is HOST else x.shape[sample]
    dtype = dx.dtype

    def combined(dy: Array, x: Array, a: Array, p: Array, q: Array, mu: Array) -> Array:
        return (a * dy.astype(np.float64) + p * (x.astype(np.float64) - mu) + q).astype(dtype)

    for first in range(0, x.shape[sample], step):
        part = (slice(None),) * sample + (slice(first, first + step),)
        place.copy(dx[part], place.evaluate(combined, *(s[part] for s in (dy, x, a, p, q, mu))))
