"""Batch norm: statistics over everything but the channels."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from numpy.typing import NDArray

from numbanorm import _engine, _engine_masked
from numbanorm._arguments import as_running
from numbanorm._arrays import place_of
from numbanorm._engine import Parameters, Scale, checked_scale
from numbanorm._errors import degenerate_batch
from numbanorm._masks import EVERYTHING, Mask, MaskArguments
from numbanorm._reduction import statistics
from numbanorm._replay import replayed
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


@replayed
def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
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
    """Batch normalisation (Ioffe & Szegedy 2015): each channel by its statistics over the batch.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``. In training, mean and biased variance
    are those of the batch, and the running statistics, if given, are updated in place::

        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var  = (1 - momentum) * running_var  + momentum * var * n / (n - 1)

    In evaluation the running statistics are used and nothing is changed. With `where` or `lengths`,
    n is the count of the elements that take part, channel by channel: a channel without any has NaN
    statistics and leaves its running ones as they were.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C) or more axes.
    gamma, beta : array_like, optional
        Scale and shift per channel, (C,).
    running_mean, running_var : array, optional
        (C,), floating point. In training they are written to; in evaluation both are needed.
    training : bool
        Whether to use the statistics of the batch.
    momentum : float
        Weight of the *new* statistics, as in torch. Keras, flax, ONNX and Chainer give the
        weight of the old ones: their 0.9 is 0.1 here.
    eps : float
        Added to the variance; positive in training.
    channel_axis : int
        Axis of the channels: 1 (NCHW), -1 (NHWC) or any other.
    where : array_like of bool, optional
        Which elements take part, broadcast to x. The others count in no statistic, whatever they hold.
    lengths : array_like of int, optional
        (N,), of padded samples: how many of the first elements along `length_axis` take part.
    length_axis : int, optional
        By default the first axis that is neither the samples' nor the channels'.
    padding : {"zero", "keep"}
        What becomes of elements that take no part: 0, or what x holds there.
    out : array, optional
        Where to put the result; x itself is allowed.
    return_stats : bool
        Also return the ``mean`` and ``rstd`` that were used.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, rstd : array
        Only with `return_stats`; shaped to broadcast against x.

    Raises
    ------
    TypeError
        If x is not floating point, or a running statistic is not a floating-point array.
    ValueError
        If there is one value per channel in training, `eps` is not positive in training, a
        length is not that of the channels, or evaluation lacks running statistics.

    Notes
    -----
    The normalisation uses the biased variance while `running_var` takes the unbiased one, as
    in torch; :class:`numbanorm.BatchNorm` offers the biased one too. A float32 `running_var`
    is exact to its last bit here, where torch's may be off by a factor of hundreds for data
    far from zero.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> nn.batch_norm(x, None, None, mean, var, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    batch = BatchNormSettings(momentum, eps, channel_axis, biased=False)
    operands = (gamma, beta, running_mean, running_var)
    want = "rstd" if return_stats else ""
    chosen = MaskArguments(where, lengths, length_axis, padding)
    return delivered(batch(x, *operands, training=training, out=out, want=want, chosen=chosen), return_stats)


class BatchNormSettings(NamedTuple):
    """The settings of a batch norm; the layers have one more than the function: `biased`."""

    momentum: float
    eps: float
    channel_axis: int
    biased: bool

    @replayed
    def __call__(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        running_mean: Any,
        running_var: Any,
        *,
        training: bool,
        out: Any,
        want: str = "",
        chosen: MaskArguments = EVERYTHING,
    ) -> tuple[Array, ...]:
        operands = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
        array, backend = checked_input(x, out, **operands, where=chosen.where)
        axis = channel_axis_of(array, self.channel_axis)
        channels = array.shape[axis]
        scale = checked_scale("batch_norm", self.eps, positive=training)
        parameters = channel_parameters(gamma, beta, channels, axis)
        mean = as_running("running_mean", running_mean, channels, writeable=training)
        var = as_running("running_var", running_var, channels, writeable=training)
        reduced = other_axes(array.ndim, axis)
        mask = chosen.of(array, axis)
        if training and mask is not None:
            return self._train_masked(backend, array, reduced, parameters, scale, mask, (mean, var), out, want)
        if training:
            return self._train(backend, array, reduced, parameters, scale, mean, var, out, want)
        if mean is None or var is None:
            raise ValueError("batch_norm in evaluation needs running_mean and running_var, but got None")
        return applied(backend, array, mean, var, reduced, parameters, scale, mask, out, want)

    def _train(
        self,
        backend: Any,
        x: Array,
        reduced: tuple[int, ...],
        parameters: Parameters,
        scale: Scale,
        running_mean: Array | None,
        running_var: Array | None,
        out: Any,
        want: str,
    ) -> tuple[Array, ...]:
        count = prod([x.shape[i] for i in reduced])
        if count == 1:
            raise degenerate_batch(x.shape)
        y, mean, var = _engine.normalize(backend, x, reduced, parameters, scale, out=out, want="var")
        if count and (running_mean is not None or running_var is not None):
            self.update(backend, mean.reshape(-1), var.reshape(-1), count, running_mean, running_var)
        return (y, *_engine.saved(x, mean, var, scale)) if want else (y,)

    def _train_masked(
        self,
        backend: Any,
        x: Array,
        reduced: tuple[int, ...],
        parameters: Parameters,
        scale: Scale,
        mask: Mask,
        running: tuple[Array | None, Array | None],
        out: Any,
        want: str,
    ) -> tuple[Array, ...]:
        count, mean, var = statistics(backend, x, reduced, mask.weights(place_of(x)))
        given = mean, var, reduced, parameters, scale, mask
        result = _engine_masked.apply(backend, x, *given, out=out, want=want)
        update_masked(backend, count, mean, var, self.biased, self.momentum, *running)
        return result

    def update(
        self, backend: Any, mean: Array, var: Array, count: int, running_mean: Array | None, running_var: Array | None
    ) -> None:
        """Running statistics in place, from those of `count` numbers in each channel."""
        unbias = 1.0 if self.biased else count / (count - 1)
        update_running(backend, mean, var, unbias, self.momentum, running_mean, running_var)
