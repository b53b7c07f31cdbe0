"""Count, mean, m2, variance of rows and of columns, in one pass over x."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _finish, _jit, _launch_moments
from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda._moments_cols import column_sums, thread_column_sums
from numbanorm.backends.cuda._moments_combine import combine, finish, update
from numbanorm.backends.cuda._moments_rows import row_sums
from numbanorm.backends.cuda._moments_weighted import weighted_sums
from numbanorm.backends.cuda._norm_split_kernels import split_mean_var
from numbanorm.backends.cuda._parts import working
from numbanorm.backends.cuda._split import channels_layout, cut_of
from numbanorm.backends.cuda.affine import aligned, kind_of

Array = Any
#: None, a boolean array, or True for all that is not NaN.
Weights = Any


@lru_cache(maxsize=1024)
def _rows_launch(
    kind: str, n_rows: int, n_cols: int, is_aligned: bool, final: bool, ddof: float, root: bool, mean: bool, var: bool
) -> tuple[Any, ...]:
    plan = _launch_moments.rows(kind, n_rows, n_cols, is_aligned)
    kernel = row_sums(kind, plan.vector, plan.lanes, plan.split, final, plan.careful)
    sizes = tuple(np.int64(n) for n in (n_rows, n_cols, plan.n_splits, plan.piece))
    scratch = N_SUMS * n_rows * plan.n_splits if plan.split or not final else 1
    return kernel, plan, scratch, (*sizes, *_finish.arguments(kind, n_cols, ddof, root, mean, var))


def mean_var_rows(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of each row of x (n_rows, n_cols).

    One launch, which reads x once and writes the statistics.
    """
    kind, (n_rows, n_cols) = kind_of(x.dtype), x.shape
    kernel, plan, size, numbers = _rows_launch(
        kind, n_rows, n_cols, aligned(x), True, ddof, root, mean.size > 0, var.size > 0
    )
    tickets, scratch = _jit.workspace(size, working(kind))
    _jit.run(kernel, plan.n_blocks, x, scratch, tickets, mean, var, *numbers)


@lru_cache(maxsize=1024)
def _cols_launch(
    kind: str, shape: tuple[int, ...], is_aligned: bool, final: bool, ddof: float, root: bool, mean: bool, var: bool
) -> tuple[Any, ...]:
    n_outer, n_reduce, n_inner = shape
    plan = _launch_moments.cols(kind, n_outer, n_reduce, n_inner, is_aligned)
    finish = _finish.arguments(kind, n_reduce, ddof, root, mean, var)
    if not final:
        plan = plan._replace(n_parts=plan.n_splits)
    size = N_SUMS * n_outer * plan.n_parts * n_inner if plan.n_splits > 1 or not final else 1
    if not plan.blocks_share:
        kernel = thread_column_sums(kind, plan.vector, final)
        return kernel, plan, size, (*map(np.int64, shape), *finish)
    kernel = column_sums(kind, plan.vector, plan.width, final)
    return kernel, plan, size, (*map(np.int64, (*shape, *plan.cut)), *finish)


