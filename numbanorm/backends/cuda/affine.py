"""Applying given statistics: one read and one write of x."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._affine_kernels import (
    COLUMN_THREADS,
    PARAMETERS_BY_ROW,
    PREPARE_THREADS,
    READY,
    ROWS_AT_ONCE,
    STATISTICS_BY_ROW,
    affine_columns,
    affine_planes,
    prepare,
)
from numbanorm.backends.cuda._launch_norms import MULTIPROCESSORS, columns_plan, pieces_plan, units_held
from numbanorm.backends.cuda._norm_arithmetic import BETA_COLS, EPS_ON_STD, GAMMA_COLS, compute_kind
from numbanorm.backends.cuda._room import room

Array = Any
Shape = tuple[int, ...]
#: Steps from one outer and one middle index to the next, and how many operands there are.
Steps = tuple[int, int, int]

#: Blocks for columns: a few for each multiprocessor.
COLUMN_BLOCKS = 8 * MULTIPROCESSORS

_KINDS: dict[Any, str] = {}


def kind_of(dtype: Any) -> str:
    """The dtype's name, which NumPy takes microseconds to spell."""
    name = _KINDS.get(dtype)
    if name is None:
        name = _KINDS[dtype] = dtype.name
    return name


def aligned(*arrays: Array) -> bool:
    """Whether all arrays begin at a multiple of 16 bytes."""
    address = 0
    for array in arrays:
        address |= array.data.ptr
    return not address & 15


def steps_of(shape: Shape) -> Steps:
    """Steps of an operand (n_outer, n_mid, n_inner) that broadcasts."""
    n_outer, n_mid, n_inner = shape
    return n_mid * n_inner * (n_outer > 1), n_inner * (n_mid > 1), n_outer * n_mid * n_inner


@lru_cache(maxsize=4096)
def _planes_call(
    kind: str,
    itemsize: int,
    vector: bool,
    shape: Shape,
    stat: Steps,
    steps: Steps,
    n_beta: int,
    flags: int,
    eps: float,
) -> tuple[Any, int, int, tuple[Any, ...]]:
    """Kernel, grid, threads and scalars for statistics that are constant along rows."""
    plan = pieces_plan(itemsize, vector, shape[0] * shape[1], shape[2])
    kernel = affine_planes(kind, vector, units_held(itemsize, vector))
    scalars = _scalars(kind, shape, stat, steps, n_beta, 0, plan.lanes, plan.n_chunks, 0, flags, eps)
    return kernel, plan.grid, plan.threads, scalars


