"""Gradients of normalisation from its output, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.reference.normalize_backward import through_statistics

Array = NDArray[Any]


def norm_rows_backward_from_output(
    dy: Array,
    y: Array,
    gamma: Array,
    beta: Array,
    rstd: Array,
    std_eps: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_rows` from y (n_rows, n_cols) instead of x; gamma without zeros."""
    scale = rstd.astype(np.float64)[:, None]
    gradient, xhat = dy.astype(np.float64), (y.astype(np.float64) - beta) / gamma
    if dx.size:
        dx[...] = through_statistics(gradient * gamma, xhat, scale, (1,), std_eps, 0, use_mean).astype(dx.dtype)
    if dgamma.size:
        dgamma[...] = (gradient * xhat).sum(0)
    if dbeta.size:
        dbeta[...] = gradient.sum(0)
