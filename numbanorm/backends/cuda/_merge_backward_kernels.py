"""What becomes of the parts of sums: dgamma and dbeta, and the operands of dx.

Every kernel adds in an order that shapes alone decide, in pairs of high and low part.
"""

from __future__ import annotations

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import two_sum
from numbanorm.backends.cuda._backward_arithmetic import (
    FIXED,
    FULL,
    GAMMA_ALONG,
    HAS_REST,
    int32,
    int64,
    remainder,
    scale_parameters,
    through_statistics,
)
from numbanorm.backends.cuda._intrinsics import pointer, real, scalar_load
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import compute_kind

#: Threads of a block that merges parts: LINES of them for each of COLUMNS neighbouring columns.
THREADS, COLUMNS, LINES = 512, 16, 32
#: Parts that a thread has in flight.
AT_ONCE = 4
#: Bits of `flags`: sums of xhat are there; dgamma, dbeta, operands, or the three sums as they are, are wanted.
CENTRED, DGAMMA, DBETA, OPERANDS, RAW = (1 << k for k in range(8, 13))


@_jit.kernel
def merge_parts(kind):
    """Parts (n_parts, n), `plane` numbers apart, over their first axis; a line of threads has every 32nd part.

    Operands (3, n) are slope, constant and low of n sets, for whose sums gamma still is to be
    multiplied, unless it lies ``GAMMA_ALONG`` the set.
    """
    number, finish = real(kind), through_statistics(kind)
    load = scalar_load(compute_kind(kind), "")
    zero = number(0)
    n_shared = 2 * THREADS

    @device
    def column_sum(parts, first, n_parts, n, there, shared):
        """The sum of a column's parts, in the column's first thread."""
        t = cuda.threadIdx.x
        high, low = zero, zero
        for k in range(t // COLUMNS, n_parts, AT_ONCE * LINES):
            some = cuda.local.array(AT_ONCE, number)
            for u in range(AT_ONCE):
                some[u] = load(parts, first + (k + u * LINES) * n, there and k + u * LINES < n_parts)
            for u in range(AT_ONCE):
                high, lost = two_sum(high, some[u])
                low += lost
        cuda.syncthreads()
        shared[t] = high
        shared[THREADS + t] = low
        cuda.syncthreads()
        half = LINES // 2 * COLUMNS
        while half >= COLUMNS:
            if t < half:
                high, lost = two_sum(shared[t], shared[t + half])
                shared[t] = high
                shared[THREADS + t] += shared[THREADS + t + half] + lost
            half //= 2
            cuda.syncthreads()
        return shared[t] + shared[THREADS + t]

    def merge_parts(
        parts, gamma, rest, rstd, dgamma, dbeta, operands, n, n_parts, plane, n_gamma, flags,
        inverse, degrees, std_eps,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        t = cuda.threadIdx.x
        i = int64(cuda.blockIdx.x) * COLUMNS + t % COLUMNS
        there = i < n
        a = column_sum(parts, i, n_parts, n, there, shared)
        b = column_sum(parts, i + plane, n_parts, n, there, shared)
        c = zero
        if flags & CENTRED:
            c = column_sum(parts, i + 2 * plane, n_parts, n, there, shared)
        if t < COLUMNS and there:
            low = zero
            if flags & FIXED:
                if flags & HAS_REST:
                    low = rest[i] * rstd[i]
            elif flags & CENTRED:
                factor = number(1) if flags & GAMMA_ALONG else gamma[remainder(i, 1, n_gamma)]
                low, slope, constant = finish(a * factor, b * factor, c, rstd[i], flags, inverse, degrees, std_eps)
                if flags & OPERANDS:
                    operands[i] = slope
                    operands[n + i] = constant
                    operands[2 * n + i] = low
            if flags & RAW:
                operands[i] = a
                operands[n + i] = b
                operands[2 * n + i] = c
            if flags & DGAMMA:
                dgamma[i] = b - low * a
            if flags & DBETA:
                dbeta[i] = a

    p = pointer(compute_kind(kind))
    return merge_parts, (*[p] * 7, int64, int64, int64, int64, int32, *scale_parameters(kind)), THREADS


@_jit.kernel
def merge_segments(kind):
    """Operands of sets that have many segments, from parts (3, n_parts, n_rows * n_segments); a warp for each set.

    Leaves in `of_gamma` and `of_beta` what each segment adds to dgamma and dbeta.
    """
    number, finish = real(kind), through_statistics(kind)
    zero = number(0)
    threads = 128

    @device
    def segment_sum(parts, first, n_parts, n):
        high, low = zero, zero
        for k in range(n_parts):
            high, lost = two_sum(high, parts[first + k * n])
            low += lost
        return high + low

    @device
    def over_warp(high, low):
        for bits in (16, 8, 4, 2, 1):
            other = cuda.shfl_xor_sync(FULL, high, bits)
            rest = cuda.shfl_xor_sync(FULL, low, bits)
            high, lost = two_sum(high, other)
            low = low + rest + lost
        return high + low

    def merge_segments(
        parts, gamma, rstd, of_gamma, of_beta, operands, n_rows, n_segments, n_parts, n_gamma, wanted, flags,
        inverse, degrees, std_eps,
    ):  # fmt: skip
        lane = cuda.threadIdx.x & 31
        row = int64(cuda.blockIdx.x) * (threads // 32) + (cuda.threadIdx.x >> 5)
        n = n_rows * n_segments
        a, al, b, bl, c, cl = zero, zero, zero, zero, zero, zero
        if row < n_rows:
            for s in range(lane, n_segments, 32):
                i = row * n_segments + s
                factor = gamma[remainder(i, 1, n_gamma)]
                a, lost = two_sum(a, segment_sum(parts, i, n_parts, n) * factor)
                al += lost
                b, lost = two_sum(b, segment_sum(parts, i + n_parts * n, n_parts, n) * factor)
                bl += lost
                c, lost = two_sum(c, segment_sum(parts, i + 2 * n_parts * n, n_parts, n))
                cl += lost
        a, b, c = over_warp(a, al), over_warp(b, bl), over_warp(c, cl)
        if row < n_rows:
            low, slope, constant = finish(a, b, c, rstd[row], flags, inverse, degrees, std_eps)
            if lane == 0:
                operands[row] = slope
                operands[n_rows + row] = constant
                operands[2 * n_rows + row] = low
            if wanted != 0:
                for s in range(lane, n_segments, 32):
                    i = row * n_segments + s
                    total = segment_sum(parts, i, n_parts, n)
                    of_gamma[i] = segment_sum(parts, i + n_parts * n, n_parts, n) - low * total
                    of_beta[i] = total

    p = pointer(compute_kind(kind))
    return merge_segments, (*[p] * 6, int64, int64, int64, int64, int32, int32, *scale_parameters(kind)), threads


#: Threads of a block that converts statistics.
CONVERT_THREADS = 128


@_jit.kernel
def convert_statistics(kind, mean_kind, rstd_kind):
    """mean as two numbers, and rstd, in the dtype that kernels compute in; arithmetic is in float64."""
    number = real(kind)
    load_mean, load_rstd = scalar_load(mean_kind, ""), scalar_load(rstd_kind, "")

    def convert_statistics(mean, rstd, n, centre, rest, scale):
        i = int64(cuda.blockIdx.x) * CONVERT_THREADS + cuda.threadIdx.x
        if i < n:
            mu = types.float64(load_mean(mean, i, True))
            high = number(mu)
            low = number(mu - types.float64(high))
            centre[i] = high
            rest[i] = low if low - low == number(0) else number(0)
            scale[i] = number(load_rstd(rstd, i, True))

    p = pointer(compute_kind(kind))
    return convert_statistics, (pointer(mean_kind), pointer(rstd_kind), int64, p, p, p), CONVERT_THREADS