def mean_var_cols(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n_outer, n_reduce, n_inner) over its middle axis.

    One launch, which reads x once and writes the statistics.
    """
    kind = kind_of(x.dtype)
    kernel, plan, size, numbers = _cols_launch(kind, x.shape, aligned(x), True, ddof, root, mean.size > 0, var.size > 0)
    tickets, scratch = _jit.workspace(size, working(kind))
    shared = (tickets,) if plan.blocks_share else ()
    _jit.run(kernel, plan.n_blocks, x, scratch, *shared, mean, var, *numbers)


@lru_cache(maxsize=1024)
def _channels_launch(
    kind: str, shape: tuple[int, int, int], is_aligned: bool, ddof: float, root: bool, mean: bool, var: bool
) -> tuple[Any, ...]:
    itemsize, layout = _launch_moments.item_size(kind), channels_layout(*shape)
    vector = is_aligned and shape[2] * itemsize % 16 == 0
    n_blocks, cut = cut_of(itemsize, layout)
    finish = _finish.arguments(kind, layout.n_cols, ddof, root, mean, var)
    return split_mean_var(kind, vector), n_blocks, N_SUMS * n_blocks, (*cut, *finish)


def mean_var_channels(x: Array, ddof: float, root: bool, mean: Array, var: Array) -> None:
    """Mean and variance (or standard deviation) of x (n, n_channels, n_inner) over its first and last axis.

    One launch, which reads x once and writes the statistics.
    """
    kind = kind_of(x.dtype)
    kernel, n_blocks, size, numbers = _channels_launch(
        kind, x.shape, aligned(x), ddof, root, mean.size > 0, var.size > 0
    )
    tickets, scratch = _jit.workspace(size, working(kind))
    _jit.run(kernel, n_blocks, x, scratch, tickets, mean, var, *numbers)


def _moments_of_sums(
    scratch: Array, kind: str, parts: tuple[int, int, int], count: Array, mean: Array, m2: Array
) -> None:
    """Export sums that lie in scratch as float64 moments, those of a split set merged."""
    _combine(working(kind), (scratch, scratch, scratch), parts, count, mean, m2)


def _combine(source: str, inputs: tuple[Array, ...], parts: tuple[int, ...], *outputs: Array) -> None:
    n_outer, n_reduce, n_inner = parts if parts[1] > 1 else (1, 1, parts[0] * parts[2])
    width = _launch_moments.combine_width(n_reduce, n_inner)
    n_tiles = -(-n_inner // width)
    numbers = map(np.int64, (n_outer, n_reduce, n_inner, n_tiles))
    _jit.run(combine(source, width), n_outer * n_tiles, *inputs, *numbers, *outputs)


def _taken(x: Array, weights: Weights) -> Array:
    """Which elements take part, as a boolean array."""
    if weights is True:
        weights = x == x
    assert weights.dtype == bool  # real ones are the pipeline's
    return weights


def moments_rows(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of each row of x (n_rows, n_cols).

    Two launches: the first reads x (and weights) once and leaves sums in scratch, the second
    turns them into float64.
    """
    kind, (n_rows, n_cols) = kind_of(x.dtype), x.shape
    if weights is not None:
        weights = _taken(x, weights).reshape(n_rows, n_cols, 1)
        moments_cols(x.reshape(n_rows, n_cols, 1), weights, count, mean, m2)
        return
    kernel, plan, size, numbers = _rows_launch(kind, n_rows, n_cols, aligned(x), False, 0, False, False, False)
    tickets, scratch = _jit.workspace(size, working(kind))
    _jit.run(kernel, plan.n_blocks, x, scratch, tickets, x, x, *numbers)
    _moments_of_sums(scratch, kind, (n_rows, plan.n_splits, 1), count, mean, m2)


def moments_cols(x: Array, weights: Weights, count: Array, mean: Array, m2: Array) -> None:
    """Moments of x (n_outer, n_reduce, n_inner) over its middle axis.

    Two launches: the first reads x (and weights) once and leaves sums in scratch, the second
    turns them into float64.
    """
    kind, (n_outer, n_reduce, n_inner) = kind_of(x.dtype), x.shape
    if weights is not None:
        weights = _taken(x, weights)
        weighted = _launch_moments.weighted(n_outer, n_reduce, n_inner)
        _, scratch = _jit.workspace(N_SUMS * n_outer * weighted.n_splits * n_inner, working(kind))
        cut = map(np.int64, (*x.shape, weighted.n_tiles, weighted.n_splits, weighted.piece))
        _jit.run(weighted_sums(kind, weighted.width), weighted.n_blocks, x, weights.view(np.uint8), scratch, *cut)
        _moments_of_sums(scratch, kind, (n_outer, weighted.n_splits, n_inner), count, mean, m2)
        return
    kernel, plan, size, numbers = _cols_launch(kind, x.shape, aligned(x), False, 0, False, False, False)
    tickets, scratch = _jit.workspace(size, working(kind))
    shared = (tickets,) if plan.blocks_share else ()
    _jit.run(kernel, plan.n_blocks, x, scratch, *shared, x, x, *numbers)
    _moments_of_sums(scratch, kind, (n_outer, plan.n_splits, n_inner), count, mean, m2)


def combine_moments(count: Array, mean: Array, m2: Array, out_count: Array, out_mean: Array, out_m2: Array) -> None:
    """Merge parts (n_outer, n_reduce, n_inner) over the middle axis, in a fixed order; reads them once."""
    _combine("moments", (count, mean, m2), count.shape, out_count, out_mean, out_m2)


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
    """Mean and ``m2 / (count - ddof)`` of moments, or its square root, in the outputs' dtypes; reads them once."""
    kernel = finish(*(kind_of(out.dtype) if out.size else "none" for out in (out_mean, out_var)))
    numbers = np.int64(count.size), np.float64(ddof), np.int32(use_mean), np.int32(root)
    _jit.run(kernel, -(-count.size // kernel.threads), count, mean, m2, *numbers, out_mean, out_var)


def update_running(
    mean: Array, var: Array, unbias: float, momentum: float, running_mean: Array | None, running_var: Array | None
) -> None:
    """``running = (1 - momentum) * running + momentum * new`` in place; `unbias` multiplies the new variance."""
    for running, new, factor in ((running_mean, mean, 1.0), (running_var, var, unbias)):
        if running is not None:
            kernel = update(kind_of(new.dtype), kind_of(running.dtype))
            numbers = np.int64(new.size), np.float64(factor), np.float64(momentum)
            _jit.run(kernel, -(-new.size // kernel.threads), new, running, *numbers)
