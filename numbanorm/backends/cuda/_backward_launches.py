"""Launches that gradients share: scratch, sums of pieces, what becomes of them, and dx from operands."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    HAS_REST,
    WANT_SUMS,
    scale_arguments,
)
from numbanorm.backends.cuda._columns_backward_kernels import ROWS_AT_ONCE, columns_backward
from numbanorm.backends.cuda._columns_backward_kernels import THREADS as COLUMN_THREADS
from numbanorm.backends.cuda._launch_backward import column_sums_plan
from numbanorm.backends.cuda._launch_norms import ColumnsPlan, Layout, ceil_div, pieces_plan, units_held
from numbanorm.backends.cuda._merge_backward_kernels import (
    COLUMNS,
    CONVERT_THREADS,
    DBETA,
    DGAMMA,
    convert_statistics,
    merge_parts,
)
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._room import rooms
from numbanorm.backends.cuda._split import cut_of
from numbanorm.backends.cuda._split_backward_kernels import planes_backward, split_backward
from numbanorm.backends.cuda.affine import kind_of

Array = Any

#: Sets that a block of `merge_segments` has, a warp each.
WARPS = 4


def prepared(kind: str, mean: Array, rstd: Array, use_mean: bool, *sizes: int) -> tuple[Any, ...]:
    """(mean, its low part, rstd) in the compute dtype, whether there is a low part, and scratch of the sizes.

    Statistics in that dtype are taken as they are; others are converted by a small launch.
    """
    number = compute_kind(kind)
    if not use_mean:
        mean = rstd
    kinds = kind_of(mean.dtype), kind_of(rstd.dtype)
    if kinds == (number, number):
        return mean, mean, rstd, 0, *(rooms(number, *sizes) if any(sizes) else [rstd] * len(sizes))
    n = rstd.size
    centre, rest, scale, *others = rooms(number, n, n, n, *sizes)
    kernel = convert_statistics(number, *kinds)
    _jit.run(kernel, ceil_div(n, CONVERT_THREADS), mean, rstd, np.int64(n), centre, rest, scale)
    return centre, rest, scale, HAS_REST, *others


def merge(
    kind: str,
    parts: Array,
    n: int,
    n_parts: int,
    plane: int,
    flags: int,
    dgamma: Array,
    dbeta: Array,
    gamma: Array | None = None,
    statistics: tuple[Array, Array] | None = None,
    operands: Array | None = None,
    scale: tuple[Any, ...] | None = None,
) -> None:
    """Parts of sums into dgamma and dbeta, and into operands; `statistics` are the mean's low part and rstd."""
    flags |= DGAMMA * (dgamma.size > 0) | DBETA * (dbeta.size > 0)
    gamma = parts if gamma is None else gamma
    operands = parts if operands is None else operands
    numbers = (np.int64(v) for v in (n, n_parts, plane, gamma.size))
    _jit.run(
        merge_parts(compute_kind(kind)),
        ceil_div(n, COLUMNS),
        *(parts, gamma, *(statistics or (parts, parts)), dgamma, dbeta, operands),
        *numbers,
        np.int32(flags),
        *(scale or scale_arguments(kind, 1, 0, 0)),
    )


def sum_pieces(
    kind: str,
    vector: bool,
    layout: Layout,
    itemsize: int,
    per_statistic: int,
    n_gamma: int,
    flags: int,
    *arrays: Array,
) -> None:
    """Sums of the pieces of sets, from (dy, x, gamma, mean, rstd, dx, parts)."""
    n_blocks, cut = cut_of(itemsize, layout)
    scalars = np.int64(per_statistic), np.int64(n_gamma), np.int32(flags)
    _jit.run(split_backward(kind, vector), n_blocks, *arrays, np.int64(layout.n_rows), *cut, *scalars)


def n_pieces(itemsize: int, layout: Layout) -> int:
    """Of each set."""
    n_blocks: int = cut_of(itemsize, layout)[0]
    return n_blocks // layout.n_rows


def visit_columns(
    kind: str, vector: bool, by_row: bool, shape: tuple[int, int], itemsize: int, flags: int, *arrays: Array
) -> None:
    """Launch on (dy, x, gamma, mean, rstd, operands, dx, parts) as `shape` (n_rows, n_cols)."""
    plan = planned_columns(itemsize, vector, *shape, bool(flags & WANT_SUMS))
    wide = (np.int64(v) for v in (*shape, plan.rows_per_chunk, arrays[2].size))
    words = (np.int32(v) for v in (plan.tiles, plan.n_chunks, plan.lanes, flags))
    _jit.run(columns_backward(kind, vector, by_row), plan.grid, *arrays, *wide, *words)


@lru_cache(maxsize=1024)
def planned_columns(itemsize: int, vector: bool, n_rows: int, n_cols: int, sums: bool) -> ColumnsPlan:
    """How a matrix is shared out to threads that keep their columns."""
    units = ceil_div(n_cols, 16 // itemsize if vector else 1)
    return column_sums_plan(units, n_rows, COLUMN_THREADS, ROWS_AT_ONCE, sums)


def write_planes(
    kind: str,
    vector: bool,
    shape: tuple[int, int],
    per_set: int,
    n_sets: int,
    flags: int,
    *arrays: Array,
) -> None:
    """dx of segments, `shape` (n_segments, n_inner), from (dy, x, gamma, mean, rstd, operands, dx)."""
    itemsize = arrays[1].itemsize
    plan = pieces_plan(itemsize, vector, *shape)
    wide = (np.int64(v) for v in (*shape, per_set, n_sets, arrays[2].size))
    words = np.int32(plan.lanes), np.int32(plan.n_chunks), np.int32(flags)
    kernel = planes_backward(kind, vector, units_held(itemsize, vector))
    _jit.run(kernel, plan.grid, *arrays, *wide, *words, threads=plan.threads)
