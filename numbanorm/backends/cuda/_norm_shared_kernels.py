"""Norms of rows that fit in a block's shared memory; see :mod:`._norm_rows_kernels` for the layout.

Every thread parks the units that it loaded and reads only those again, so shared memory
serves as more registers: no barriers, and word k of all threads side by side, no conflicts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import two_sum
from numbanorm.backends.cuda._intrinsics import forgotten, product, real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import (
    EPS_ON_STD,
    FULL,
    KEEP_STATISTICS,
    USE_MEAN,
    added,
    choose_scale,
    quotient,
    reciprocal_std,
    team_sums,
)
from numbanorm.backends.cuda._norm_rows_kernels import (
    most_threads,
    normalised,
    on_chip_parameters,
    segment_of,
    square_sums,
    statistics_keeper,
    variance,
)
from numbanorm.backends.cuda._vectors import units

#: Units that a thread has in flight.
AT_ONCE = 4

int64 = types.int64


@cache
def taker(kind: str, vector: bool) -> Any:
    """``take(parked, place, lanes, held)``: one unit that this thread parked."""
    words = units(kind, vector).words

    @device
    def take(parked, place, lanes, held):
        for k in range(words):
            held[k] = parked[place + k * lanes]

    return take


@cache
def parker(kind: str, vector: bool) -> Any:
    """``high, low = park(x, parked, held, values, ...)``: a thread's units of a row from memory, and their sum."""
    unit = units(kind, vector)
    width, words, load, keep, expand = unit.width, unit.words, unit.load, unit.keep, unit.expand
    total_of, zero = added(kind, width), real(kind)(0)

    @device
    def park(x, parked, held, values, start, n_cols, gap, magic, shift, lane, lanes):
        high, low = zero, zero
        step, place = lanes * width, lane
        for first_j in range(lane * width, n_cols, AT_ONCE * step):
            for v in range(AT_ONCE):
                j = first_j + v * step
                keep(load(x, start + j + segment_of(j, magic, shift) * gap, j < n_cols), held, v * words)
            for v in range(AT_ONCE):
                if first_j + v * step < n_cols:
                    expand(held, v * words, values)
                    high, error = two_sum(high, total_of(values))
                    low += error
                    for k in range(words):
                        parked[place + k * lanes] = held[v * words + k]
                    place += words * lanes
        return high, low

    return park


@cache
def parked_sums(kind: str, vector: bool) -> tuple[Any, Any]:
    """``high, low = total(...)`` and ``var, rest, m2 = about(..., mean, ...)`` of the parked row times `scale`.

    `rest` is what the mean lacks, m2 the sum of squares about it.
    """
    unit = units(kind, vector)
    width, words, expand, take = unit.width, unit.words, unit.expand, taker(kind, vector)
    total_of, add = added(kind, width), square_sums(kind, vector)
    triple, finish, zero = team_sums(kind, True), variance(kind), real(kind)(0)

    @device
    def total(parked, held, values, scale, n_cols, lane, lanes):
        high, low = zero, zero
        place = lane
        for _ in range(lane * width, n_cols, lanes * width):
            take(parked, place, lanes, held)
            place += words * lanes
            expand(held, 0, values)
            high, error = two_sum(high, product(total_of(values), scale))
            low += error
        return high, low

    @device
    def about(parked, held, values, scale, mean, n_cols, lane, lanes, flags, buffers, n, inverse):
        total, high, low = zero, zero, zero
        place = lane
        for _ in range(lane * width, n_cols, lanes * width):
            take(parked, place, lanes, held)
            place += words * lanes
            expand(held, 0, values)
            total, high, low = add(values, scale, mean, total, high, low)
        total, high, low = triple(total, high, low, lanes, buffers[1])
        return finish(total, high, low, n, inverse, flags & USE_MEAN)

    return total, about


@_jit.kernel
def norm_rows_shared(kind, vector):
    """Rows in shared memory: each block takes one row."""
    unit = units(kind, vector)
    width, words, word, expand, store = unit.width, unit.words, unit.word, unit.expand, unit.store
    kept, number, take, park = AT_ONCE * unit.words, real(kind), taker(kind, vector), parker(kind, vector)
    pair, keep_row, (total, about) = team_sums(kind, False), statistics_keeper(kind), parked_sums(kind, vector)
    choose, reciprocal, write = choose_scale(kind), reciprocal_std(kind), normalised(kind, vector)
    zero, one = number(0), number(1)

    def norm_rows_shared(
        x, gamma, beta, y, first, second, n_rows, n_cols, stride, gap, magic, shift,
        n_gamma, n_beta, row_step, segment_step, lanes, flags, count, inverse, tiny, eps,
    ):  # fmt: skip
        buffers = cuda.shared.array((2, 96), number)
        parked = cuda.shared.array(0, word)
        held = cuda.local.array(kept, word)
        values = cuda.local.array(width, number)
        lane = cuda.threadIdx.x
        row = int64(cuda.blockIdx.x)
        high, low = park(x, parked, held, values, row * stride, n_cols, gap, magic, shift, lane, lanes)

        scale = one
        mean = zero
        if flags & USE_MEAN:
            _, high, low = pair(zero, high, low, lanes, buffers[0])
            mean = quotient(high, low, count, inverse)
        var, rest, m2 = about(parked, held, values, scale, mean, n_cols, lane, lanes, flags, buffers, count, inverse)
        better = choose(m2, mean, tiny)
        if cuda.any_sync(FULL, better != scale):
            scale = better
            cuda.syncthreads()
            if flags & USE_MEAN:
                high, low = total(parked, held, values, scale, n_cols, lane, lanes)
                _, high, low = pair(zero, high, low, lanes, buffers[0])
                mean = quotient(high, low, count, inverse)
            var, rest, m2 = about(
                parked, held, values, scale, mean, n_cols, lane, lanes, flags, buffers, count, inverse
            )

        rstd = reciprocal(var, eps, scale, flags & EPS_ON_STD)
        row, lane, step = forgotten(row), forgotten(lane), forgotten(lanes * width)
        if flags & KEEP_STATISTICS and lane == 0:
            keep_row(first, second, row, flags, mean, rest, var, rstd, scale)
        place = lane
        for j in range(lane * width, n_cols, step):
            take(parked, place, lanes, held)
            place += words * lanes
            expand(held, 0, values)
            write(
                values, row, j, scale, mean, rest, rstd, gamma, beta,
                n_gamma, n_beta, row_step, segment_step, magic, shift, flags,
            )  # fmt: skip
            store(y, row * stride + j + segment_of(j, magic, shift) * gap, values, True)

    return norm_rows_shared, on_chip_parameters(kind), most_threads(kind)
