"""Sums about a centre: the arithmetic that the kernels of all statistics share.

A set of numbers is kept as *sums*

    (n, c, k, a, al, b, bl):   a + al = 2**k * sum(x - c),   b + bl = 4**k * sum((x - c)**2)

with a centre `c` from among the numbers (so that nothing large cancels), every sum as an
unevaluated pair of high and low part (so that float32 is enough), and a scale `k` that
keeps squares in range for any finite x. Two sets merge by moving one to the other's
centre and scale and adding: there is no division before the very end.

:func:`numbanorm._recurrences.welford_combine` merges the float64 moments that leave a kernel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, float32, int32

from numbanorm.backends.cuda._intrinsics import exponent_of, power_of_two, product
from numbanorm.backends.cuda._jit import device

#: Members of a set of sums, as planes of scratch and of shared memory hold them.
N_SUMS = 7
#: Numbers of shared memory that a reduction over a block takes.
WARP_SUMS = N_SUMS * 32
#: Kinds whose squares may leave the range of the type that they are summed in.
SCALED = frozenset({"float32", "bfloat16"})
#: Largest |scale|, and the scale of a set of zeros (1e-30 is seen, 1e7 does not overflow).
MOST, UNKNOWN = 120, 40
#: Sums of scaled squares beyond this are scaled down before they can overflow.
LIMIT = float32(2.0**100)

FULL = 0xFFFFFFFF


@device
def two_sum(a, b):
    """a + b and its rounding error (Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


@device
def finite_or_zero(value):
    """The low part of an infinite sum is NaN, which must not reach the high part."""
    return value if value - value == value - value else float32(0)


@device
def add_pairs(a, al, b, bl):
    """Sum of two pairs, normalised; infinite if one is."""
    s, e = two_sum(a, b)
    e = finite_or_zero(e + (al + bl))
    high = s + e
    return high, finite_or_zero(e - (high - s))


@device
def moved(n, c, k, a, al, b, bl, centre, scale):
    """Sums (a, al, b, bl) about another centre, at another scale not above `k`."""
    ratio = power_of_two(max(int32(scale - k), int32(-126)))
    a, al, b, bl = a * ratio, al * ratio, b * ratio * ratio, bl * ratio * ratio
    d, dl = two_sum(c, -centre)
    unit = power_of_two(scale)
    d, dl = d * unit, dl * unit
    nd = product(n, d)
    ndl = cuda.fma(n, d, -nd) + n * dl
    t, tl = add_pairs(a + a, al + al, nd, ndl)
    p = product(d, t)
    pl = cuda.fma(d, t, -p) + (d * tl + dl * t)
    a, al = add_pairs(a, al, nd, ndl)
    b, bl = add_pairs(b, bl, p, pl)
    return a, al, b, bl


@device
def merged(n, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2):
    """The sums of two sets together, about the centre of the first that is not empty."""
    if n == float32(0):
        return n2, c2, k2, a2, al2, b2, bl2
    if n2 == float32(0):
        return n, c, k, a, al, b, bl
    scale = min(k, k2)
    ratio = power_of_two(max(int32(scale - k), int32(-126)))
    a2, al2, b2, bl2 = moved(n2, c2, k2, a2, al2, b2, bl2, c, scale)
    a, al = add_pairs(a * ratio, al * ratio, a2, al2)
    b, bl = add_pairs(b * ratio * ratio, bl * ratio * ratio, b2, bl2)
    return n + n2, c, scale, a, al, b, bl


@device
def scale_for(largest, centre):
    """The scale for numbers that differ from their centre by at most `largest` (so far).

    Equal numbers may be followed by neighbours that differ in the last bit, and zeros by anything.
    """
    e = max(exponent_of(largest), int32(exponent_of(centre) - 24))
    return int32(UNKNOWN) if e <= int32(-127) else min(max(int32(-e), int32(-MOST)), int32(MOST))


@device
def quotient(a, al, n, nl, inverse):
    """(a + al) / (n + nl) as a pair, given 1 / n to working precision."""
    q = a * inverse
    r = (cuda.fma(-q, n, a) - q * nl) + al
    return q, finite_or_zero(r * inverse)


@device
def mean_of(c, k, q, ql):
    """The mean as a pair: the centre plus the mean difference (q, ql) from it."""
    unit = power_of_two(int32(-k))
    high, low = two_sum(c, q * unit)
    low = finite_or_zero(low + ql * unit)
    mean = high + low
    return mean, finite_or_zero(low - (mean - high))


@device
def m2_of(a, al, b, bl, q, ql):
    """Scaled sum of squares about the mean as a pair, never negative, given q = a / n."""
    p = product(q, a)
    pl = cuda.fma(q, a, -p) + (q * al + ql * a)
    m2, m2l = add_pairs(b, bl, -p, -pl)
    if m2 < float32(0):
        m2, m2l = m2 - m2, m2 - m2
    return m2, m2l


@device
def scaled_variance(m2, m2l, inverse, inversel):
    """m2 times the inverse divisor, which is infinite where the divisor is zero."""
    v = product(m2, inverse)
    exact = v + (cuda.fma(m2, inverse, -v) + (m2 * inversel + m2l * inverse))
    return exact if exact == exact else v


@cache
def over_lanes(lanes: int, scaled: bool) -> Any:
    """``reduce(sums)``: the sums of each group of `lanes` neighbouring lanes, in all of them.

    Every lane of the warp must take part. Centre and scale are those of the first lane's set
    and of the coarsest one.
    """
    levels = lanes.bit_length() - 1

    @device
    def reduce_lanes(n, c, k, a, al, b, bl):
        if levels > 0:
            centre = cuda.shfl_sync(FULL, c, cuda.laneid & ~(lanes - 1))
            scale = k
            if scaled:
                for level in range(levels):
                    scale = min(scale, cuda.shfl_xor_sync(FULL, scale, 1 << level))
            a, al, b, bl = moved(n, c, k, a, al, b, bl, centre, scale)
            c, k = centre, scale
            for level in range(levels):
                bits = 1 << level
                n = n + cuda.shfl_xor_sync(FULL, n, bits)
                a, al = add_pairs(a, al, cuda.shfl_xor_sync(FULL, a, bits), cuda.shfl_xor_sync(FULL, al, bits))
                b, bl = add_pairs(b, bl, cuda.shfl_xor_sync(FULL, b, bits), cuda.shfl_xor_sync(FULL, bl, bits))
        return n, c, k, a, al, b, bl

    return reduce_lanes


@cache
def over_block(threads: int, scaled: bool, number: Any) -> Any:
    """``reduce(sums, shared)``: the sums of a whole block, in its first warp.

    `shared` holds ``WARP_SUMS`` numbers; between two uses of it there must be a barrier.
    """
    n_warps = threads // 32
    reduce_warp = over_lanes(32, scaled)

    @device
    def reduce_block(n, c, k, a, al, b, bl, shared):
        n, c, k, a, al, b, bl = reduce_warp(n, c, k, a, al, b, bl)
        t = cuda.threadIdx.x
        if t & 31 == 0:
            store_sums(shared, t >> 5, 32, n, c, number(k), a, al, b, bl)
        cuda.syncthreads()
        if t < 32:
            zero = number(0)
            n, c, k, a, al, b, bl = zero, zero, int32(MOST), zero, zero, zero, zero
            if t < n_warps:
                n, c, k, a, al, b, bl = load_sums(shared, t, 32)
            n, c, k, a, al, b, bl = reduce_warp(n, c, k, a, al, b, bl)
        return n, c, k, a, al, b, bl

    return reduce_block


@device
def store_sums(planes, at, stride, n, c, k, a, al, b, bl):
    """Write sums to planes that lie `stride` apart; `k` as a real."""
    planes[at] = n
    planes[at + stride] = c
    planes[at + 2 * stride] = k
    planes[at + 3 * stride] = a
    planes[at + 4 * stride] = al
    planes[at + 5 * stride] = b
    planes[at + 6 * stride] = bl


@device
def load_sums(planes, at, stride):
    """Read what `store_sums` wrote."""
    return (
        planes[at],
        planes[at + stride],
        int32(planes[at + 2 * stride]),
        planes[at + 3 * stride],
        planes[at + 4 * stride],
        planes[at + 5 * stride],
        planes[at + 6 * stride],
    )
