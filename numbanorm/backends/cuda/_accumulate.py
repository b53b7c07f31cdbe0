"""From elements in registers to sums about a centre (see :mod:`._arithmetic`), for each kind.

The first elements that a thread meets give it its centre (their mean) and its scale. After
that an element costs about eight instructions: one for the difference, one to three for
the sum of differences, four for the sum of squares with its rounding error.

A thread's running state is ``(scale, shift, a, al, b, bl)``: a power of two, the centre at
that scale, and the two sums as pairs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32
from numba.cuda import libdevice

from numbanorm.backends.cuda._arithmetic import LIMIT, MOST, SCALED, scale_for, two_sum
from numbanorm.backends.cuda._intrinsics import exponent_of, power_of_two, product, real
from numbanorm.backends.cuda._jit import device


@cache
def ratio(kind: str) -> Any:
    """``ratio(a, b)``: a / b, roughly."""
    if kind == "float64":
        return device(lambda a, b: a / b)
    return device(lambda a, b: libdevice.fast_fdividef(a, b))


@cache
def starter(kind: str, count: int, stride: int) -> Any:
    """``start(x, first, present)``: centre, scale and shift for values of which `present` are there.

    Those that are not there must be zero.
    """
    number = real(kind)
    divide = ratio(kind)
    scaled = kind in SCALED

    @device
    def start(x, first, present):
        total = number(0)
        for e in range(count):
            total += x[first + e * stride]
        centre = divide(total, max(present, number(1)))
        if centre - centre != number(0):
            centre = number(0)
        scale = number(1)
        if scaled:
            largest = number(0)
            for e in range(count):
                distance = abs(x[first + e * stride] - centre)
                # Values that are not there count as zeros, which can only make the scale coarser.
                if distance > largest:
                    largest = distance
            scale = power_of_two(scale_for(largest, centre))
        return centre, scale, centre * scale

    return start


@cache
def adder(kind: str, count: int, stride: int, careful: bool) -> Any:
    """``add(x, first, scale, shift, a, al, b, bl)``: the state with `count` more values.

    With `careful`, differences and their sum are exact too: for rows so short that single
    roundings show.
    """
    number = real(kind)

    @device
    def quick(x, first, scale, shift, a, al, b, bl):
        s0, s1, s2, s3 = number(0), number(0), number(0), number(0)
        for e in range(first, first + count * stride, 4 * stride):
            d0 = cuda.fma(x[e], scale, -shift)
            d1 = cuda.fma(x[e + stride], scale, -shift)
            d2 = cuda.fma(x[e + 2 * stride], scale, -shift)
            d3 = cuda.fma(x[e + 3 * stride], scale, -shift)
            s0, s1, s2, s3 = s0 + d0, s1 + d1, s2 + d2, s3 + d3
            # The sum is at least d * d but for the first few, so t - b is exact and the loss is known.
            t0 = cuda.fma(d0, d0, b)
            t1 = cuda.fma(d1, d1, t0)
            t2 = cuda.fma(d2, d2, t1)
            t3 = cuda.fma(d3, d3, t2)
            lost = cuda.fma(d0, d0, b - t0) + cuda.fma(d1, d1, t0 - t1)
            bl += lost + (cuda.fma(d2, d2, t1 - t2) + cuda.fma(d3, d3, t2 - t3))
            b = t3
        a, lost = two_sum(a, (s0 + s1) + (s2 + s3))
        return scale, shift, a, al + lost, b, bl

    @device
    def exact(x, first, scale, shift, a, al, b, bl):
        for e in range(count):
            d, dl = two_sum(product(x[first + e * stride], scale), -shift)
            t = cuda.fma(d, d, b)
            bl += cuda.fma(d, d, -(t - b)) + (d + d) * dl
            b = t
            a, lost = two_sum(a, d)
            al += lost + dl
        return scale, shift, a, al, b, bl

    once = exact if careful else quick
    return rescaling(once, number, count, stride) if kind in SCALED else once


def rescaling(once: Any, number: Any, count: int, stride: int) -> Any:
    """`once`, and again at a coarser scale where the squares would leave the range."""

    @device
    def in_range(x, first, scale, shift, a, al, b, bl):
        s, h, a2, al2, b2, bl2 = once(x, first, scale, shift, a, al, b, bl)
        if not b2 <= LIMIT:
            # Rare: these numbers dwarf the thread's first ones. Scale down and add them again.
            largest = number(0)
            for e in range(count):
                largest = max(largest, abs(x[first + e * stride]))
            e = exponent_of(largest)
            if e < int32(128):
                old = exponent_of(scale)
                new = min(old, max(int32(-e), int32(-MOST)))
                r = power_of_two(max(int32(new - old), int32(-126)))
                centre = shift * power_of_two(int32(-old))
                s, h = power_of_two(new), centre * power_of_two(new)
                s, h, a2, al2, b2, bl2 = once(x, first, s, h, a * r, al * r, b * r * r, bl * r * r)
        return s, h, a2, al2, b2, bl2

    return in_range
