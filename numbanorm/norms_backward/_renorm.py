"""Gradient of batch renormalisation."""

from __future__ import annotations

from typing import Any

from numbanorm._arrays import place_of
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale
from numbanorm._engine_backward import Gradients, Sets, normalize_backward
from numbanorm._errors import degenerate_batch
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.norms._checks import channel_axis_of, channel_parameters, other_axes
from numbanorm.norms._renorm import scaled
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic, count_of


@everywhere
def batch_renorm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    r: Any,
    d: Any,
    *,
    training: bool,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.batch_renorm`, in which r and d are constants.

    With ``xhat = (x - mean) * rstd``, and sums and means over all axes but the channels'::

        dx = gamma * r * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))    in training
        dx = gamma * rstd * dy                                              in evaluation
        dgamma = sum(dy * (xhat * r + d)), dbeta = sum(dy)

    Parameters
    ----------
    dy, x, gamma : array_like
        As in :func:`batch_norm_backward`.
    mean, rstd, r, d : array_like
        What the forward returned with ``return_stats=True``, or (C,).
    training, channel_axis, where, lengths, length_axis, padding, out
        As in :func:`batch_norm_backward`.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgamma, dbeta : array or None
        (C,); None without gamma.

    Raises
    ------
    TypeError
        If dy, x or a statistic is not floating point.
    ValueError
        If there is one value per channel in training, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gamma = np.array([[1.0], [2.0], [4.0]]), np.ones(1)
    >>> running = np.zeros(1), np.ones(1)
    >>> y, *saved = nn.batch_renorm(x, gamma, None, *running, training=True, r_max=1, d_max=1, return_stats=True)
    >>> dy = np.array([[1.0], [0.0], [0.0]])
    >>> dx, dgamma, dbeta = nn.batch_renorm_backward(dy, x, gamma, *saved, training=True)
    >>> dx.round(3).ravel(), dgamma.round(3), dbeta
    (array([ 0.229, -0.344,  0.115]), array([-0.069]), array([1.]))
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    features, gamma, _ = channel_parameters(gamma, None, array.shape[axis], axis)
    reduced = other_axes(array.ndim, axis)
    if training and count_of(array.shape, reduced) == 1:
        raise degenerate_batch(array.shape)
    given = (("mean", mean), ("rstd", rstd), ("r", r), ("d", d))
    mean, rstd, r, d = (checked_statistic(n, s, array.shape, reduced) for n, s in given)
    r, d = r.reshape(-1), d.reshape(-1)
    place, has = place_of(array), gamma is not None
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    sets = Sets(reduced, features, fixed=not training, dgamma=has, dbeta=has, channels=True, mask=mask)
    operands = backend, gradient, array, scaled(place, gamma, r), mean, rstd, sets, Scale(0.0)
    dx, dgamma, dbeta = normalize_backward(*operands, out)
    if has:
        dtype = compute_dtype(array.dtype)
        dgamma = place.evaluate(lambda g, b, r, d: (g * r + b * d).astype(dtype), dgamma, dbeta, r, d)
    return dx, dgamma, dbeta
