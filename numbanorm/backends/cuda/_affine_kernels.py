"""``(x - mean) * rstd * gamma + beta`` with given statistics: x is read once and written once.

x has n_rows = n_outer * n_mid rows of n_inner elements. Row (outer, mid) finds its statistics
at ``outer * outer_step + mid * mid_step``, and its parameters likewise, modulo their number
where they are cyclic.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, float64
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import finite_or_zero
from numbanorm.backends.cuda._intrinsics import KEEP, pointer, real, scalar_load
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import (
    BETA_COLS,
    EPS_ON_STD,
    GAMMA_COLS,
    compute_kind,
    reciprocal_std,
)
from numbanorm.backends.cuda._vectors import units

int32, int64, uint32 = types.int32, types.int64, types.uint32

#: Further bits of `flags`: `var` holds 1 / std, and `rest` the mean's low part; the last blocks
#: come first, whose x is still in the L2; parameters, statistics differ from row to row.
READY, REVERSED, PARAMETERS_BY_ROW, STATISTICS_BY_ROW = (1 << k for k in range(8, 12))

#: Threads of a block that shares columns, and rows that each has in flight.
COLUMN_THREADS, ROWS_AT_ONCE = 256, 2


def _parameters(kind: str) -> tuple[Any, ...]:
    """Types of the parameters that both kernels have."""
    number = real(kind)
    x, real_pointer = pointer(kind), pointer(compute_kind(kind))
    arrays = (x, real_pointer, real_pointer, real_pointer, real_pointer, real_pointer, x)
    return (*arrays, int64, uint32, int64, *[uint32] * 8, int32, int32, int32, int32, number)


#: Threads of a block that prepares statistics.
PREPARE_THREADS = 128


@_jit.kernel
def prepare(kind, mean_kind, var_kind):
    """Statistics of any dtype, a thread each, as ``READY`` says; all arithmetic is in float64.

    The kernels below compute in float32 alone, and float32 cannot hold a mean.
    """
    load_mean, load_var = scalar_load(mean_kind, KEEP), scalar_load(var_kind, KEEP)
    number, reciprocal = real(kind), reciprocal_std("float64")

    def prepare(mean, var, n, eps, on_std, centre, rest, ready):
        i = int64(cuda.blockIdx.x) * PREPARE_THREADS + cuda.threadIdx.x
        if i < n:
            mu = float64(load_mean(mean, i, True))
            high = number(mu)
            centre[i] = high
            rest[i] = finite_or_zero(number(mu - float64(high)))
            spread = float64(load_var(var, i, True))
            ready[i] = number(reciprocal(spread, eps, float64(1), on_std != int32(0)))

    given, number_pointer = (pointer(mean_kind), pointer(var_kind)), pointer(compute_kind(kind))
    return prepare, (*given, int64, float64, int32, *[number_pointer] * 3), PREPARE_THREADS


@device
def place_of(row, n_mid, outer_step, mid_step, n):
    """Where the operand of a row lies, n of which take turns."""
    if n == uint32(1):
        return int64(0)
    outer = uint32(row) // n_mid
    mid = uint32(row) - outer * n_mid
    return int64(uint32(outer * outer_step + mid * mid_step) % n)


@_jit.kernel
def affine_planes(kind, vector, n_units):
    """Statistics constant along a row: a team of `lanes` threads takes one of the n_chunks pieces of a row."""
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    parameters, store, kept = unit.parameters, unit.store, n_units * unit.words
    number, reciprocal = real(kind), reciprocal_std(kind)
    zero, one = number(0), number(1)

    def affine_planes(
        x, mean, rest, var, gamma, beta, y, n_rows, n_mid, n_inner, stat_outer, stat_mid, n_stat,
        outer_step, mid_step, n_gamma, n_beta, unused, lanes, n_chunks, rows_per_chunk, flags, eps,
    ):  # fmt: skip
        held = cuda.local.array(kept, word)
        values = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        b = cuda.local.array(width, number)
        block = cuda.blockIdx.x
        if flags & REVERSED:
            block = cuda.gridDim.x - 1 - block
        group = int32(uint32(block) // uint32(n_chunks))
        team = int32(uint32(cuda.threadIdx.x) // uint32(lanes))
        row = int64(group) * int32(uint32(cuda.blockDim.x) // uint32(lanes)) + team
        chunk = int64(block - group * n_chunks) * (lanes * n_units)
        first = (chunk + cuda.threadIdx.x - team * lanes) * width
        if row < n_rows:
            for v in range(n_units):
                j = first + v * lanes * width
                keep(load(x, row * n_inner + j, j < n_inner), held, v * words)
            at = place_of(row, n_mid, stat_outer, stat_mid, n_stat)
            centre = mean[at]
            low = rest[at] if flags & READY else zero
            rstd = var[at] if flags & READY else reciprocal(var[at], eps, one, flags & EPS_ON_STD)
            gamma_at = place_of(row, n_mid, outer_step, mid_step, n_gamma)
            beta_at = place_of(row, n_mid, outer_step, mid_step, n_beta)
            if not flags & GAMMA_COLS:
                for e in range(width):
                    g[e] = gamma[gamma_at]
            if not flags & BETA_COLS:
                for e in range(width):
                    b[e] = beta[beta_at]
            for v in range(n_units):
                j = first + v * lanes * width
                if j < n_inner:
                    if flags & GAMMA_COLS:
                        parameters(gamma, gamma_at + j, True, g)
                    if flags & BETA_COLS:
                        parameters(beta, beta_at + j, True, b)
                    expand(held, v * words, values)
                    for e in range(width):
                        values[e] = ((values[e] - centre) - low) * rstd * g[e] + b[e]
                    store(y, row * n_inner + j, values, True)

    return affine_planes, _parameters(kind), 512


@cache
def operand_loader(kind: str, vector: bool) -> Any:
    """``operand(p, row, ..., column, along, values)``: a row's parameters from `column` on, or its single one."""
    width, parameters = units(kind, vector).width, units(kind, vector).parameters

    @device
    def operand(p, row, n_mid, outer_step, mid_step, n, column, along, values):
        at = place_of(row, n_mid, outer_step, mid_step, n)
        if along:
            parameters(p, at + column, True, values)
        else:
            for e in range(width):
                values[e] = p[at]

    return operand


