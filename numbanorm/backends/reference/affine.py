"""Applying given statistics as the formula is printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._recurrences import reciprocal_std

Array = NDArray[Any]


def write(y: Array, centred: Array, rstd: Array, gamma: Array, beta: Array) -> None:
    """Scale, shift and round what is centred already."""
    y[...] = (centred * rstd * gamma.astype(np.float64) + beta).astype(y.dtype)


def affine_rows(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta`` with 3-D operands that broadcast against x."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = reciprocal_std(var.astype(np.float64), eps, eps_on_std)
        write(y, x.astype(np.float64) - mean, rstd, gamma, beta)


def affine_cols(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta`` with 3-D operands that broadcast against x."""
    affine_rows(x, mean, var, eps, eps_on_std, gamma, beta, y)
