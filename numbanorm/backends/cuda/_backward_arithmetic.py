"""Gradients of a set of numbers: its sums, what follows from them, and dx of an element.

Kernels see ``xhat0 = (x - mean) * rstd`` with the mean as it was given, which may have been
rounded to float32. What the rounding left out is the mean of those very numbers, so their sum is
taken along. With ``g = dy * gamma``, sums (a, b, c) of g, g * xhat0 and xhat0 over a set, and
their means where statistics depend on x::

    low = c / n,  v = (b - low * a) / (n - ddof) / (1 - std_eps * rstd)
    dx = dy * (gamma * rstd) + xhat0 * slope + constant
    slope = -v * rstd,  constant = (low * v - a / n) * rstd

Numbers that a thread adds up by itself are few: at most 80 rows of a column, or a unit's
elements, whose sums are then added as pairs or over threads as a tree.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda._accumulate import ratio
from numbanorm.backends.cuda._intrinsics import real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import FULL, PER_ELEMENT, USE_MEAN, compute_kind

int32, int64, uint32 = types.int32, types.int64, types.uint32

#: Further bits of `flags`. Gamma lies along columns; one parameter serves a whole set; statistics
#: do not depend on x; dgamma or dbeta are wanted; dx is wanted; a mean's low part is there.
GAMMA_ALONG, ONE_PARAMETER, FIXED, WANT_SUMS, WANT_DX, HAS_REST = (1 << k for k in range(16, 22))

__all__ = ["FULL", "PER_ELEMENT", "USE_MEAN"]


def scale_parameters(kind: str) -> tuple[Any, ...]:
    """Types of what :func:`scale_arguments` gives, as parameters of a kernel."""
    return (real(kind),) * 3


def scale_arguments(kind: str, count: int, ddof: float, std_eps: float) -> tuple[Any, ...]:
    """1 / n, ``1 / (n - ddof)`` and the eps that was added to the standard deviation, as a kernel takes them."""
    number = np.dtype(compute_kind(kind)).type
    degrees = count - ddof
    return number(1 / count), number(1 / degrees if degrees else np.inf), number(std_eps)


@cache
def through_statistics(kind: str) -> Any:
    """``(low, slope, constant)`` from the sums (a, b, c) of a set; see the head of this file."""
    number = real(kind)
    zero, one = number(0), number(1)
    divide = ratio(kind)

    @device
    def finish(a, b, c, rstd, flags, inverse, degrees, std_eps):
        low, through_mean = zero, zero
        if flags & USE_MEAN:
            low = c * inverse
            through_mean = a * inverse
        v = (b - low * a) * degrees
        if std_eps > zero:
            # std / (std + eps); a set of equal numbers has none, and an xhat of zero.
            share = one - std_eps * rstd
            v = divide(v, share) if share > zero else zero
        return low, -v * rstd, (low * v - through_mean) * rstd

    return finish


@cache
def team_totals(kind: str) -> Any:
    """``totals(a, b, c, lanes, buffer)``: three sums over each team, in every thread, the same bits in all.

    A team is as in :mod:`._norm_arithmetic`; `buffer` is shared memory for 96 numbers. What comes
    before should have no branches that look divergent: they cost calls, and registers, here.
    """
    zero = real(kind)(0)

    @device
    def within_warp(a, b, c, lanes):
        for bits in (16, 8, 4, 2, 1):
            other_a = cuda.shfl_xor_sync(FULL, a, bits)
            other_b = cuda.shfl_xor_sync(FULL, b, bits)
            other_c = cuda.shfl_xor_sync(FULL, c, bits)
            a += other_a if lanes > bits else zero
            b += other_b if lanes > bits else zero
            c += other_c if lanes > bits else zero
        return a, b, c

    @device
    def totals(a, b, c, lanes, buffer):
        a, b, c = within_warp(a, b, c, lanes)
        if lanes > 32:
            lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
            # All lanes write the same: one that branched off would look lost to the shuffles of the next round.
            buffer[warp] = a
            buffer[32 + warp] = b
            buffer[64 + warp] = c
            cuda.syncthreads()
            there = lane < lanes >> 5
            a = buffer[lane] if there else zero
            b = buffer[32 + lane] if there else zero
            c = buffer[64 + lane] if there else zero
            a, b, c = within_warp(a, b, c, 32)
        return a, b, c

    return totals


@cache
def set_statistics(kind: str) -> Any:
    """``(mean, rstd) = statistics(mean, rstd, i, there, flags)``; the first set's for one that is not there."""
    zero = real(kind)(0)

    @device
    def statistics(mean, rstd, i, there, flags):
        # Zeros of dy need no zeros here; and a condition that threads do not share would be a branch.
        at = i if there else int64(0)
        centre = mean[at]
        return centre if flags & USE_MEAN else zero, rstd[at]

    return statistics


@device
def remainder(i, step, n):
    """``i * step % n`` in 32 bits where that is enough: 64-bit division takes a hundred instructions."""
    product = i * int64(step)
    if product < int64(1 << 32):
        return int64(uint32(product) % uint32(n))
    return product % int64(n)


@device
def quotient_of(i, n):
    """``i // n`` likewise."""
    if i < int64(1 << 32):
        return int64(uint32(i) // uint32(n))
    return i // int64(n)
