"""What gradients in two visits share: sums of pieces, operands from them, and dx of segments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _kernels_backward as kernels
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import n_parts, n_splits
from numbanorm.backends.cpu._stream import goes_past_caches
from numbanorm.backends.cpu.affine import affine_cols, affine_rows

Array = NDArray[Any]

#: ``std_eps, ddof, use_mean`` of the launchers.
Scale = tuple[float, float, bool]


def streams(dy: Array, x: Array, dx: Array, run: int) -> bool:
    """Whether to write dx past the caches, in runs of `run` elements."""
    return goes_past_caches(x, dx, run) and goes_past_caches(dy, dx, run)


def operands_of(
    count: float | Array, sums: Array, gamma: Array, mean: Array, rstd: Array, scale: Scale, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """(operands (6, n), mean of xhat) from sums (3, n): :func:`._write_backward.set_operands` for arrays."""
    std_eps, ddof, use_mean = scale
    total, product, offset = sums
    with np.errstate(all="ignore"):
        low = offset / count * use_mean
        share = 1 - std_eps * rstd.astype(np.float64)
        steepness = np.divide(1, share, out=np.zeros_like(share), where=share > 0)
        through_var = (product - low * total) / (count - ddof) * steepness
        constant = (low * through_var - total / count * use_mean) * rstd
        rows = mean, rstd, low, np.broadcast_to(gamma, low.shape), -through_var * rstd, constant
        return np.array(rows, np.float64).astype(dtype), low


def compute_of(x: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def segment_sums(dy: Array, x: Array, mean: Array, rstd: Array) -> Array:
    """Sums (3, segments) over the last axis of x, with cyclic statistics."""
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    sums = np.empty((3, n_segments * splits))
    kernels.segment_sums_kernel(
        n_parts(n_segments * splits, x.size),
        flat_input(dy),
        flat_input(x),
        n_inner,
        splits,
        flat_input(mean),
        flat_input(rstd),
        np.empty(0, compute_of(x)),
        sums,
    )
    return sums if splits == 1 else sums.reshape(3, n_segments, splits).sum(2)


def write_segments(dy: Array, x: Array, operands: Array, dx: Array) -> None:
    n_inner = x.shape[-1]
    n_segments = x.size // n_inner
    splits = n_splits(n_segments, n_inner)
    parts = n_parts(n_segments * splits, x.size)
    target = operands, flat_output(dx), streams(dy, x, dx, n_inner // splits)
    kernels.segment_gradients_kernel(parts, flat_input(dy), flat_input(x), n_inner, splits, *target)


def apply_fixed(dy: Array, factor: Array, by_columns: bool, dx: Array) -> None:
    """dx = dy * factor, a factor per channel: the forward of statistics 0 and 1 without eps."""
    n, n_channels, n_inner = dy.shape
    zero, one = np.zeros((1, 1, 1), factor.dtype), np.ones((1, 1, 1), factor.dtype)
    if by_columns:
        cube = (1, n, n_channels * n_inner)
        factor = np.repeat(factor, n_inner).reshape(1, 1, -1)
        mean, var = np.zeros_like(factor), np.ones_like(factor)
        affine_cols(dy.reshape(cube), mean, var, 0.0, False, factor, zero, dx.reshape(cube))
    else:
        affine_rows(dy, zero, one, 0.0, False, factor.reshape(1, -1, 1), zero, dx)
