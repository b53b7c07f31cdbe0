"""Norms of rows that fit on chip: x is read once, in units of 16 bytes where it can be.

A row has `n_cols` elements in segments of equal length, `gap` elements apart: for rows and
groups the gap is zero; a channel of (n, n_channels, n_inner) is a row of n segments. Element
j lies ``j + (j // segment) * gap`` from the row's start; see :func:`segment_of` for the division.

Parameters are per column (``GAMMA_COLS``, ``BETA_COLS``), or element j of row r has number
``(r * row_step + j // segment * segment_step) % n_parameters``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import two_sum
from numbanorm.backends.cuda._intrinsics import forgotten, pointer, product, real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import (
    BETA_COLS,
    EPS_ON_STD,
    FULL,
    GAMMA_COLS,
    KEEP_STATISTICS,
    KEEP_VARIANCE,
    PER_ELEMENT,
    RANGES,
    USE_MEAN,
    added,
    choose_scale,
    compute_kind,
    quotient,
    reciprocal_std,
    team_sums,
)
from numbanorm.backends.cuda._vectors import units

int32, int64, uint32, uint64 = types.int32, types.int64, types.uint32, types.uint64


def on_chip_parameters(kind: str) -> tuple[Any, ...]:
    """Types of the parameters that both kernels below have."""
    number = real(kind)
    x, parameter = pointer(kind), pointer(compute_kind(kind))
    arrays = (x, parameter, parameter, x, parameter, parameter)
    layout = (int64, int32, int64, int64, uint32, int32)
    return (*arrays, *layout, int32, int32, int32, int32, int32, int32, number, number, number, number)


def most_threads(kind: str) -> int:
    """The bound for the compiler: 64 registers a thread, or 128 of them for float64."""
    return 512 if kind == "float64" else 1024


@device
def segment_of(j, magic, shift):
    """``j // segment`` for 0 <= j < 2**31 by a multiplication; magic 0 means one segment."""
    return int32((uint64(j) * uint64(magic)) >> uint64(shift))


@cache
def statistics_keeper(kind: str) -> Any:
    """``keep(first, second, row, flags, ...)``: (mean, rstd) or (mean, var) of a row that was scaled."""
    number, limits = real(kind), RANGES[compute_kind(kind)]
    one, up, from_up, from_down = (number(v) for v in (1, limits.up, 1 / limits.up, 1 / limits.down))

    @device
    def keep(first, second, row, flags, mean, rest, var, rstd, scale):
        back = one if scale == one else (from_up if scale == up else from_down)
        first[row] = (mean + rest) * back
        second[row] = var * back * back if flags & KEEP_VARIANCE else rstd * scale

    return keep


@device
def segment_parameters(p, n, row, row_step, segment_step, j, width, magic, shift, flags, values):
    """The parameters of `width` elements of a row from j on, constant in each segment."""
    if n == 1:
        value = p[0]
        for e in range(width):
            values[e] = value
    else:
        first = int32(uint32(uint32(row) * uint32(row_step)) % uint32(n))
        if flags & PER_ELEMENT:
            for e in range(width):
                values[e] = p[first + segment_step * segment_of(j + e, magic, shift)]
        else:
            value = p[first + segment_step * segment_of(j, magic, shift)]
            for e in range(width):
                values[e] = value


@cache
def square_sums(kind: str, vector: bool) -> Any:
    """``add(values, scale, mean, total, high, low)``: one more unit's deviations and their squares."""
    width = units(kind, vector).width

    @device
    def add(values, scale, mean, total, high, low):
        d = cuda.fma(values[0], scale, -mean)
        deviations = d
        squares = product(d, d)
        for e in range(1, width):
            d = cuda.fma(values[e], scale, -mean)
            deviations += d
            squares = cuda.fma(d, d, squares)
        high, error = two_sum(high, squares)
        return total + deviations, high, low + error

    return add


@cache
def variance(kind: str) -> Any:
    """``var, rest, m2 = variance(total, high, low, count, inverse, use_mean)`` from sums about a first mean.

    `rest` is what that mean lacked.
    """
    zero = real(kind)(0)

    @device
    def finish(total, high, low, count, inverse, use_mean):
        rest = total * inverse if use_mean else zero
        m2, error = two_sum(high, low - product(rest, total) if use_mean else low)
        if m2 < zero:
            m2 = zero
            error = zero
        return quotient(m2, error, count, inverse), rest, m2

    return finish


