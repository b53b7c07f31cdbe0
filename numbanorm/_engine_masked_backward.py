"""Gradients by their formula, where there is no launcher: of weighted norms, and of masked ones on a device.

For any layout, in float64: several times the memory of x while it runs, and on a device a launch for each operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._dtypes import compute_dtype
from numbanorm._engine import Scale
from numbanorm._masks import Mask
from numbanorm.backends.reference.masked_backward import masked_gradient

Array = NDArray[Any]
Axes = tuple[int, ...]


def by_formula(
    place: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    axes: tuple[Axes, Axes],
    fixed: bool,
    scale: Scale,
    mask: Mask | None,
    weights: Array | None = None,
) -> tuple[Array, Array, Array]:
    """dx, dgamma and dbeta, for `axes` of the statistics and of the parameters; statistics have x's rank."""
    reduced, features = axes
    dtype, varying = compute_dtype(x.dtype), tuple(n if i in features else 1 for i, n in enumerate(x.shape))
    std_eps = scale.eps if scale.eps_on_std else 0.0
    factor = place.constant(1, np.dtype(np.float64)) if gamma is None else gamma.reshape(varying)
    every = place.constant(True, np.dtype(bool)) if mask is None else mask.boolean_at(place)

    def stacked(dy: Array, x: Array, taken: Array, factor: Array, mean: Array, rstd: Array, *weight: Array) -> Array:
        options = reduced, std_eps, scale.ddof, scale.use_mean, fixed
        dx, products, terms = masked_gradient(dy, x, taken, factor, mean, rstd, *options, *weight)
        dx = np.where(taken, dx, dy if mask is not None and mask.keep else 0.0)
        return np.stack([dx, products, terms])

    given = () if weights is None else (np.broadcast_to(weights, x.shape),)
    data = place.evaluate(stacked, dy, x, every, factor, mean, rstd, *given)
    others = tuple(axis for axis in range(x.ndim) if axis not in features)
    dgamma, dbeta = (place.evaluate(lambda a: a.sum(others).astype(dtype), data[k]) for k in (1, 2))
    return place.evaluate(lambda a: a.astype(x.dtype), data[0]), dgamma, dbeta
