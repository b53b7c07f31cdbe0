"""Normalisation: rows that stay on chip between statistics and writing, else two passes.

Bytes moved are given in sizes of x, reads plus writes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._affine_kernels import READY, REVERSED
from numbanorm.backends.cuda._launch_norms import Layout, Plan, division, rows_plan, units_held
from numbanorm.backends.cuda._norm_arithmetic import (
    BETA_COLS,
    EPS_ON_STD,
    GAMMA_COLS,
    KEEP_STATISTICS,
    KEEP_VARIANCE,
    PER_ELEMENT,
    USE_MEAN,
    compute_kind,
    least_squares_sum,
)
from numbanorm.backends.cuda._norm_rows_kernels import norm_rows_registers
from numbanorm.backends.cuda._norm_shared_kernels import norm_rows_shared
from numbanorm.backends.cuda._split import channels_last, channels_layout, split_rows
from numbanorm.backends.cuda.affine import Steps, aligned, apply_columns, apply_planes, kind_of

Array = Any


class _Call(NamedTuple):
    plan: Plan
    kernel: Any
    scalars: tuple[Any, ...]


@lru_cache(maxsize=4096)
def _planned(
    shared_limit: int,
    kind: str,
    itemsize: int,
    vector: bool,
    layout: Layout,
    n_gamma: int,
    n_beta: int,
    flags: int,
    eps: float,
) -> _Call:
    """The plan, and where rows fit on chip the kernel and its scalar arguments."""
    plan = rows_plan(itemsize, vector, layout.n_rows, layout.n_cols, shared_limit)
    if plan.tier == "split":
        return _Call(plan, None, ())
    if plan.tier == "registers":
        kernel = norm_rows_registers(kind, vector, units_held(itemsize, vector))
    else:
        kernel = norm_rows_shared(kind, vector)
    width = 16 // itemsize if vector else 1
    if layout.segment % width:
        flags |= PER_ELEMENT
    magic, shift = division(layout.segment, layout.n_cols)
    number = np.dtype(compute_kind(kind)).type
    count = layout.n_cols
    int32, int64 = np.int32, np.int64
    scalars = (
        *(int64(layout.n_rows), int32(count), int64(layout.stride), int64(layout.gap), np.uint32(magic), int32(shift)),
        *(int32(v) for v in (n_gamma, n_beta, layout.row_step, layout.segment_step, plan.lanes, flags)),
        *(number(v) for v in (count, 1 / count, least_squares_sum(kind, count, eps, bool(flags & EPS_ON_STD)), eps)),
    )
    return _Call(plan, kernel, scalars)


def _normalize(
    x: Array,
    shape: tuple[int, ...],
    layout: Layout,
    vector: bool,
    statistics_steps: Steps,
    parameters_steps: tuple[int, int],
    gamma: Array,
    beta: Array,
    eps: float,
    flags: int,
    y: Array,
    first: Array,
    second: Array,
) -> None:
    """Rows that stay on chip in one launch; others in two: their statistics, which are then applied to x of `shape`."""
    sizes = gamma.size, beta.size
    call = _planned(_jit.shared_limit(), kind_of(x.dtype), x.itemsize, vector, layout, *sizes, flags, eps)
    if call.kernel is not None:
        plan = call.plan
        arrays = x, gamma, beta, y, first, second
        _jit.run(call.kernel, plan.grid, *arrays, *call.scalars, shared=plan.shared, threads=plan.threads)
        return
    statistics = split_rows(x, layout, vector, eps, flags, first, second)
    # The second reading begins where the first one ended, with what is still in the L2.
    along = flags & (GAMMA_COLS | BETA_COLS) | READY | REVERSED
    apply_planes(x, shape, *statistics, statistics_steps, gamma, beta, (*parameters_steps, gamma.size), along, eps, y)


def norm_rows(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise each row of x (n_rows, n_cols), one parameter per column.

    Moves 2 sizes of x, or 3 where rows do not fit on chip or are few and long.
    """
    n_rows, n_cols = x.shape
    flags = USE_MEAN * use_mean | EPS_ON_STD * eps_on_std | KEEP_STATISTICS * (mean.size > 0)
    flags |= GAMMA_COLS * (gamma.size > 1) | BETA_COLS * (beta.size > 1)
    layout = Layout(n_rows, n_cols, n_cols, n_cols, 0, 0, 0)
    vector = not n_cols * x.itemsize & 15 and aligned(x, y, gamma, beta)
    shape, operands = (n_rows, 1, n_cols), (gamma, beta, eps, flags, y, mean, rstd)
    _normalize(x, shape, layout, vector, (1, 0, n_rows), (0, 0), *operands)


def norm_groups(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Normalise each row of x (n_rows, n_channels, n_inner), a parameter per channel, cyclic.

    A parameter has length 1 or a multiple of n_channels. Moves 2 sizes of x, or 3 where rows
    do not fit on chip or are few and long.
    """
    n_rows, n_channels, n_inner = x.shape
    if n_rows * n_channels >= 1 << 32:  # more than a kernel counts
        _groups_in_pieces(x, gamma, beta, eps, eps_on_std, use_mean, y, mean, rstd)
        return
    n_cols = n_channels * n_inner
    flags = USE_MEAN * use_mean | EPS_ON_STD * eps_on_std | KEEP_STATISTICS * (mean.size > 0)
    layout = Layout(n_rows, n_cols, n_cols, n_inner, 0, n_channels, 1)
    vector = not n_cols * x.itemsize & 15 and aligned(x, y)
    operands = gamma, beta, eps, flags, y, mean, rstd
    _normalize(x, x.shape, layout, vector, (1, 0, n_rows), (n_channels, 1), *operands)


def _groups_in_pieces(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """The same for rows of which each piece begins with the first parameter."""
    n_rows, n_channels, _ = x.shape
    period = max(1, gamma.size // n_channels, beta.size // n_channels)
    step = (1 << 31) // n_channels // period * period
    for first in range(0, n_rows, step):
        piece = slice(first, first + step)
        norm_groups(x[piece], gamma, beta, eps, eps_on_std, use_mean, y[piece], mean[piece], rstd[piece])


def norm_channels(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    y: Array,
    mean: Array,
    var: Array,
) -> None:
    """Normalise each channel of x (n, n_channels, n_inner) over the first and last axis.

    Moves 3 sizes of x, or 2 where channels fit on chip and are many. The second reading begins
    where the first one ended, with what is still in the L2.
    """
    n, n_channels, n_inner = x.shape
    flags = USE_MEAN | EPS_ON_STD * eps_on_std | KEEP_STATISTICS | KEEP_VARIANCE
    if n_inner == 1:
        statistics = channels_last(x, eps, flags, mean, var)
        along = READY | REVERSED | GAMMA_COLS * (gamma.size > 1) | BETA_COLS * (beta.size > 1)
        shape, steps = (1, n, n_channels), (0, 0, gamma.size)
        apply_columns(x, shape, *statistics, (0, 0, n_channels), gamma, beta, steps, along, eps, y)
        return
    layout = channels_layout(n, n_channels, n_inner)
    vector = not n_inner * x.itemsize & 15 and aligned(x, y)
    operands = gamma, beta, eps, flags, y, mean, var
    _normalize(x, x.shape, layout, vector, (0, 1, n_channels), (0, 1), *operands)
