"""Scaling of data and of weights: z-scores, ranges, unit length, weight standardisation."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import place_of
from numbanorm._axes import Axis, canonicalize_axes, canonicalize_axis
from numbanorm._dtypes import compute_dtype, norm_dtype
from numbanorm._engine import Scale, checked_scale
from numbanorm._guests import everywhere
from numbanorm._masks import Mask, MaskArguments, weights_of
from numbanorm._reduction import statistics
from numbanorm.norms._checks import applied, channel_parameters, checked_input, normalized, other_axes

Array = NDArray[Any]


@everywhere
def z_score(
    x: Any,
    axis: Axis = 0,
    *,
    ddof: float = 0,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Subtract the mean over `axis` and divide by the standard deviation; equal numbers become 0.

    What scikit-learn's ``StandardScaler`` does to the columns of a table. Unlike
    :func:`standardize` there is no eps, and a constant column is centred, not divided by zero.

    Parameters
    ----------
    x : array_like
        Floating point, any shape.
    axis : int, tuple of int or None
        Axes that share one mean and variance; None means all.
    ddof : float
        Delta degrees of freedom of the variance.
    where, lengths, length_axis, padding
        As in :func:`standardize`.
    out : array, optional
        Where to put the result; x itself is allowed.

    Returns
    -------
    array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.z_score(np.array([[1.0, 7.0], [3.0, 7.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    array, backend = checked_input(x, out, where=where)
    norm_dtype(array.dtype)
    axes = canonicalize_axes(axis, array.ndim)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    count, mean, var = statistics(backend, array, axes, weights_of(mask, place_of(array)))

    def divisor(n: Array, v: Array) -> Array:
        unbiased = v * n / np.where(n > ddof, n - ddof, np.nan)
        return np.where(v == 0, 1, unbiased if ddof else v)

    var = place_of(array).evaluate(divisor, count, var)
    scale = checked_scale("z_score", 0.0)
    return applied(backend, array, mean, var, axes, ((), None, None), scale, mask, out)[0]


@everywhere
def min_max_scale(
    x: Any,
    axis: Axis = 0,
    *,
    feature_range: tuple[float, float] = (0.0, 1.0),
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Map the range of the numbers over `axis` onto `feature_range`; equal numbers become its lower end.

    ``y = (x - min) / (max - min) * (upper - lower) + lower``, as scikit-learn's ``MinMaxScaler``.

    Parameters
    ----------
    x : array_like
        Floating point, any shape; a NaN makes its whole set NaN.
    axis : int, tuple of int or None
        Axes that share one range; None means all.
    feature_range : (float, float)
        What the least and the largest number become.
    where, lengths, length_axis, padding
        As in :func:`standardize`.
    out : array, optional
        Where to put the result; x itself is allowed.

    Returns
    -------
    array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If the lower end is not below the upper one.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.min_max_scale(np.array([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]]))
    array([[0. , 0. ],
           [0.5, 0. ],
           [1. , 0. ]])
    """
    array, backend = checked_input(x, out, where=where)
    norm_dtype(array.dtype)
    lower, upper = map(float, feature_range)
    if not lower < upper:
        raise ValueError(f"feature_range must be (lower, upper) with lower < upper, but got {feature_range}")
    axes = canonicalize_axes(axis, array.ndim)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    place = place_of(array)
    if array.size == 0:
        y = _engine.normalize(backend, array, axes, ((), None, None), Scale(0.0), out=out)[0]
        return y
    least = _extreme(np.min, array, axes, mask)
    spread = place.evaluate(np.subtract, _extreme(np.max, array, axes, mask), least)
    gamma = place.evaluate(lambda s: (upper - lower) / np.where(s == 0, 1, s), spread)
    one, beta = (place.evaluate(lambda s, v=v: np.full_like(s, v), least) for v in (1.0, lower))
    kept = other_axes(array.ndim, *axes)
    return applied(backend, array, least, one, axes, (kept, gamma, beta), Scale(0.0), mask, out)[0]


