"""Count, mean, m2, variance of rows and of columns, in one pass over x."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _finish, _jit, _launch_moments
from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda._moments_cols import column_sums, thread_column_sums
from numbanorm.backends.cuda._moments_rows import row_sums
from numbanorm.backends.cuda._parts import working

Array = Any


@lru_cache(maxsize=64)
def _kind(dtype: Any) -> str:
    """The dtype's name, which takes microseconds to look up."""
    return str(dtype.name)


def _is_aligned(x: Array) -> bool:
    return x.data.ptr % 16 == 0


@lru_cache(maxsize=1024)
def _rows_launch(
    kind: str, n_rows: int, n_cols: int, aligned: bool, final: bool, ddof: float, root: bool, mean: bool, var: bool
) -> tuple[Any, ...]:
    plan = _launch_moments.rows(kind, n_rows, n_cols, aligned)
    kernel = row_sums(kind, plan.vector, plan.lanes, plan.split, final, plan.careful)
    sizes = tuple(np.int64(n) for n in (n_rows, n_cols, plan.n_splits, plan.piece))
    scratch = N_SUMS * n_rows * plan.n_splits if plan.split or not final else 1
    return kernel, plan, scratch, (*sizes, *_finish.arguments(kind, n_cols, ddof, root, mean, var))


def mean_var_rows(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of each row of x (n_rows, n_cols).

    One launch, which reads x once and writes the statistics.
    """
    kind, (n_rows, n_cols) = _kind(x.dtype), x.shape
    kernel, plan, size, numbers = _rows_launch(
        kind, n_rows, n_cols, _is_aligned(x), True, ddof, root, mean.size > 0, var.size > 0
    )
    tickets, scratch = _jit.workspace(size, working(kind))
    _jit.run(kernel, plan.n_blocks, x, scratch, tickets, mean, var, *numbers)


@lru_cache(maxsize=1024)
def _cols_launch(
    kind: str, shape: tuple[int, ...], aligned: bool, final: bool, ddof: float, root: bool, mean: bool, var: bool
) -> tuple[Any, ...]:
    n_outer, n_reduce, n_inner = shape
    plan = _launch_moments.cols(kind, n_outer, n_reduce, n_inner, aligned)
    finish = _finish.arguments(kind, n_reduce, ddof, root, mean, var)
    size = N_SUMS * n_outer * plan.n_splits * n_inner if plan.n_splits > 1 or not final else 1
    if not plan.blocks_share:
        kernel = thread_column_sums(kind, plan.vector, final)
        return kernel, plan, size, (*map(np.int64, shape), *finish)
    kernel = column_sums(kind, plan.vector, plan.width, final)
    cut = (*shape, plan.n_tiles, plan.n_splits, plan.piece, plan.across)
    return kernel, plan, size, (*map(np.int64, cut), *finish)


def mean_var_cols(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n_outer, n_reduce, n_inner) over its middle axis.

    One launch, which reads x once and writes the statistics.
    """
    kind = _kind(x.dtype)
    kernel, plan, size, numbers = _cols_launch(
        kind, x.shape, _is_aligned(x), True, ddof, root, mean.size > 0, var.size > 0
    )
    tickets, scratch = _jit.workspace(size, working(kind))
    shared = (tickets,) if plan.blocks_share else ()
    _jit.run(kernel, plan.n_blocks, x, scratch, *shared, mean, var, *numbers)