@_jit.kernel
def affine_columns(kind, vector):
    """Statistics along a row: `lanes` threads side by side take a unit each, for many rows."""
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    parameters, store, kept = unit.parameters, unit.store, ROWS_AT_ONCE * unit.words
    number, reciprocal = real(kind), reciprocal_std(kind)
    operand, one = operand_loader(kind, vector), number(1)

    def affine_columns(
        x, mean, rest, var, gamma, beta, y, n_rows, n_mid, n_inner, stat_outer, stat_mid, n_stat,
        outer_step, mid_step, n_gamma, n_beta, n_columns_blocks, lanes, n_chunks, rows_per_chunk, flags, eps,
    ):  # fmt: skip
        held = cuda.local.array(kept, word)
        values = cuda.local.array(width, number)
        centre = cuda.local.array(width, number)
        low = cuda.local.array(width, number)
        rstd = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        b = cuda.local.array(width, number)
        block = cuda.blockIdx.x
        if flags & REVERSED:
            block = cuda.gridDim.x - 1 - block
        chunk = int32(uint32(block) // n_columns_blocks)
        tile = block - chunk * int32(n_columns_blocks)
        line = int32(uint32(cuda.threadIdx.x) // uint32(lanes))
        lines = int32(uint32(cuda.blockDim.x) // uint32(lanes))
        column = (int64(tile) * lanes + cuda.threadIdx.x - line * lanes) * width
        row = int64(chunk) * rows_per_chunk + line
        last = min(n_rows, int64(chunk + 1) * rows_per_chunk)
        if column >= n_inner or line >= lines:
            return
        prepared = False
        while row < last:
            for u in range(ROWS_AT_ONCE):
                r = row + u * lines
                keep(load(x, r * n_inner + column, r < last), held, u * words)
            for u in range(ROWS_AT_ONCE):
                r = row + u * lines
                if r < last:
                    if not prepared or flags & STATISTICS_BY_ROW:
                        at = place_of(r, n_mid, stat_outer, stat_mid, n_stat) + column
                        parameters(mean, at, True, centre)
                        parameters(var, at, True, rstd)
                        parameters(rest, at, flags & READY != 0, low)
                        if not flags & READY:
                            for e in range(width):
                                rstd[e] = reciprocal(rstd[e], eps, one, flags & EPS_ON_STD)
                    if not prepared or flags & PARAMETERS_BY_ROW:
                        operand(gamma, r, n_mid, outer_step, mid_step, n_gamma, column, flags & GAMMA_COLS, g)
                        operand(beta, r, n_mid, outer_step, mid_step, n_beta, column, flags & BETA_COLS, b)
                    prepared = True
                    expand(held, u * words, values)
                    for e in range(width):
                        values[e] = ((values[e] - centre[e]) - low[e]) * rstd[e] * g[e] + b[e]
                    store(y, r * n_inner + column, values, True)
            row += ROWS_AT_ONCE * lines

    return affine_columns, _parameters(kind), COLUMN_THREADS
