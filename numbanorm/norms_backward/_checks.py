"""Checks that the gradients share."""

from __future__ import annotations

from math import prod
from typing import Any

from numpy.typing import NDArray

from numbanorm._arguments import as_array
from numbanorm._dtypes import norm_dtype
from numbanorm._errors import ShapeError
from numbanorm.norms._checks import checked_input, other_axes

Array = NDArray[Any]
Axes = tuple[int, ...]


def checked_gradient(
    dy: Any, x: Any, out: Any, gamma: Any, mean: Any, rstd: Any, **operands: Any
) -> tuple[Array, Array, Any]:
    """dy and x as arrays of one shape, and the backend for all operands."""
    gradient = as_array(dy, "dy")
    norm_dtype(gradient.dtype, "dy")
    array, backend = checked_input(x, out, dy=gradient, gamma=gamma, mean=mean, rstd=rstd, **operands)
    norm_dtype(array.dtype)
    if gradient.shape != array.shape:
        raise ShapeError(f"dy should have x's shape {array.shape}, but has {gradient.shape}")
    return gradient, array, backend


def checked_statistic(name: str, value: Any, shape: Axes, reduced: Axes) -> Array:
    """mean or rstd with x's rank, or with the shape of x's kept axes."""
    statistic = as_array(value, name)
    norm_dtype(statistic.dtype, name)
    kept = tuple(shape[axis] for axis in other_axes(len(shape), *reduced))
    full = tuple(1 if axis in reduced else n for axis, n in enumerate(shape))
    if statistic.shape not in (full, kept):
        raise ShapeError(f"{name} should have shape {full} or {kept}, but has {statistic.shape}")
    return statistic


def count_of(shape: Axes, axes: Axes) -> int:
    """Elements over some axes."""
    return prod(shape[axis] for axis in axes)
