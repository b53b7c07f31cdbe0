"""Instance norms whose scale and shift come with the sample: adaptive and conditional instance norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arguments import as_array, as_parameter
from numbanorm._arrays import place_of
from numbanorm._dtypes import norm_dtype
from numbanorm._engine import Parameters, checked_scale
from numbanorm._errors import ShapeError
from numbanorm._guests import as_host, everywhere
from numbanorm._masks import MaskArguments
from numbanorm._recurrences import reciprocal_std
from numbanorm._reduction import statistics
from numbanorm.norms._checks import channel_axis_of, checked_input, normalized, sample_axis_of, spatial_axes

Array = NDArray[Any]


@everywhere
def adaptive_instance_norm(
    content: Any,
    style: Any,
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
    """Adaptive instance normalisation (Huang & Belongie 2017): content with the statistics of a style.

    ``y = (content - mean(content)) / std(content) * std(style) + mean(style)`` with
    ``std = sqrt(var + eps)``, per sample and channel, over the spatial axes. Also called `adain`.

    Parameters
    ----------
    content : array_like
        Floating point, (N, C, ...) with more than one spatial element.
    style : array_like
        Floating point, (N, C, ...) or (1, C, ...), which is one style for all samples. Its spatial
        axes may have other lengths than the content's, and its dtype may differ.
    eps : float
        Added to both variances.
    channel_axis : int
        Axis of the channels in both; the first of the others is that of the samples.
    where, lengths, length_axis, padding
        As in :func:`instance_norm`, of the content.
    out : array, optional
        Where to put the result; `content` itself is allowed.
    return_stats : bool
        Also return ``mean`` and ``rstd`` of the content, shaped to broadcast against it.

    Returns
    -------
    y : array
        With the content's shape and dtype.

    Raises
    ------
    TypeError
        If an operand is not floating point.
    ValueError
        If samples, channels or ranks differ, `eps` is negative, or there is one spatial element.

    Notes
    -----
    The variance is the biased one, as the article defines it; its Lua and torch code take the
    unbiased one, which differs by ``n / (n - 1)``.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> content, style = np.array([[[1.0, 3.0]]]), np.array([[[10.0, 14.0, 10.0, 14.0]]])
    >>> nn.adaptive_instance_norm(content, style, eps=0)
    array([[[10., 14.]]])
    """
    array, backend = checked_input(content, out, style=style, where=where)
    axis = channel_axis_of(array, channel_axis)
    scale = checked_scale("adaptive_instance_norm", eps)
    reduced = spatial_axes(array, axis)
    parameters = style_parameters(backend, checked_style(style, array, axis), array, axis, eps)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    return normalized(backend, array, reduced, parameters, scale, mask, out, return_stats)


adain = adaptive_instance_norm


def checked_style(style: Any, content: Array, axis: int) -> Array:
    """The style as an array whose samples and channels fit the content's."""
    array = as_array(style, "style")
    norm_dtype(array.dtype, "style")
    sample = sample_axis_of(axis)
    wanted = content.shape[sample], content.shape[axis]
    if array.ndim == content.ndim and (array.shape[sample], array.shape[axis]) in (wanted, (1, wanted[1])):
        spatial_axes(array, axis)
        return array
    raise ShapeError(
        f"style should have the content's rank, {wanted[0]} samples (or 1) along axis {sample} and {wanted[1]} "
        f"channels along axis {axis}, but has shape {array.shape} where content has {content.shape}"
    )


def style_parameters(backend: Any, style: Array, content: Array, axis: int, eps: float) -> Parameters:
    """Standard deviation and mean of a style as the content's parameters, for each sample and channel."""
    place = place_of(style)
    _, mean, var = statistics(backend, style, spatial_axes(style, axis))
    std = place.evaluate(lambda v: np.reciprocal(reciprocal_std(v, eps, False)), var)
    return per_sample(axis), *(place.dense(np.broadcast_to(p, content_sets(content, axis))) for p in (std, mean))


