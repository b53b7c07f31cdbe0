"""Gradients of adaptive and conditional instance norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import place_of
from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale, checked_scale
from numbanorm._engine_backward import Gradients, Sets, normalize_backward
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm._recurrences import reciprocal_std
from numbanorm._reduction import statistics
from numbanorm.norms._adaptive import (
    checked_labels,
    checked_style,
    checked_table,
    content_sets,
    per_sample,
    rows_of,
)
from numbanorm.norms._checks import channel_axis_of, sample_axis_of, spatial_axes
from numbanorm.norms_backward._checks import checked_gradient, checked_statistic, count_of

Array = NDArray[Any]


@everywhere
def adaptive_instance_norm_backward(
    dy: Any,
    content: Any,
    style: Any,
    mean: Any,
    rstd: Any,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> tuple[Array, Array]:
    """Gradients of :func:`numbanorm.adaptive_instance_norm` with respect to content and style.

    With ``xhat = (content - mean) * rstd``, n elements in an instance of the style, and sums
    over the spatial axes::

        dcontent = std(style) * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))
        dstyle = sum(dy) / n + (style - mean(style)) / std(style) * sum(dy * xhat) / n

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, the content's shape, taken in its dtype.
    content, style : array_like
        As in the forward.
    mean, rstd : array_like
        Of the content, as the forward returned them with ``return_stats=True``.
    eps, channel_axis, where, lengths, length_axis, padding
        As in the forward.
    out : array, optional
        Where to put dcontent; dy or content itself are allowed.

    Returns
    -------
    dcontent, dstyle : array
        With shape, dtype and layout of content and style; one style for all samples has the sum
        of their gradients.

    Raises
    ------
    TypeError
        If an operand is not floating point.
    ValueError
        If a shape does not fit, or there is one spatial element.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> content, style = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[10.0, 14.0]]])
    >>> y, mean, rstd = nn.adaptive_instance_norm(content, style, return_stats=True)
    >>> dy = np.array([[[1.0, 0.0, 0.0]]])
    >>> dcontent, dstyle = nn.adaptive_instance_norm_backward(dy, content, style, mean, rstd)
    >>> dcontent.round(3), dstyle.round(3)
    (array([[[ 0.458, -0.687,  0.229]]]), array([[[ 1.035, -0.035]]]))
    """
    gradient, array, backend = checked_gradient(dy, content, out, style, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    checked_scale("adaptive_instance_norm", eps)
    given = checked_style(style, array, axis)
    reduced = spatial_axes(array, axis)
    mean, rstd = (checked_statistic(n, s, array.shape, reduced) for n, s in (("mean", mean), ("rstd", rstd)))
    place = place_of(given)
    _, style_mean, style_var = statistics(backend, given, spatial_axes(given, axis))
    std = place.evaluate(lambda v: np.reciprocal(reciprocal_std(v, eps, False)), style_var)
    gamma = place.dense(np.broadcast_to(std, content_sets(array, axis)))
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    sets = Sets(reduced, per_sample(axis), mask=mask)
    # Neither may be written over before the style has been read.
    shared = out is not None and place.overlap(out, given)
    operands = backend, gradient, array, gamma, mean, rstd, sets, Scale(0.0)
    dcontent, dgamma, dbeta = normalize_backward(*operands, None if shared else out)
    n = count_of(given.shape, spatial_axes(given, axis))
    sample = per_sample(axis).index(sample_axis_of(axis))

    def share(g: Array) -> Array:
        return (g.sum(sample, keepdims=True) if g.shape != style_mean.shape else g) / max(n, 1)

    slopes = per_sample(axis), *(place.evaluate(share, g) for g in (dgamma, dbeta))
    dstyle = _engine.apply(backend, given, style_mean, style_var, spatial_axes(given, axis), slopes, Scale(float(eps)))[
        0
    ]
    if shared:
        place.copy(out, dcontent)
        dcontent = out
    return dcontent, dstyle


@everywhere
def conditional_instance_norm_backward(
    dy: Any,
    x: Any,
    gammas: Any,
    labels: Any,
    mean: Any,
    rstd: Any,
    *,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Gradients:
    """Gradient of :func:`numbanorm.conditional_instance_norm`.

    That of :func:`instance_norm_backward` with each sample's own gamma; a style's dgamma and
    dbeta are summed over the samples that have its label, in float64 and on the host.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to y; floating point, x's shape, taken in x's dtype.
    x : array_like
        What the forward normalised.
    gammas : array_like
        (n_styles, C), as in the forward.
    labels : array_like
        (N,), as in the forward.
    mean, rstd : array_like
        What the forward returned with ``return_stats=True``.
    channel_axis, out
        As in :func:`instance_norm_backward`.

    Returns
    -------
    dx : array
        With x's shape, dtype and layout.
    dgammas, dbetas : array
        (n_styles, C); zero for styles that no sample has.

    Raises
    ------
    TypeError, ValueError
        As the forward.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x, gammas, labels = np.array([[[1.0, 2.0, 4.0]]]), np.ones((2, 1)), [1]
    >>> y, mean, rstd = nn.conditional_instance_norm(x, gammas, None, labels, return_stats=True)
    >>> dy = np.array([[[1.0, 0.0, 0.0]]])
    >>> dx, dgammas, dbetas = nn.conditional_instance_norm_backward(dy, x, gammas, labels, mean, rstd)
    >>> dx.round(3), dgammas.round(3).ravel(), dbetas.ravel()
    (array([[[ 0.229, -0.344,  0.115]]]), array([ 0.   , -1.069]), array([0., 1.]))
    """
    gradient, array, backend = checked_gradient(dy, x, out, gammas, mean, rstd, where=where)
    axis = channel_axis_of(array, channel_axis)
    reduced = spatial_axes(array, axis)
    table = checked_table("gammas", gammas, array.shape[axis])
    if table is None:
        raise TypeError("gammas must be the table of the forward, but is None; without it take instance_norm_backward")
    labels = checked_labels(labels, array.shape[sample_axis_of(axis)], len(table))
    mean, rstd = (checked_statistic(n, s, array.shape, reduced) for n, s in (("mean", mean), ("rstd", rstd)))
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    sets = Sets(reduced, per_sample(axis), mask=mask)
    gamma = rows_of(table, labels, axis)
    dx, *rest = normalize_backward(backend, gradient, array, gamma, mean, rstd, sets, Scale(0.0), out)
    dtype = compute_dtype(array.dtype)
    dgammas, dbetas = (_by_style(g, labels, table.shape, axis, dtype) for g in rest)
    return dx, dgammas, dbetas


def _by_style(gradient: Any, labels: Array, shape: tuple[int, ...], axis: int, dtype: np.dtype[Any]) -> Array:
    """Gradients of samples (N, C), or (C, N) where channels come first, summed by label."""
    place = place_of(gradient)
    rows = place.to_host(gradient)
    total = np.zeros(shape)
    np.add.at(total, labels, (rows if axis else rows.T).astype(np.float64))
    summed: Array = place.from_host(total.astype(dtype))
    return summed
