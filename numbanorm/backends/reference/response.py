"""Local response norm as the formula is printed, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _window_sums(values: Array, before: int, after: int) -> Array:
    """Sums over the channels from c - before to c + after of (n_outer, n_channels, n_inner)."""
    padded = np.pad(values, ((0, 0), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1)
    return np.asarray(windows.sum(-1))


def local_response(x: Array, before: int, after: int, alpha: float, beta: float, k: float, y: Array) -> None:
    """``x / (k + alpha * sum of squares over a window of channels) ** beta``."""
    values = x.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = k + alpha * _window_sums(values**2, before, after)
        y[...] = (values * scale**-beta).astype(y.dtype)


def local_response_backward(
    dy: Array, x: Array, before: int, after: int, alpha: float, beta: float, k: float, dx: Array
) -> None:
    """``dx = dy * s**-beta - 2 * alpha * beta * x * sum of dy * x * s**(-beta - 1) over the mirrored window``."""
    gradient, values = dy.astype(np.float64), x.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = k + alpha * _window_sums(values**2, before, after)
        factor = scale**-beta
        through = _window_sums(gradient * values * factor / scale, after, before)
        dx[...] = (gradient * factor - 2 * alpha * beta * values * through).astype(dx.dtype)
