"""Checks and conversions that several norms share."""

from __future__ import annotations

from math import prod
from typing import Any

from numpy.typing import NDArray

from numbanorm._arguments import as_array, as_parameter, check_out
from numbanorm._axes import canonicalize_axis
from numbanorm._backend import backend_for
from numbanorm._dtypes import norm_dtype
from numbanorm._engine import Normalized, Parameters
from numbanorm._errors import ShapeError, degenerate_instance, wrong_length, wrong_parameter_shape

Array = NDArray[Any]


def checked_input(x: Any, out: Any, **operands: Any) -> tuple[Array, Any]:
    """x as an array and the backend for all operands, after a look at whether `out` can take the result."""
    array = as_array(x)
    backend = backend_for({"x": array, "out": out, **operands})
    dtype = norm_dtype(array.dtype)
    if out is not None:
        check_out(out, array.shape, dtype)
    return array, backend


def delivered(result: Normalized, return_stats: bool) -> Any:
    """What the caller asked for of a result."""
    return (result.y, result.mean, result.rstd) if return_stats else result.y


def channel_parameters(gamma: Any, beta: Any, channels: int, axis: int) -> Parameters:
    """gamma and beta of length `channels` along `axis`."""
    gamma, beta = as_parameter("gamma", gamma), as_parameter("beta", beta)
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter is not None and parameter.shape != (channels,):
            raise wrong_length(name, (channels,), parameter.shape)
    return Parameters((axis,), gamma, beta)


def axis_parameters(gamma: Any, beta: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Parameters:
    """gamma and beta with the shape of x over `axes`."""
    gamma, beta = as_parameter("gamma", gamma), as_parameter("beta", beta)
    expected = tuple(shape[axis] for axis in axes)
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter is not None and parameter.shape != expected:
            raise wrong_parameter_shape(name, expected, parameter.shape)
    return Parameters(axes, gamma, beta)


def channel_axis_of(x: Array, channel_axis: int) -> int:
    """`channel_axis`, non-negative, of an x with channels."""
    if x.ndim < 2:
        raise ShapeError(f"expected at least 2D input (got {x.ndim}D input)")
    return canonicalize_axis(channel_axis, x.ndim)


def sample_axis_of(channel_axis: int) -> int:
    """The first axis that is not the channels'."""
    return 1 if channel_axis == 0 else 0


def spatial_axes(x: Array, channel_axis: int) -> tuple[int, ...]:
    """All axes but the samples' and the channels'; raises if they hold a single element."""
    axes = tuple(i for i in range(x.ndim) if i not in (channel_axis, sample_axis_of(channel_axis)))
    if prod(x.shape[i] for i in axes) == 1:
        raise degenerate_instance(x.shape)
    return axes
