"""Gradients of rows with a parameter per column: dy and x are read once and stay in registers.

A team of `lanes` threads takes `n_steps` rows, `teams` of them apart, and adds each row's share
of dgamma and dbeta to sums of its own in shared memory. At the end the block's sums become one
and are left in `parts` (2, blocks, n_cols): dy, then dy * xhat.
"""

from __future__ import annotations

from numba import cuda

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    GAMMA_ALONG,
    WANT_DX,
    WANT_SUMS,
    int32,
    int64,
    scale_parameters,
    set_statistics,
    team_totals,
    through_statistics,
    uint32,
)
from numbanorm.backends.cuda._intrinsics import forgotten, pointer, real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._vectors import units


def most_threads(kind: str, n_units: int) -> int:
    """The bound for the compiler: 64 registers a thread, or 128 of them where it holds much or computes in float64."""
    return 512 if kind == "float64" or n_units > 2 else 1024


@_jit.kernel
def rows_backward(kind, vector, n_units):
    """Rows of at most n_units * lanes units."""
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    parameters, store, kept = unit.parameters, unit.store, n_units * unit.words
    number = real(kind)
    n_sums = n_units * width
    totals, finish, statistics = team_totals(kind), through_statistics(kind), set_statistics(kind)
    zero = number(0)

    @device
    def factors(gamma, j, flags, g):
        if flags & GAMMA_ALONG:
            parameters(gamma, int64(j), True, g)
        else:
            for e in range(width):
                g[e] = gamma[0]

    @device
    def row_sums(gradients, held, gamma, centre, rstd, n_cols, lane, lanes, flags):
        """Sums of this thread's elements of a row; beyond its end dy and x are zero."""
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        a, b, c = zero, zero, zero
        for v in range(n_units):
            j = (v * lanes + forgotten(lane)) * width
            if j < n_cols:
                expand(gradients, v * words, dys)
                expand(held, v * words, xs)
                factors(gamma, j, flags, g)
                of_a, of_b, of_c = zero, zero, zero
                for e in range(width):
                    xhat = (xs[e] - centre) * rstd
                    gradient = dys[e] * g[e]
                    of_a += gradient
                    of_b += gradient * xhat
                    of_c += xhat
                a += of_a
                b += of_b
                c += of_c
        return a, b, c

    @device
    def merge_teams(sums, lanes, n_sets):
        """Those of all teams of a block into those of the first, pairwise."""
        t, threads = cuda.threadIdx.x, cuda.blockDim.x
        cuda.syncthreads()
        while n_sets > 1:
            half = (n_sets + 1) // 2
            if t + half * lanes < n_sets * lanes:
                for k in range(2 * n_sums):
                    sums[k * threads + t] += sums[k * threads + t + half * lanes]
            n_sets = half
            cuda.syncthreads()

    def rows_backward(
        dy, x, gamma, mean, rstd, dx, parts, n_rows, n_cols, n_steps, lanes, flags, inverse, degrees, std_eps
    ):
        buffers = cuda.shared.array(96, number)
        sums = cuda.shared.array(0, number)
        gradients = cuda.local.array(kept, word)
        held = cuda.local.array(kept, word)
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        t, threads = cuda.threadIdx.x, cuda.blockDim.x
        teams = int32(uint32(threads) // uint32(lanes))
        team = int32(uint32(t) // uint32(lanes))
        lane = int32(t - team * lanes)
        plane = n_sums * threads
        row = int64(cuda.blockIdx.x) * (int64(teams) * n_steps) + team
        if flags & WANT_SUMS:
            for k in range(2 * n_sums):
                sums[k * threads + t] = zero
        step = int32(0)
        # Only of a barrier's answer the compiler knows that warps agree; else shuffles in a loop cost calls on sm_80.
        while cuda.syncthreads_or(int32(step < n_steps)) != 0:
            there = row < n_rows
            start = row * n_cols
            for v in range(n_units):
                j = (v * lanes + lane) * width
                keep(load(dy, start + j, there & (j < n_cols)), gradients, v * words)
                keep(load(x, start + j, there & (j < n_cols)), held, v * words)
            centre, scale = statistics(mean, rstd, row, there, flags)
            a, b, c = row_sums(gradients, held, gamma, centre, scale, n_cols, lane, lanes, flags)
            a, b, c = totals(a, b, c, lanes, buffers)
            low, slope, constant = finish(a, b, c, scale, flags, inverse, degrees, std_eps)
            for k in range(kept):
                gradients[k] = forgotten(gradients[k])
                held[k] = forgotten(held[k])
            for v in range(n_units):
                j = (v * lanes + forgotten(lane)) * width
                if there & (j < n_cols):
                    expand(gradients, v * words, dys)
                    expand(held, v * words, xs)
                    factors(gamma, j, flags, g)
                    at = forgotten(v * width * threads + t)
                    for e in range(width):
                        xhat = (xs[e] - centre) * scale
                        if flags & WANT_SUMS:
                            sums[at] += dys[e]
                            sums[at + plane] += dys[e] * (xhat - low)
                            at += threads
                        xs[e] = dys[e] * (g[e] * scale) + xhat * slope + constant
                    store(dx, start + j, xs, flags & WANT_DX != 0)
            row += teams
            step = int32(step + 1)
        if flags & WANT_SUMS:
            merge_teams(sums, lanes, teams)
            first = int64(cuda.blockIdx.x) * n_cols
            total = int64(cuda.gridDim.x) * n_cols
            for j in range(t, n_cols, threads):
                of_unit = uint32(j) // uint32(width)
                v = of_unit // uint32(lanes)
                place = int32((v * width + j - of_unit * width) * threads + of_unit - v * lanes)
                parts[first + j] = sums[place]
                parts[first + total + j] = sums[place + plane]

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), pointer(kind), p, p, p, pointer(kind), p)
    return (
        rows_backward,
        (*arrays, int64, int32, int32, int32, int32, *scale_parameters(kind)),
        most_threads(kind, n_units),
    )
