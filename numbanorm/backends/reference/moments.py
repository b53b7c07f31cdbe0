"""Moments by the textbook's two passes, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


#: Weights as a launcher takes them: None, an array of x's shape, True for all that is not NaN, or int64
#: counts of the first elements of each line.
Weights = Array | bool | None


def are_counts(weights: Weights) -> bool:
    """Whether these are counts of lines and not weights of elements."""
    return isinstance(weights, np.ndarray) and weights.dtype == np.int64


def _moments(x: Array, weights: Weights, axis: int, count: Array, mean: Array, m2: Array) -> None:
    if weights is None:
        weights = np.ones(x.shape, bool)
    elif weights is True:
        weights = x == x
    elif are_counts(weights):
        weights = np.arange(x.shape[-1]) < np.reshape(weights, (*x.shape[:-1], 1))
    count[...], mean[...], m2[...] = weighted_moments(x, weights, axis)


def weighted_moments(x: Array, weights: Any, axes: int | tuple[int, ...]) -> Array:
    """Count, mean and m2, stacked, of x over `axes`: for arrays of any place, in float64.

    `weights` have x's shape: boolean, or real and not negative. What weighs nothing may hold anything.
    """
    w = weights.astype(np.float64)
    values = np.where(w > 0, x.astype(np.float64), 0.0)
    # An infinite element makes the mean infinite and m2 NaN, which is the right answer.
    with np.errstate(invalid="ignore", over="ignore"):
        count = w.sum(axes, keepdims=True)
        divisor = np.where(count > 0, count, 1.0)
        mean = (w * values).sum(axes, keepdims=True) / divisor
        deviations = np.where(w > 0, values - mean, 0.0)
        # The second term corrects the rounding of the mean (Bjorck 1983).
        correction = (w * deviations).sum(axes, keepdims=True)
        mean = mean + np.where(np.isfinite(correction), correction / divisor, 0.0)
        m2 = (w * deviations**2).sum(axes, keepdims=True) - correction**2 / divisor
    stacked: Array = np.stack([part.squeeze(axes) for part in (count, mean, np.maximum(m2, 0.0))])
    return stacked


def moments_rows(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of each row of x (n_rows, n_cols)."""
    _moments(x, weights, 1, count, mean, m2)


def moments_cols(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of x (n_outer, n_reduce, n_inner) over its middle axis."""
    _moments(x, weights, 1, count, mean, m2)


def combine_moments(count: Array, mean: Array, m2: Array, out_count: Array, out_mean: Array, out_m2: Array) -> None:
    """Merge parts (n_outer, n_reduce, n_inner) over the middle axis."""
    total = count.sum(1)
    divisor = np.where(total == 0, 1, total)
    with np.errstate(invalid="ignore", over="ignore"):
        centre = (count * mean).sum(1) / divisor
        out_m2[...] = m2.sum(1) + (count * (mean - centre[:, None]) ** 2).sum(1)
    out_count[...] = total
    out_mean[...] = centre


def finish_moments(
    count: Array,
    mean: Array,
    m2: Array,
    ddof: float,
    use_mean: bool,
    root: bool,
    out_mean: Array,
    out_var: Array,
) -> None:
    """Mean and ``m2 / (count - ddof)`` of moments, or its square root, in the outputs' dtypes."""
    with np.errstate(all="ignore"):
        if out_var.size:
            var = m2 / np.maximum(count - ddof, 0)
            if not use_mean:
                var += mean**2
            out_var[...] = np.sqrt(var) if root else var
        if out_mean.size:
            out_mean[...] = np.where(count > 0, mean * use_mean, np.nan)


def update_running(
    mean: Array, var: Array, unbias: float, momentum: float, running_mean: Array | None, running_var: Array | None
) -> None:
    """``running = (1 - momentum) * running + momentum * new`` in place; `unbias` multiplies the new variance."""
    with np.errstate(over="ignore"):  # a variance that float32 cannot hold is inf
        for running, new, factor in ((running_mean, mean, 1.0), (running_var, var, unbias)):
            if running is not None:
                running[...] = (1 - momentum) * running.astype(np.float64) + momentum * (
                    new.astype(np.float64) * factor
                )
