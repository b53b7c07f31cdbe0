"""Checks and conversions that several norms share."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from numpy.typing import NDArray

from numbanorm import _engine, _engine_masked
from numbanorm._arguments import as_array, as_parameter, check_out
from numbanorm._axes import canonicalize_axis
from numbanorm._backend import backend_for
from numbanorm._dtypes import norm_dtype
from numbanorm._engine import Parameters, Scale
from numbanorm._errors import ShapeError, degenerate_instance, wrong_length, wrong_parameter_shape
from numbanorm._masks import Mask

Array = NDArray[Any]


def checked_input(x: Any, out: Any, **operands: Any) -> tuple[Array, Any]:
    """x as an array and the backend for all operands, after a look at whether `out` can take the result."""
    array = as_array(x)
    if out is None:
        return array, backend_for({"x": array, **operands})
    backend = backend_for({"x": array, "out": out, **operands})
    check_out(out, array.shape, norm_dtype(array.dtype))
    return array, backend


def delivered(result: tuple[Array, ...], return_stats: bool) -> Any:
    """What the caller asked for of a result."""
    return result if return_stats else result[0]


def normalized(
    backend: Any,
    x: Array,
    reduced: tuple[int, ...],
    parameters: Parameters,
    scale: Scale,
    mask: Mask | None,
    out: Any,
    return_stats: bool,
) -> Any:
    """y, or y, mean and rstd, of x with its own statistics."""
    want = "rstd" if return_stats else ""
    if mask is None:
        result = _engine.normalize(backend, x, reduced, parameters, scale, out=out, want=want)
    else:
        result = _engine_masked.normalize(backend, x, reduced, parameters, scale, mask, out=out, want=want)
    return delivered(result, return_stats)


def applied(
    backend: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduced: tuple[int, ...],
    parameters: Parameters,
    scale: Scale,
    mask: Mask | None,
    out: Any,
    want: str = "",
) -> tuple[Array, ...]:
    """y, or with ``want="rstd"`` y, mean and rstd, of x with given statistics of the kept axes' shape."""
    if mask is None:
        return _engine.apply(backend, x, mean, var, reduced, parameters, scale, out=out, want=want)
    return _engine_masked.apply(backend, x, mean, var, reduced, parameters, scale, mask, out=out, want=want)


def channel_parameters(gamma: Any, beta: Any, channels: int, axis: int) -> Parameters:
    """gamma and beta of length `channels` along `axis`."""
    gamma, beta = as_parameter("gamma", gamma), as_parameter("beta", beta)
    expected = (channels,)
    if gamma is not None and gamma.shape != expected:
        raise wrong_length("gamma", expected, gamma.shape)
    if beta is not None and beta.shape != expected:
        raise wrong_length("beta", expected, beta.shape)
    return (axis,), gamma, beta


@lru_cache(maxsize=4096)
def shape_over(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths of some axes."""
    return tuple(shape[axis] for axis in axes)


def axis_parameters(gamma: Any, beta: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Parameters:
    """gamma and beta with the shape of x over `axes`."""
    gamma, beta = as_parameter("gamma", gamma), as_parameter("beta", beta)
    if gamma is not None or beta is not None:
        expected = shape_over(shape, axes)
        if gamma is not None and gamma.shape != expected:
            raise wrong_parameter_shape("gamma", expected, gamma.shape)
        if beta is not None and beta.shape != expected:
            raise wrong_parameter_shape("beta", expected, beta.shape)
    return axes, gamma, beta


def channel_axis_of(x: Array, channel_axis: int) -> int:
    """`channel_axis`, non-negative, of an x with channels."""
    if x.ndim < 2:
        raise ShapeError(f"expected at least 2D input (got {x.ndim}D input)")
    return canonicalize_axis(channel_axis, x.ndim)


@lru_cache(maxsize=256)
def other_axes(ndim: int, *axes: int) -> tuple[int, ...]:
    """All axes but these."""
    return tuple(axis for axis in range(ndim) if axis not in axes)


def sample_axis_of(channel_axis: int) -> int:
    """The first axis that is not the channels'."""
    return 1 if channel_axis == 0 else 0


def spatial_axes(x: Array, channel_axis: int) -> tuple[int, ...]:
    """All axes but the samples' and the channels'; raises if they hold a single element."""
    axes = other_axes(x.ndim, channel_axis, sample_axis_of(channel_axis))
    if prod([x.shape[i] for i in axes]) == 1:
        raise degenerate_instance(x.shape)
    return axes
