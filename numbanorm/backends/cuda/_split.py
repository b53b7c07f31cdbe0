"""Statistics that a norm takes in a launch of their own, left in scratch for the next one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda._launch_moments import tiles
from numbanorm.backends.cuda._launch_norms import Layout, division, split_plan
from numbanorm.backends.cuda._norm_arithmetic import EPS_ON_STD, RANGES, compute_kind
from numbanorm.backends.cuda._norm_columns_kernels import column_statistics
from numbanorm.backends.cuda._norm_split_kernels import EPS_HIDES, split_statistics
from numbanorm.backends.cuda._room import room
from numbanorm.backends.cuda.affine import aligned, kind_of

Array = Any


def _numbers(kind: str, count: int, eps: float) -> tuple[Any, ...]:
    """The count as a pair, its reciprocal, and eps."""
    number = np.dtype(compute_kind(kind)).type
    high = number(count)
    return high, number(count - int(high)), number(1 / count), number(eps)


def _hides(kind: str, eps: float, flags: int) -> int:
    """Whether a variance that underflows is nothing beside eps."""
    shadow = RANGES[compute_kind(kind)].shadow
    return EPS_HIDES * (eps > (shadow**0.5 if flags & EPS_ON_STD else shadow))


def cut_of(itemsize: int, layout: Layout) -> tuple[int, tuple[Any, ...]]:
    """Number of blocks, and where rows lie and how they are split."""
    plan = split_plan(itemsize, layout.n_rows, layout.n_cols)
    segment = layout.segment if layout.gap else layout.n_cols
    # An element's number is counted from the segment in which its block's piece begins.
    magic, shift = division(segment, layout.n_cols)
    sizes = (np.int64(v) for v in (layout.n_cols, layout.stride, segment, layout.gap, plan.piece))
    return layout.n_rows * plan.n_splits, (*sizes, np.uint32(magic), np.int32(shift), np.int32(plan.n_splits))


@lru_cache(maxsize=1024)
def _split_call(kind: str, itemsize: int, vector: bool, layout: Layout, eps: float, flags: int) -> tuple[Any, ...]:
    """Kernel, number of blocks and scalars."""
    n_blocks, cut = cut_of(itemsize, layout)
    scalars = *cut, np.int32(flags | _hides(kind, eps, flags)), *_numbers(kind, layout.n_cols, eps)
    return split_statistics(kind, vector), n_blocks, scalars


def split_rows(
    x: Array, layout: Layout, vector: bool, eps: float, flags: int, first: Array, second: Array
) -> tuple[Array, Array, Array]:
    """(mean, its low part, 1 / std) of each row; `first` and `second` as `flags` say. Reads x once."""
    kind = kind_of(x.dtype)
    kernel, n_blocks, scalars = _split_call(kind, x.itemsize, vector, layout, eps, flags)
    tickets, scratch, statistics = room(layout.n_rows, N_SUMS * n_blocks, compute_kind(kind))
    _jit.run(kernel, n_blocks, x, scratch, tickets, *statistics, first, second, *scalars)
    return statistics


def channels_layout(n: int, n_channels: int, n_inner: int) -> Layout:
    """The channels of x (n, n_channels, n_inner) as rows of n segments."""
    return Layout(n_channels, n * n_inner, n_inner, n_inner, (n_channels - 1) * n_inner, 1, 0)


@lru_cache(maxsize=1024)
def _columns_call(
    kind: str, itemsize: int, is_aligned: bool, n: int, n_channels: int, eps: float, flags: int
) -> tuple[Any, ...]:
    """Kernel, numbers of blocks and of parts, and scalars."""
    plan = tiles(itemsize, 1, n, n_channels, is_aligned)
    cut = map(np.int64, (1, n, n_channels, *plan.cut))
    scalars = (*cut, np.int32(flags | _hides(kind, eps, flags)), *_numbers(kind, n, eps))
    kernel = column_statistics(kind, plan.vector, plan.width)
    return kernel, plan.n_blocks, plan.n_parts * n_channels, scalars


def channels_last(x: Array, eps: float, flags: int, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """(mean, its low part, 1 / std) of each channel of x (n, n_channels, 1). Reads x once."""
    kind, (n, n_channels, _) = kind_of(x.dtype), x.shape
    kernel, n_blocks, n_parts, scalars = _columns_call(kind, x.itemsize, aligned(x), n, n_channels, eps, flags)
    tickets, scratch, statistics = room(n_channels, N_SUMS * n_parts, compute_kind(kind))
    _jit.run(kernel, n_blocks, x, scratch, tickets, *statistics, first, second, *scalars)
    return statistics
