"""Statistics that a norm changes before it applies them: mean and biased variance in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import place_of
from numbanorm._masks import Mask
from numbanorm._reduction import moments
from numbanorm.norms._checks import other_axes

Array = NDArray[Any]


def finished(backend: Any, data: Array) -> tuple[Array, Array]:
    """Mean and biased variance of moments (3, ...), in the shape of each."""
    place = place_of(data)
    shape = data.shape[1:]
    flat = data.reshape(3, -1)
    mean, var = (place.empty(flat.shape[1], np.dtype(np.float64)) for _ in range(2))
    if flat.shape[1]:
        backend.finish_moments(flat[0], flat[1], flat[2], 0, True, False, mean, var)
    return mean.reshape(shape), var.reshape(shape)


def mean_and_var(
    backend: Any, x: Array, reduced: tuple[int, ...], mask: Mask | None = None
) -> tuple[Array, Array, Array]:
    """Count, mean and biased variance of x over some axes, in the shape of the others; zeros of an empty x."""
    if x.size == 0:
        kept = tuple(x.shape[axis] for axis in other_axes(x.ndim, *reduced))
        return place_of(x).zeros(kept), place_of(x).zeros(kept), place_of(x).zeros(kept)
    data = moments(x, reduced, None if mask is None else mask.weights(place_of(x)), backend)
    return data[0, ...], *finished(backend, data)
