"""Layer and RMS norm: statistics and parameters over the same axes."""

from __future__ import annotations

from typing import Any

from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._engine import checked_scale
from numbanorm._masks import MaskArguments
from numbanorm._replay import replayed
from numbanorm.norms._checks import axis_parameters, checked_input, normalized


@replayed
def layer_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    eps_on: str = "var",
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Layer normalisation (Ba, Kiros & Hinton 2016): each sample by its own mean and variance.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with mean and biased variance over `axis`.

    Parameters
    ----------
    x : array_like
        Floating point, any shape and layout.
    gamma, beta : array_like, optional
        Scale and shift, with the shape of x over `axis` (in ascending order of axes).
    axis : int, tuple of int or None
        The normalised axes: the last (default), the last few, or any others; ``axis=1`` of
        (N, C, H, W) is the channels-first layer norm of ConvNeXt.
    eps : float
        Added to the variance. torch's 1e-5; flax and many papers' code use 1e-6.
    eps_on : {"var", "std"}
        "std" divides by ``std + eps``, as the Annotated Transformer does.
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
        Also return ``mean`` and ``rstd = 1 / sqrt(var + eps)``.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, rstd : array
        Only with `return_stats`; shaped to broadcast against x, float32 (float64 for float64 x).

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If `eps` is negative, or the shape of a parameter or of `out` does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.layer_norm(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])).round(3)
    array([[-1.225,  0.   ,  1.225],
           [-1.225,  0.   ,  1.225]])
    """
    array, backend = checked_input(x, out, gamma=gamma, beta=beta, where=where)
    scale = checked_scale("layer_norm", eps, eps_on)
    axes = canonicalize_axes(axis, array.ndim)
    parameters = axis_parameters(gamma, beta, array.shape, axes)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    return normalized(backend, array, axes, parameters, scale, mask, out, return_stats)


@replayed
def rms_norm(
    x: Any,
    gamma: Any = None,
    *,
    axis: Axis = -1,
    eps: float = 1e-6,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Root mean square normalisation (Zhang & Sennrich 2019): layer norm without the mean.

    ``y = x / sqrt(mean(x**2) + eps) * gamma`` over `axis`.

    Parameters, results and errors are those of :func:`layer_norm`. torch's default `eps` is
    the machine epsilon of the dtype; ours is 1e-6 for all.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, rstd : array
        Only with `return_stats`: zeros, and ``1 / sqrt(mean(x**2) + eps)``.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.rms_norm(np.array([3.0, 4.0])).round(4)
    array([0.8485, 1.1314])
    """
    array, backend = checked_input(x, out, gamma=gamma, where=where)
    scale = checked_scale("rms_norm", eps, use_mean=False)
    axes = canonicalize_axes(axis, array.ndim)
    parameters = axis_parameters(gamma, None, array.shape, axes)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    return normalized(backend, array, axes, parameters, scale, mask, out, return_stats)
