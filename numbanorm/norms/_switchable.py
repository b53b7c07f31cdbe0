"""Switchable norm: a learnt mixture of instance, layer and batch statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine, _reduction
from numbanorm._arguments import as_parameter, as_running
from numbanorm._arrays import place_of
from numbanorm._engine import checked_scale
from numbanorm._errors import ShapeError
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments, weights_of
from numbanorm.norms._checks import (
    applied,
    channel_axis_of,
    channel_parameters,
    checked_input,
    delivered,
    spatial_axes,
)
from numbanorm.norms._running import update_masked, update_running

Array = NDArray[Any]


@everywhere
def switchable_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    mean_weights: Any,
    var_weights: Any,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
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
    """Switchable normalisation (Luo et al. 2018): statistics mixed from three norms by learnt weights.

    With ``w = softmax(mean_weights)`` and ``u = softmax(var_weights)``, for each instance::

        mean = w[0] * mean_instance + w[1] * mean_layer + w[2] * mean_batch
        var  = u[0] * var_instance  + u[1] * var_layer  + u[2] * var_batch
        y = (x - mean) / sqrt(var + eps) * gamma + beta

    x is read once for the moments of the instances; those of layers (all channels of a sample)
    and of the batch (a channel in all samples) are merged from these. In training the running
    statistics take those of the batch, and in evaluation they stand in for them::

        running = (1 - momentum) * running + momentum * batch

    Parameters
    ----------
    x : array_like
        Floating point, (N, C, ...) with more than one spatial element.
    gamma, beta : array_like or None
        Scale and shift per channel, (C,).
    mean_weights, var_weights : array_like
        (3,), before the softmax: instance, layer, batch, as in the authors' code.
    running_mean, running_var : array, optional
        (C,), floating point. In training they are updated in place; in evaluation both are needed.
    training : bool
        Whether to use the statistics of the batch.
    momentum : float
        Weight of the *new* statistics; the authors' code has that of the old ones, 0.9.
    eps, channel_axis, where, lengths, length_axis, padding, out
        As in :func:`instance_norm`; instances and samples without elements have statistics of zero here.
    return_stats : bool
        Also return the instances' mean and biased variance in float64, from which all else follows.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, var : array
        Only with `return_stats`; shaped to broadcast against x.

    Raises
    ------
    TypeError
        If x is not floating point, or a running statistic is not a floating-point array.
    ValueError
        If there is one spatial element, a shape does not fit, `eps` is negative, or evaluation
        lacks running statistics.

    Notes
    -----
    All variances are biased, the running one too, as in the authors' code.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, instance_only = np.array([[[1.0, 3.0], [10.0, 50.0]]]), np.array([50.0, 0.0, 0.0])
    >>> nn.switchable_norm(x, None, None, instance_only, instance_only, training=True).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    operands = {"gamma": gamma, "beta": beta, "mean_weights": mean_weights, "var_weights": var_weights}
    array, backend = checked_input(x, out, **operands, running_mean=running_mean, running_var=running_var, where=where)
    axis = channel_axis_of(array, channel_axis)
    channels = array.shape[axis]
    scale = checked_scale("switchable_norm", eps)
    parameters = channel_parameters(gamma, beta, channels, axis)
    weights = checked_weights(mean_weights, var_weights)
    running = checked_running(running_mean, running_var, channels, training)
    reduced = spatial_axes(array, axis)
    place = place_of(array)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    data = _reduction.moments(array, reduced, weights_of(mask, place), backend)
    levels = Levels.of(backend, data, axis, running if not training else None, mask is not None)
    if array.size == 0:
        y = _engine.normalize(backend, array, reduced, parameters, scale, out=out)[0]
    else:
        mean = place.evaluate(mixed, weights[0], *levels.means)
        var = place.evaluate(mixed, weights[1], *levels.variances)
        y = applied(backend, array, mean, var, reduced, parameters, scale, mask, out)[0]
        if training and any(r is not None for r in running):
            count = place.evaluate(lambda n: n.sum(0 if axis else 1), data[0, ...])
            batch = levels.means[2].reshape(-1), levels.variances[2].reshape(-1)
            if mask is None:
                update_running(backend, *batch, 1.0, momentum, *running)
            else:
                update_masked(backend, count, *batch, True, momentum, *running)
    shape = tuple(1 if i in reduced else n for i, n in enumerate(array.shape))
    return delivered((y, levels.means[0].reshape(shape), levels.variances[0].reshape(shape)), return_stats)