def _extreme(function: Any, x: Array, axes: tuple[int, ...], mask: Mask | None) -> Array:
    """np.min or np.max of what takes part, in float64."""
    place = place_of(x)
    if mask is None:
        return place.evaluate(lambda a: function(a, axes).astype(np.float64), x)  # type: ignore[no-any-return]
    worst = x.dtype.type(np.inf if function is np.min else -np.inf)
    return place.evaluate(  # type: ignore[no-any-return]
        lambda a, m: function(np.where(m, a, worst), axes).astype(np.float64), x, mask.boolean_at(place)
    )


@everywhere
def l2_normalize(
    x: Any,
    axis: Axis = -1,
    *,
    eps: float = 1e-12,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Divide by the Euclidean norm over `axis`: ``y = x / sqrt(sum(x**2) + eps**2)``.

    An RMS norm but for a factor of ``sqrt(n)``. ``torch.nn.functional.normalize`` divides by
    ``max(norm, eps)`` instead, which differs for norms near eps only.

    Parameters
    ----------
    x : array_like
        Floating point, any shape.
    axis : int, tuple of int or None
        Axes that share one norm; None means all.
    eps : float
        Keeps zeros zero.
    where, lengths, length_axis, padding
        As in :func:`standardize`.
    out : array, optional
        Where to put the result; x itself is allowed.

    Returns
    -------
    array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If `eps` is negative.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    array, backend = checked_input(x, out, where=where)
    norm_dtype(array.dtype)
    axes = canonicalize_axes(axis, array.ndim)
    checked_scale("l2_normalize", eps)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    place = place_of(array)
    if mask is not None and array.size:
        count, mean, squares = statistics(backend, array, axes, mask.weights(place), use_mean=False)
        total = place.evaluate(np.multiply, count, squares)
        return applied(backend, array, mean, total, axes, ((), None, None), Scale(float(eps) ** 2), mask, out)[0]
    n = max(prod(array.shape[i] for i in axes), 1)
    gamma = place_of(array).constant(n**-0.5, compute_dtype(array.dtype)).reshape(())
    scale = Scale(float(eps) ** 2 / n, use_mean=False)
    y: Array = _engine.normalize(backend, array, axes, ((), gamma, None), scale, out=out)[0]
    return y


@everywhere
def weight_standardize(
    weight: Any,
    *,
    gamma: Any = None,
    eps: float = 1e-5,
    channel_axis: int = 0,
    where: Any = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Weight standardisation (Qiao et al. 2019): the weights of each output channel by themselves.

    ``(w - mean) / sqrt(var + eps) * gamma`` over all axes but that of the output channels. The
    gradient is :func:`standardize_backward` over the same axes.

    Parameters
    ----------
    weight : array_like
        Of a linear or convolution layer, floating point.
    gamma : array_like, optional
        (C,), a gain per output channel; Brock et al. (2021) take ``1 / sqrt(fan_in)``.
    eps : float
        Added to the variance. The authors' code adds it to the standard deviation.
    channel_axis : int
        Axis of the output channels: 0 in torch, -1 in Keras and flax.
    where : array_like of bool, optional
        Which weights take part, as those that are left of a pruned layer; broadcast to `weight`.
    padding : {"zero", "keep"}
        What becomes of the others: 0, or what `weight` holds there.
    out : array, optional
        Where to put the result; `weight` itself is allowed.

    Returns
    -------
    array
        With the weight's shape and dtype.

    Raises
    ------
    TypeError
        If `weight` is not floating point.
    ValueError
        If `eps` is negative, or gamma has another length.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.weight_standardize(np.array([[1.0, 3.0], [10.0, 50.0]])).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    array, backend = checked_input(weight, out, gamma=gamma, where=where)
    norm_dtype(array.dtype, "weight")
    axis = canonicalize_axis(channel_axis, array.ndim)
    parameters = channel_parameters(gamma, None, array.shape[axis], axis)
    scale = checked_scale("weight_standardize", eps)
    mask = MaskArguments(where, padding=padding).of(array)
    return normalized(backend, array, other_axes(array.ndim, axis), parameters, scale, mask, out, return_stats=False)
