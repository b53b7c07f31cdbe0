"""The general operation: standardise over some axes, scale and shift by what broadcasts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arguments import as_parameter
from numbanorm._arrays import place_of
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._engine import Parameters, Scale, checked_scale
from numbanorm._errors import ShapeError
from numbanorm._guests import everywhere
from numbanorm._masks import Mask, MaskArguments
from numbanorm._reduction import statistics
from numbanorm._selection import Selection
from numbanorm.norms._checks import applied, checked_input, normalized

Array = NDArray[Any]


@everywhere
def standardize(
    x: Any,
    axis: Axis = None,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    eps_on: str = "var",
    ddof: float = 0,
    where: Any = None,
    weights: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Subtract the mean over `axis` and divide by the standard deviation (z-score).

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, the general operation of which
    the norms are special cases.

    Parameters
    ----------
    x : array_like
        Floating point, any shape.
    axis : int, tuple of int or None
        Axes that share one mean and variance; None means all.
    gamma, beta : array_like, optional
        Anything that broadcasts against x.
    eps : float
        Added to the variance; 0 gives the exact z-score (NaN or inf where all numbers are equal).
    eps_on : {"var", "std"}
        "std" divides by ``std + eps`` instead.
    ddof : float
        Delta degrees of freedom of the variance.
    where : array_like of bool, optional
        Which elements take part, broadcast to x. The others count in no statistic, whatever they hold.
    weights : array_like, optional
        How much each element counts in mean and variance: real, not negative, broadcast to x. As of
        frequencies, `ddof` is taken from their sum (West 1979). y is written for all elements alike.
    lengths : array_like of int, optional
        (N,), of padded samples: how many of the first elements along `length_axis` take part.
    length_axis : int, optional
        By default the first axis that is neither the samples' nor the channels'.
    padding : {"zero", "keep"}
        What becomes of elements that take no part: 0, or what x holds there.
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
        If `eps` is negative, a shape does not fit, or weights are negative or all zero in a set.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.standardize(np.array([1.0, 2.0, 3.0]), eps=0).round(4)
    array([-1.2247,  0.    ,  1.2247])
    """
    array, backend = checked_input(x, out, gamma=gamma, beta=beta, where=where, weights=weights)
    scale = checked_scale("standardize", eps, eps_on, ddof=ddof)
    axes = canonicalize_axes(axis, array.ndim)
    parameters = _broadcast_parameters(gamma, beta, array.shape)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array)
    if weights is not None and array.size == 0:
        Selection(None, weights).resolved(array)  # which are looked at all the same
    if weights is None or array.size == 0:
        return normalized(backend, array, axes, parameters, scale, mask, out, False)
    mean, var = weighted_statistics(backend, array, axes, scale, mask, weights)[:2]
    return applied(backend, array, mean, var, axes, parameters, scale, mask, out)[0]


def weighted_statistics(
    backend: Any, x: Array, axes: tuple[int, ...], scale: Scale, mask: Mask | None, weights: Any
) -> tuple[Array, Array, Array]:
    """Mean and variance in float64, of the kept axes' shape, and the weights themselves."""
    place = place_of(x)
    selection = Selection(None if mask is None else mask.boolean_at(place), weights)
    taken: Any = selection.resolved(x)
    count, mean, var = statistics(backend, x, axes, taken, scale.ddof)
    selection.check(x, axes, count, mean)
    return mean, var, taken


def _broadcast_parameters(gamma: Any, beta: Any, shape: tuple[int, ...]) -> Parameters:
    """Parameters of any shape that broadcasts to `shape`, over the axes along which one varies."""
    gamma, beta = as_parameter("gamma", gamma), as_parameter("beta", beta)
    given = [p for p in (gamma, beta) if p is not None]
    if not given:
        return (), None, None
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        try:
            fits = parameter is None or np.broadcast_shapes(parameter.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"{name} with shape {np.shape(parameter)} does not broadcast to x with shape {shape}")
    varying = np.broadcast_shapes(*(p.shape for p in given))
    padded = (1,) * (len(shape) - len(varying)) + varying
    features = tuple(axis for axis, n in enumerate(padded) if n != 1)
    compact = tuple(padded[axis] for axis in features)

    def spread(parameter: Array | None) -> Array | None:
        return None if parameter is None else np.broadcast_to(parameter, varying).reshape(compact)

    return features, spread(gamma), spread(beta)
