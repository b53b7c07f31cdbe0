"""Gradient of batch norm."""

from __future__ import annotations

from typing import Any

from numbanorm._engine import Scale
from numbanorm._engine_backward import Gradients, Sets, normalize_backward
from numbanorm._errors import degenerate_batch
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.norms._checks import channel_axis_of, channel_parameters, other_axes
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic, count_of


@everywhere
def batch_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any,
    mean: Any,
    rstd: Any,
    *,
    training: bool,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.batch_norm`.

    With ``xhat = (x - mean) * rstd``, and sums and means over all axes but the channels'::

        dx = gamma * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))    in training
        dx = gamma * rstd * dy                                          in evaluation
        dgamma = sum(dy * xhat), dbeta = sum(dy)

    (Ioffe & Szegedy 2015, section 3.) In training the statistics depend on x; in evaluation they
    are the running ones, and constant.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    gamma : array_like or None
        (C,), as in the forward.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``, or (C,): the batch's in training,
        the running ones in evaluation. `rstd` is ``1 / sqrt(var + eps)``, not the variance.
    training : bool
        As in the forward.
    channel_axis : int
        As in the forward.
    where, lengths, length_axis, padding
        As in the forward. What took no part has no gradient: dx is 0 there, or with ``padding="keep"`` dy.
    out : array, optional
        Where to put dx; dy or x itself are allowed.

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
    >>> y, mean, rstd = nn.batch_norm(x, gamma, training=True, return_stats=True)
    >>> dy = np.array([[1.0], [0.0], [0.0]])
    >>> dx, dgamma, dbeta = nn.batch_norm_backward(dy, x, gamma, mean, rstd, training=True)
    >>> dx.round(3).ravel(), dgamma.round(3), dbeta
    (array([ 0.229, -0.344,  0.115]), array([-1.069]), array([1.]))
    """
    gradient, array, backend = checked_gradient(dy, x, out, gamma, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    features, gamma, _ = channel_parameters(gamma, None, array.shape[axis], axis)
    reduced = other_axes(array.ndim, axis)
    if training and count_of(array.shape, reduced) == 1:
        raise degenerate_batch(array.shape)
    mean, rstd = (checked_statistic(n, s, array.shape, reduced) for n, s in (("mean", mean), ("rstd", rstd)))
    has = gamma is not None
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    sets = Sets(reduced, features, fixed=not training, dgamma=has, dbeta=has, channels=True, mask=mask)
    return normalize_backward(backend, gradient, array, gamma, mean, rstd, sets, Scale(0.0), out)
