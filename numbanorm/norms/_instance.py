"""Instance norm: statistics over the spatial axes of each channel of each sample."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine, _engine_masked
from numbanorm._arrays import place_of
from numbanorm._engine import checked_scale
from numbanorm._masks import EVERYTHING, MaskArguments
from numbanorm._reduction import statistics
from numbanorm._replay import replayed
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms._checks import channel_axis_of, channel_parameters, checked_input, normalized, spatial_axes
from numbanorm.norms._running import update_masked

Array = NDArray[Any]


@replayed
def instance_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Instance normalisation (Ulyanov et al. 2016): each channel of each sample by itself.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with statistics over the spatial axes.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C, ...) with at least one spatial axis of more than one element.
    gamma, beta : array_like, optional
        Scale and shift per channel, (C,).
    eps : float
        Added to the variance.
    channel_axis : int
        Axis of the channels; the first of the others is that of the samples.
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
        Also return ``mean`` and ``rstd``, shaped to broadcast against x.

    Returns
    -------
    y : array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If there is only one spatial element, `eps` is negative, or a length does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.instance_norm(np.array([[[1.0, 3.0], [10.0, 50.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    array, backend = checked_input(x, out, gamma=gamma, beta=beta, where=where)
    axis = channel_axis_of(array, channel_axis)
    scale = checked_scale("instance_norm", eps)
    parameters = channel_parameters(gamma, beta, array.shape[axis], axis)
    reduced = spatial_axes(array, axis)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    return normalized(backend, array, reduced, parameters, scale, mask, out, return_stats)


def tracked_instance_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Array | None,
    running_var: Array | None,
    *,
    training: bool,
    settings: BatchNormSettings,
    out: Any,
    want: str = "",
    chosen: MaskArguments = EVERYTHING,
) -> tuple[Array, ...]:
    """Instance norm of (N, C, ...) that may track statistics, or use the tracked ones in evaluation.

    Returns y alone, or with ``want="rstd"`` y, mean and rstd.
    """
    if running_mean is None or running_var is None:
        options: dict[str, Any] = {"eps": settings.eps, "out": out, "return_stats": bool(want)}
        untracked = instance_norm(x, gamma, beta, **options, **chosen.given())
        return tuple(untracked) if want else (untracked,)
    if not training:
        return settings(x, gamma, beta, running_mean, running_var, training=False, out=out, want=want, chosen=chosen)
    operands = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    array, backend = checked_input(x, out, **operands, where=chosen.where)
    parameters = channel_parameters(gamma, beta, array.shape[1], 1)
    reduced = spatial_axes(array, 1)
    scale = checked_scale("instance_norm", settings.eps)
    mask = chosen.of(array, 1)
    if mask is not None:
        count, means, variances = statistics(backend, array, reduced, mask.weights(place_of(array)))
        given = means, variances, reduced, parameters, scale, mask
        result = _engine_masked.apply(backend, array, *given, out=out, want=want)
        update_masked(backend, count, means, variances, settings.biased, settings.momentum, running_mean, running_var)
        return result
    place, kept, dtype = place_of(array), array.shape[:2], np.dtype(np.float64)
    shaped = statistics(backend, array, reduced)[1:]
    result = _engine.apply(backend, array, *shaped, reduced, parameters, scale, out=out, want=want)
    if array.size:
        new = place.empty(kept[1], dtype), place.empty(kept[1], dtype)
        for statistic, average in zip(shaped, new, strict=True):
            backend.mean_var_cols(statistic.reshape(1, *kept), 0, False, average.reshape(1, -1), place.nothing(dtype))
        settings.update(backend, *new, prod(array.shape[2:]), running_mean, running_var)
    return result