@cache
def normalised(kind: str, vector: bool) -> Any:
    """``write(values, row, j, scale, mean, rest, rstd, gamma, beta, ...)``: a unit normalised in place."""
    width, parameters = units(kind, vector).width, units(kind, vector).parameters
    number = real(kind)

    @device
    def write(
        values, row, j, scale, mean, rest, rstd, gamma, beta,
        n_gamma, n_beta, row_step, segment_step, magic, shift, flags,
    ):  # fmt: skip
        g = cuda.local.array(width, number)
        b = cuda.local.array(width, number)
        if flags & GAMMA_COLS:
            parameters(gamma, int64(j), True, g)
        else:
            segment_parameters(gamma, n_gamma, row, row_step, segment_step, j, width, magic, shift, flags, g)
        if flags & BETA_COLS:
            parameters(beta, int64(j), True, b)
        else:
            segment_parameters(beta, n_beta, row, row_step, segment_step, j, width, magic, shift, flags, b)
        for e in range(width):
            d = cuda.fma(values[e], scale, -mean) - rest
            values[e] = d * rstd * g[e] + b[e]

    return write


@cache
def held_statistics(kind: str, vector: bool, n_units: int) -> Any:
    """``mean, rest, var, m2 = statistics(held, ...)`` of the row that a team holds in registers, times `scale`.

    `rest` is what the mean lacks, m2 the sum of squares about it.
    """
    unit = units(kind, vector)
    width, words, expand, kept = unit.width, unit.words, unit.expand, n_units * unit.words
    total_of, add = added(kind, width), square_sums(kind, vector)
    pair, triple, finish = team_sums(kind, False), team_sums(kind, True), variance(kind)
    zero = real(kind)(0)

    @device
    def statistics(held, values, scale, n_cols, lane, lanes, flags, buffers, count, inverse):
        mean = zero
        if flags & USE_MEAN:
            high, low = zero, zero
            for k in range(kept):
                held[k] = forgotten(held[k])
            for v in range(n_units):
                expand(held, v * words, values)
                high, error = two_sum(high, product(total_of(values), scale))
                low += error
            _, high, low = pair(zero, high, low, lanes, buffers[0])
            mean = quotient(high, low, count, inverse)
        total, high, low = zero, zero, zero
        for k in range(kept):
            held[k] = forgotten(held[k])
        for v in range(n_units):
            if (v * lanes + lane) * width < n_cols:
                expand(held, v * words, values)
                total, high, low = add(values, scale, mean, total, high, low)
        total, high, low = triple(total, high, low, lanes, buffers[1])
        var, rest, m2 = finish(total, high, low, count, inverse, flags & USE_MEAN)
        return mean, rest, var, m2

    return statistics


@_jit.kernel
def norm_rows_registers(kind, vector, n_units):
    """Rows in registers: each team of `lanes` threads takes one row of at most n_units * lanes units."""
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    store, kept, number = unit.store, n_units * unit.words, real(kind)
    statistics, keep_row = held_statistics(kind, vector, n_units), statistics_keeper(kind)
    choose, reciprocal, write = choose_scale(kind), reciprocal_std(kind), normalised(kind, vector)
    one = number(1)

    def norm_rows_registers(
        x, gamma, beta, y, first, second, n_rows, n_cols, stride, gap, magic, shift,
        n_gamma, n_beta, row_step, segment_step, lanes, flags, count, inverse, tiny, eps,
    ):  # fmt: skip
        buffers = cuda.shared.array((2, 96), number)
        held = cuda.local.array(kept, word)
        values = cuda.local.array(width, number)
        teams = uint32(cuda.blockDim.x) // uint32(lanes)
        team = uint32(cuda.threadIdx.x) // uint32(lanes)
        lane = int32(cuda.threadIdx.x - team * lanes)
        row = int64(cuda.blockIdx.x) * int64(teams) + int64(team)
        for v in range(n_units):
            j = (v * lanes + lane) * width
            at = row * stride + j + segment_of(j, magic, shift) * gap
            keep(load(x, at, row < n_rows and j < n_cols), held, v * words)

        scale = one
        mean, rest, var, m2 = statistics(held, values, scale, n_cols, lane, lanes, flags, buffers, count, inverse)
        better = choose(m2, mean, tiny)
        if cuda.any_sync(FULL, better != scale):
            scale = better
            if lanes > 32:
                cuda.syncthreads()
            mean, rest, var, m2 = statistics(held, values, scale, n_cols, lane, lanes, flags, buffers, count, inverse)

        rstd = reciprocal(var, eps, scale, flags & EPS_ON_STD)
        row, lane = forgotten(row), forgotten(lane)
        if row < n_rows:
            if flags & KEEP_STATISTICS and lane == 0:
                keep_row(first, second, row, flags, mean, rest, var, rstd, scale)
            for k in range(kept):
                held[k] = forgotten(held[k])
            for v in range(n_units):
                j = (v * lanes + lane) * width
                if j < n_cols:
                    expand(held, v * words, values)
                    write(
                        values, row, j, scale, mean, rest, rstd, gamma, beta,
                        n_gamma, n_beta, row_step, segment_step, magic, shift, flags,
                    )  # fmt: skip
                    store(y, row * stride + j + segment_of(j, magic, shift) * gap, values, True)

    return norm_rows_registers, on_chip_parameters(kind), most_threads(kind)