def checked_weights(*given: Any) -> list[Array]:
    """The weights of means and of variances, before the softmax."""
    weights = []
    for name, value in zip(("mean_weights", "var_weights"), given, strict=True):
        array = as_parameter(name, value)
        if array is None or array.shape != (3,):
            came = None if array is None else array.shape
            raise ShapeError(f"{name} should have shape (3,): instance, layer, batch; but got {came}")
        weights.append(array)
    return weights


def checked_running(mean: Any, var: Any, channels: int, training: bool) -> tuple[Array | None, Array | None]:
    """Running statistics, both of which evaluation needs."""
    running = (
        as_running("running_mean", mean, channels, writeable=training),
        as_running("running_var", var, channels, writeable=training),
    )
    if not training and any(r is None for r in running):
        raise ValueError("switchable_norm in evaluation needs running_mean and running_var, but got None")
    return running


class Levels(NamedTuple):
    """Statistics of instance, layer and batch, which broadcast against one another: float64."""

    means: tuple[Array, Array, Array]
    variances: tuple[Array, Array, Array]

    @classmethod
    def of(cls, backend: Any, data: Array, axis: int, running: tuple[Any, Any] | None, masked: bool) -> Levels:
        """All levels from the moments (3, N, C) of the instances, or (3, C, N) where channels come first.

        `running` stands in for the batch. Where sets may be empty (`masked`), these have zeros, so that
        they add nothing to sums over sets.
        """
        channel = 1 if axis else 0
        instance = _of_sets(backend, data, masked)
        layer = _merged(backend, data, channel, masked)
        batch = _merged(backend, data, 1 - channel, masked) if running is None else running
        shape = [1, 1]
        shape[channel] = data.shape[1 + channel]
        mean, var = batch[0].reshape(shape), batch[1].reshape(shape)
        return cls((instance[0], layer[0], mean), (instance[1], layer[1], var))


def _of_sets(backend: Any, data: Array, masked: bool) -> tuple[Array, Array]:
    """Mean and variance; with `masked` zeros instead of the NaN of empty sets."""
    mean, var = _reduction.finished(backend, data)
    if not masked:
        return mean, var
    place = place_of(data)
    mean, var = (place.evaluate(lambda n, s: np.where(n > 0, s, 0), data[0, ...], s) for s in (mean, var))
    return mean, var


def _merged(backend: Any, data: Array, along: int, masked: bool) -> tuple[Array, Array]:
    """Mean and variance of the union of sets along one of both axes, which stays with length 1."""
    place = place_of(data)
    rows, columns = data.shape[1:]
    merged = place.zeros((3, *((1, columns) if along == 0 else (rows, 1))))
    if data.size:
        _reduction.combine(backend, data, (1, rows, columns) if along == 0 else (rows, columns, 1), merged)
    return _of_sets(backend, merged, masked)


def softmax(weights: Array) -> Array:
    """Positive numbers that add up to 1, in float64."""
    logits = weights.astype(np.float64)
    powers = np.exp(logits - logits.max())
    shares: Array = powers / powers.sum()
    return shares


def mixed(weights: Array, instance: Array, layer: Array, batch: Array) -> Array:
    """The mixture of three levels of a statistic."""
    w = softmax(weights)
    # About the instance's: a mean far from zero would otherwise lose what weights lack of 1.
    mixture: Array = instance + w[1] * (layer - instance) + w[2] * (batch - instance)
    return mixture
