"""Sums over teams of threads, and what becomes of them: mean, variance, 1 / std.

A *team* is 1, 2, 4, ... 32 neighbouring threads of a warp, or a whole block. Sums that
matter are pairs ``(high, low)`` (two-sum); butterflies give every thread the same bits.

*Scales*: a row is summed as it is. Only where its squares then overflowed or underflowed, it
is summed again, multiplied by a power of two; what is written comes from the scaled row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32
from numba.cuda import libdevice

from numbanorm.backends.cuda._arithmetic import two_sum
from numbanorm.backends.cuda._intrinsics import product, real
from numbanorm.backends.cuda._jit import device

FULL = 0xFFFFFFFF

#: Bits of `flags`.
USE_MEAN, EPS_ON_STD, KEEP_STATISTICS, KEEP_VARIANCE, GAMMA_COLS, BETA_COLS, PER_ELEMENT = (1 << k for k in range(7))


@dataclass(frozen=True)
class Range:
    """Powers of two that keep squares of a dtype's finite numbers within range."""

    #: Factors of a row that overflowed and of one that underflowed, and their reciprocals.
    down: float
    up: float
    #: A variance below this has lost bits; above `shadow`, eps hides it.
    tiny: float
    shadow: float
    #: A mean from here on has no neighbours so near that their variance would be tiny.
    far: float
    #: Stands for eps where the scaled one vanishes, so that 0 / 0 does not arise.
    least: float


RANGES = {
    "float32": Range(2.0**-80, 2.0**90, 2.0**-100, 2.0**-70, 2.0**30, 2.0**-120),
    "float64": Range(2.0**-600, 2.0**600, 2.0**-900, 2.0**-840, 2.0**400, 2.0**-1000),
}


def compute_kind(kind: str) -> str:
    """The dtype in which a dtype is computed with."""
    return "float64" if kind == "float64" else "float32"


def least_squares_sum(kind: str, count: int, eps: float, eps_on_std: bool) -> float:
    """Sums of squares of `count` numbers below this are taken again, scaled; 0 where eps hides them."""
    limits = RANGES[compute_kind(kind)]
    hidden = eps > limits.tiny**0.5 * 2.0**26 if eps_on_std else eps > limits.shadow
    return 0.0 if hidden else count * limits.tiny


@device
def quotient(high, low, count, inverse):
    """(high + low) / count, correctly rounded but for rare ties; `inverse` is 1 / count."""
    first = high * inverse
    rest = cuda.fma(-first, count, high) + low
    return cuda.fma(rest, inverse, first)


@cache
def added(kind: str, width: int) -> Any:
    """The sum of `width` values, pairwise."""

    @device
    def added1(v):
        return v[0]

    @device
    def added2(v):
        return v[0] + v[1]

    @device
    def added4(v):
        return (v[0] + v[1]) + (v[2] + v[3])

    @device
    def added8(v):
        return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))

    return {1: added1, 2: added2, 4: added4, 8: added8}[width]


@cache
def team_sums(kind: str, plain: bool) -> Any:
    """``sums(total, high, low, lanes, buffer)`` over each team, in every thread.

    `high` and `low` are a pair; `total` is a plain sum, taken along only if `plain`. `buffer` is
    shared memory for 96 numbers; a team larger than a warp is the block.
    """
    zero = real(kind)(0)

    @device
    def within_warp(total, high, low, lanes):
        # All lanes shuffle in every step, whatever the team: branches that look divergent cost calls.
        for bits in (16, 8, 4, 2, 1):
            other = cuda.shfl_xor_sync(FULL, high, bits)
            rest = cuda.shfl_xor_sync(FULL, low, bits)
            if plain:
                more = cuda.shfl_xor_sync(FULL, total, bits)
                total += more if lanes > bits else zero
            high, error = two_sum(high, other if lanes > bits else zero)
            low = (low + (rest if lanes > bits else zero)) + error
        return total, high, low

    @device
    def sums(total, high, low, lanes, buffer):
        total, high, low = within_warp(total, high, low, lanes)
        if lanes > 32:
            lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
            if lane == 0:
                buffer[warp] = high
                buffer[32 + warp] = low
                buffer[64 + warp] = total
            cuda.syncthreads()
            there = lane < lanes >> 5
            high = buffer[lane] if there else zero
            low = buffer[32 + lane] if there else zero
            total = buffer[64 + lane] if there else zero
            total, high, low = within_warp(total, high, low, 32)
        return total, high, low

    return sums


@cache
def choose_scale(kind: str) -> Any:
    """``choose(m2, mean, tiny)``: 1 if the sums stand, else the power of two to begin again with."""
    number = real(kind)
    limits = RANGES[compute_kind(kind)]
    one, down, up, far = number(1), number(limits.down), number(limits.up), number(limits.far)

    @device
    def choose(m2, mean, tiny):
        if m2 - m2 != m2 - m2:
            return down
        if m2 < tiny and -far < mean < far:
            return up
        return one

    return choose


@device
def _reciprocal_root32(v):
    """1 / sqrt(v), to the last bit but for rare ties: the hardware's estimate and a Newton step.

    Without IEEE's square root and division, whose rare cases are calls that cost registers.
    """
    r = libdevice.rsqrtf(v)
    if float32(0) < r < float32(np.inf):
        p = product(v, r)
        error = cuda.fma(-p, r, float32(1)) - cuda.fma(v, r, -p) * r
        r = cuda.fma(float32(0.5) * r, error, r)
    return r


@device
def _reciprocal_root64(v):
    """1 / sqrt(v)."""
    return libdevice.rsqrt(v)


@cache
def reciprocal_std(kind: str) -> Any:
    """``reciprocal(var, eps, scale, on_std)``: 1 / std of a row that was multiplied by `scale`.

    :func:`numbanorm._recurrences.reciprocal_std`, whose ufuncs CUDA does not have.
    """
    number = real(kind)
    zero, one, least = number(0), number(1), number(RANGES[compute_kind(kind)].least)
    reciprocal_root = _reciprocal_root64 if kind == "float64" else _reciprocal_root32

    @device
    def reciprocal(var, eps, scale, on_std):
        small = product(eps, scale)
        if on_std:
            std = var
            if zero < var < number(np.inf):
                std = var * reciprocal_root(var)
            std = std + small
            r = reciprocal_root(std)
            r = r * r
            if zero < r < number(np.inf):
                r = cuda.fma(r, cuda.fma(-std, r, one), r)
            return r
        small = product(small, scale)
        if scale < one:
            small = max(small, least)
        return reciprocal_root(var + small)

    return reciprocal