@lru_cache(maxsize=4096)
def _columns_call(
    kind: str,
    itemsize: int,
    vector: bool,
    shape: Shape,
    stat: Steps,
    steps: Steps,
    n_beta: int,
    flags: int,
    eps: float,
) -> tuple[Any, int, int, tuple[Any, ...]]:
    """The same for statistics along rows."""
    units = -(-shape[2] // (16 // itemsize if vector else 1))
    plan = columns_plan(units, shape[0] * shape[1], COLUMN_THREADS, ROWS_AT_ONCE, COLUMN_BLOCKS)
    flags |= STATISTICS_BY_ROW * bool(stat[0] or stat[1]) | PARAMETERS_BY_ROW * bool(steps[0] or steps[1])
    scalars = _scalars(
        kind, shape, stat, steps, n_beta, plan.tiles, plan.lanes, plan.n_chunks, plan.rows_per_chunk, flags, eps
    )
    return affine_columns(kind, vector), plan.grid, COLUMN_THREADS, scalars


def _scalars(
    kind: str,
    shape: Shape,
    stats: Steps,
    steps: Steps,
    n_beta: int,
    tiles: int,
    lanes: int,
    n_chunks: int,
    rows_per_chunk: int,
    flags: int,
    eps: float,
) -> tuple[Any, ...]:
    n_outer, n_mid, n_inner = shape
    wide = np.int64(n_outer * n_mid), np.uint32(n_mid), np.int64(n_inner)
    words = (np.uint32(v) for v in (*stats, *steps, n_beta, tiles))
    rest = (np.int32(v) for v in (lanes, n_chunks, rows_per_chunk, flags))
    return *wide, *words, *rest, np.dtype(compute_kind(kind)).type(eps)


def apply_planes(
    x: Array,
    shape: Shape,
    mean: Array,
    rest: Array,
    var: Array,
    stats: Steps,
    gamma: Array,
    beta: Array,
    steps: Steps,
    flags: int,
    eps: float,
    y: Array,
) -> None:
    """Write y for x of `shape`, statistics constant along its last axis; `rest` counts with ``READY`` only."""
    vector = not shape[2] * x.itemsize & 15 and aligned(x, y, gamma, beta)
    call = _planes_call(kind_of(x.dtype), x.itemsize, vector, shape, stats, steps, beta.size, flags, eps)
    kernel, grid, threads, scalars = call
    _jit.run(kernel, grid, x, mean, rest, var, gamma, beta, y, *scalars, threads=threads)


def apply_columns(
    x: Array,
    shape: Shape,
    mean: Array,
    rest: Array,
    var: Array,
    stats: Steps,
    gamma: Array,
    beta: Array,
    steps: Steps,
    flags: int,
    eps: float,
    y: Array,
) -> None:
    """Write y for x of `shape`, statistics along its last axis; `rest` counts with ``READY`` only."""
    vector = not shape[2] * x.itemsize & 15 and aligned(x, y, gamma, beta, mean, rest, var)
    call = _columns_call(kind_of(x.dtype), x.itemsize, vector, shape, stats, steps, beta.size, flags, eps)
    kernel, grid, threads, scalars = call
    _jit.run(kernel, grid, x, mean, rest, var, gamma, beta, y, *scalars, threads=threads)


def _parameters(gamma: Array, beta: Array, eps_on_std: bool) -> tuple[Steps, int]:
    """The common steps of both parameters, one of which may be a single number, and the flags."""
    shape = gamma.shape if gamma.size > 1 else beta.shape
    outer, mid, _ = steps_of(shape)
    along = shape[2] > 1
    flags = EPS_ON_STD * eps_on_std | GAMMA_COLS * (along and gamma.size > 1) | BETA_COLS * (along and beta.size > 1)
    return (outer, mid, gamma.size), flags


def _statistics(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array
) -> tuple[tuple[Array, Array, Array], int]:
    """The three arrays that kernels take, and whether they are ready.

    Statistics in the compute dtype are taken as they are; others are made ready by a small launch.
    """
    number = compute_kind(kind_of(x.dtype))
    if not number == kind_of(gamma.dtype) == kind_of(beta.dtype):
        raise TypeError(f"parameters should be {number} for {x.dtype} x, but are {gamma.dtype} and {beta.dtype}")
    kinds = kind_of(mean.dtype), kind_of(var.dtype)
    if kinds == (number, number):
        return (mean, mean, var), 0
    _, _, operands = room(mean.size, 0, number)
    numbers = np.int64(mean.size), np.float64(eps), np.int32(eps_on_std)
    _jit.run(prepare(number, *kinds), -(-mean.size // PREPARE_THREADS), mean, var, *numbers, *operands)
    return operands, READY


def affine_rows(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics constant along the last axis.

    Moves 2 sizes of x. One launch where `mean` and `var` have the compute dtype of x, else two.
    """
    statistics, ready = _statistics(x, mean, var, eps, eps_on_std, gamma, beta)
    steps, flags = _parameters(gamma, beta, eps_on_std)
    apply_planes(x, x.shape, *statistics, steps_of(mean.shape), gamma, beta, steps, flags | ready, eps, y)


def affine_cols(
    x: Array, mean: Array, var: Array, eps: float, eps_on_std: bool, gamma: Array, beta: Array, y: Array
) -> None:
    """``(x - mean) * rstd * gamma + beta``, statistics varying along the last axis.

    Moves 2 sizes of x. One launch where `mean` and `var` have the compute dtype of x, else two.
    """
    statistics, ready = _statistics(x, mean, var, eps, eps_on_std, gamma, beta)
    steps, flags = _parameters(gamma, beta, eps_on_std)
    apply_columns(x, x.shape, *statistics, steps_of(mean.shape), gamma, beta, steps, flags | ready, eps, y)