def per_sample(axis: int) -> tuple[int, int]:
    """The axes of parameters that each sample has of its own."""
    sample = sample_axis_of(axis)
    return min(sample, axis), max(sample, axis)


def content_sets(x: Array, axis: int) -> tuple[int, int]:
    """Lengths of these axes."""
    first, second = per_sample(axis)
    return x.shape[first], x.shape[second]


@everywhere
def conditional_instance_norm(
    x: Any,
    gammas: Any,
    betas: Any,
    labels: Any,
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
    """Conditional instance normalisation (Dumoulin et al. 2017): parameters by the label of the sample.

    ``y = (x - mean) / sqrt(var + eps) * gammas[label] + betas[label]`` with statistics over the
    spatial axes of each channel of each sample.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C, ...) with more than one spatial element.
    gammas, betas : array_like or None
        One row per style, (n_styles, C).
    labels : array_like
        (N,), integers from 0 to n_styles - 1. They are checked on the host: labels on a device are
        waited for.
    eps, channel_axis, where, lengths, length_axis, padding, out, return_stats
        As in :func:`instance_norm`.

    Returns
    -------
    y : array
        With x's shape and dtype.

    Raises
    ------
    TypeError
        If x is not floating point, or labels are not integers.
    ValueError
        If a label is negative or has no row (the message says where and which), a shape does not
        fit, `eps` is negative, or there is one spatial element.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x = np.array([[[1.0, 3.0]], [[1.0, 3.0]]])
    >>> nn.conditional_instance_norm(x, np.array([[1.0], [10.0]]), np.array([[0.0], [5.0]]), [0, 1], eps=0)
    array([[[-1.,  1.]],
    <BLANKLINE>
           [[-5., 15.]]])
    """
    array, backend = checked_input(x, out, gammas=gammas, betas=betas, where=where)
    axis = channel_axis_of(array, channel_axis)
    scale = checked_scale("conditional_instance_norm", eps)
    reduced = spatial_axes(array, axis)
    gammas, betas = (checked_table(n, t, array.shape[axis]) for n, t in (("gammas", gammas), ("betas", betas)))
    if gammas is not None and betas is not None and len(gammas) != len(betas):
        raise ShapeError(f"gammas and betas should have as many rows, but have {len(gammas)} and {len(betas)}")
    n_styles = max((len(t) for t in (gammas, betas) if t is not None), default=None)
    labels = checked_labels(labels, array.shape[sample_axis_of(axis)], n_styles)
    parameters = per_sample(axis), rows_of(gammas, labels, axis), rows_of(betas, labels, axis)
    mask = MaskArguments(where, lengths, length_axis, padding).of(array, axis)
    return normalized(backend, array, reduced, parameters, scale, mask, out, return_stats)


def checked_table(name: str, table: Any, channels: int) -> Array | None:
    """A table of parameters with a row per style."""
    array = as_parameter(name, table)
    if array is not None and (array.ndim != 2 or array.shape[1] != channels):
        raise ShapeError(f"{name} should have shape (n_styles, {channels}), but has {array.shape}")
    return array


def checked_labels(labels: Any, n_samples: int, n_styles: int | None) -> Array:
    """Labels on the host, each of which has a row."""
    array: Array = as_host(labels)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"labels must be integers, but have dtype {array.dtype}")
    if array.shape != (n_samples,):
        raise ShapeError(f"labels should have shape ({n_samples},), one for each sample, but have {array.shape}")
    if n_styles is not None:
        bad = np.flatnonzero((array < 0) | (array >= n_styles))
        if bad.size:
            raise ValueError(f"labels[{bad[0]}] is {array[bad[0]]}, but should lie in [0, {n_styles}), one row a style")
    return array.astype(np.int64)


def rows_of(table: Array | None, labels: Array, axis: int) -> Array | None:
    """The row of each sample, in the order of x's axes."""
    if table is None:
        return None
    place = place_of(table)
    rows: Array = place.evaluate(lambda t, i: t[i], table, place.from_host(labels))
    return rows if axis else rows.T
