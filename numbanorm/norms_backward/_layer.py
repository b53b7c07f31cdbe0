"""Gradients of layer and RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale, apply, checked_scale
from numbanorm._engine_backward import Gradients, Sets, normalize_backward
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.norms._checks import axis_parameters
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic

Array = NDArray[Any]


@everywhere
def layer_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    axis: Axis = -1,
    eps: float = 1e-5,
    eps_on: str = "var",
    beta: Any = None,
    recompute: bool = False,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.layer_norm`.

    With ``xhat = (x - mean) * rstd`` and ``g = dy * gamma``::

        dx = rstd * (g - mean(g) - xhat * mean(g * xhat))    over axis
        dgamma = sum(dy * xhat), dbeta = sum(dy)             over all other axes

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    gamma : array_like or None
        As in the forward.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``; or with the shape of x over the
        axes that are not in `axis`.
    axis : int, tuple of int or None
        As in the forward.
    eps, eps_on
        As in the forward; `eps` matters with ``eps_on="std"`` only, where the last term of dx is
        divided by ``std * rstd``. For a row of equal numbers, where that is 0 / 0, the term is zero.
    beta : array_like, optional
        As in the forward; needed for `recompute` only.
    recompute : bool
        Whether `x` is the *y* of the forward, from which ``xhat = (y - beta) / gamma`` is recovered: then
        x need not be kept, nor mean, which may be None. xhat is as good as the rounding of y leaves
        it: digits are lost where gamma is small beside beta, and in 16 bits. On a device it takes
        memory of x's size while it runs, and waits once, for a look at gamma.
    where, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        With the shape of x over `axis`; None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If a shape does not fit, or under `recompute` gamma has a zero.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([[1.0, 2.0, 4.0]]), np.ones(3)
    >>> y, mean, rstd = nn.layer_norm(x, gamma, return_stats=True)
    >>> dx, dgamma, dbeta = nn.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), x, gamma, mean, rstd)
    >>> dx.round(3)
    array([[ 0.229, -0.344,  0.115]])
    >>> dgamma.round(3), dbeta
    (array([-1.069,  0.   ,  0.   ]), array([1., 0., 0.]))

    From y, which is needed anyway as the next operation's x:

    >>> nn.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), y, gamma, None, rstd, recompute=True)[0].round(3)
    array([[ 0.229, -0.344,  0.115]])
    """
    scale = checked_scale("layer_norm", eps, eps_on)
    chosen = MaskArguments(where, lengths, length_axis, padding)
    return _backward(dy, x, gamma, beta, mean, rstd, axis, scale, recompute, chosen, out)


@everywhere
def rms_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    axis: Axis = -1,
    recompute: bool = False,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.rms_norm`.

    With ``xhat = x * rstd`` and ``g = dy * gamma``::

        dx = rstd * (g - xhat * mean(g * xhat)),  dgamma = sum(dy * xhat)

    Parameters and errors are those of :func:`layer_norm_backward`; `mean`, which the forward
    returns as zeros, is not looked at and may be None.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma : array or None
        With the shape of x over `axis`; None without gamma.
    dbeta : None
        So that gradients of all norms unpack alike.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([3.0, 4.0]), np.ones(2)
    >>> y, mean, rstd = nn.rms_norm(x, gamma, return_stats=True)
    >>> dx, dgamma, _ = nn.rms_norm_backward(np.array([1.0, 0.0]), x, gamma, mean, rstd)
    >>> dx.round(4), dgamma.round(4)
    (array([ 0.181 , -0.1358]), array([0.8485, 0.    ]))
    """
    chosen = MaskArguments(where, lengths, length_axis, padding)
    scale = Scale(0.0, use_mean=False)
    return _backward(dy, x, gamma, None, None, rstd, axis, scale, recompute, chosen, out)


def _backward(
    dy: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    rstd: Any,
    axis: Axis,
    scale: Scale,
    recompute: bool,
    chosen: MaskArguments,
    out: Any,
) -> Gradients:
    """A norm whose parameters vary over the axes of its statistics."""
    beta = beta if recompute else None
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, beta=beta, where=chosen.where)
    axes = canonicalize_axes(axis, array.ndim)
    features, gamma, beta = axis_parameters(gamma, beta, array.shape, axes)
    rstd = checked_statistic("rstd", rstd, array.shape, axes)
    mask = chosen.of(array)
    if recompute and mask is not None:
        raise ValueError("recompute from y does not know where or lengths; keep x and call without recompute")
    if recompute:
        _check_recoverable(gamma)
    if recompute and backend.name == "cuda":
        array = _centred_input(backend, array, gamma, beta, rstd, axes)
        mean, beta, recompute = _arrays.place_of(array).zeros(rstd.shape, rstd.dtype), None, False
    elif scale.use_mean and not recompute:
        mean = checked_statistic("mean", mean, array.shape, axes)
    else:  # a mean that is not looked at may be anything; zeros would be one more launch on a device
        mean = rstd
    has = gamma is not None
    varies = has or beta is not None
    features, dbeta = features if varies else (), has and scale.use_mean
    sets = Sets(axes, features, dgamma=has, dbeta=dbeta, from_output=recompute, mask=mask)
    return normalize_backward(backend, gradient, array, gamma, mean, rstd, sets, scale, out, beta=beta)


def _check_recoverable(gamma: Array | None) -> None:
    """Raise if xhat cannot be found from y."""
    if gamma is None:
        return
    zeros = gamma.size - np.count_nonzero(_arrays.place_of(gamma).to_host(gamma))
    if zeros:
        raise ValueError(
            f"recompute divides by gamma, but gamma is zero in {zeros} of {gamma.size} places; "
            f"keep x and call without recompute"
        )


def _centred_input(
    backend: Any, y: Array, gamma: Array | None, beta: Array | None, rstd: Array, axes: tuple[int, ...]
) -> Array:
    """x - mean from y, by two launches: a device has no kernel that reads y instead."""
    place = _arrays.place_of(y)
    xhat = y
    if gamma is not None or beta is not None:
        shape = tuple(y.shape[axis] for axis in axes)
        gamma = place.constant(1, compute_dtype(y.dtype)).reshape((1,) * len(axes)) if gamma is None else gamma
        beta = place.zeros(shape, np.float64) if beta is None else beta
        squared = place.evaluate(lambda g: np.broadcast_to(g.astype(np.float64) ** 2, shape), gamma)
        sign = place.evaluate(lambda g: np.broadcast_to(np.sign(g), shape), gamma)
        others = tuple(axis for axis in range(y.ndim) if axis not in axes)
        (xhat,) = apply(backend, y, beta, squared, others, (axes, sign, None), Scale(0.0))
    squared = place.evaluate(lambda r: r.astype(np.float64) ** 2, rstd)
    out = None if xhat is y else xhat
    (centred,) = apply(backend, xhat, place.zeros(rstd.shape), squared, axes, ((), None, None), Scale(0.0), out=out)
    return centred
