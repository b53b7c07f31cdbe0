"""Mean and variance in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.reference.moments import finish_moments, moments_cols, moments_rows

Array = NDArray[Any]


def mean_var_rows(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of each row of x (n_rows, n_cols)."""
    count, mu, m2 = np.empty((3, len(x)))
    moments_rows(x, None, count, mu, m2)
    finish_moments(count, mu, m2, ddof, True, root, mean, var)


def mean_var_cols(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n_outer, n_reduce, n_inner) over its middle axis."""
    count, mu, m2 = np.empty((3, x.shape[0], x.shape[2]))
    moments_cols(x, None, count, mu, m2)
    finish_moments(count, mu, m2, ddof, True, root, mean, var)


def mean_var_channels(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n, n_channels, n_inner) over its first and last axis."""
    mean_var_rows(x.swapaxes(0, 1).reshape(x.shape[1], -1), ddof, root, mean, var)
