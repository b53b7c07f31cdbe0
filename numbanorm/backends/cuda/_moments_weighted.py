"""Sums of those elements that take part, where others do not: simple rather than fast."""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, int64

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import N_SUMS, SCALED, load_sums, store_sums
from numbanorm.backends.cuda._intrinsics import KEEP, exponent_of, pointer, real, scalar_load
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._moments_cols import columns_merger
from numbanorm.backends.cuda._parts import working

#: Threads of a block.
THREADS = 128
#: Numbers of shared memory for the sums of every thread.
STATES = N_SUMS * THREADS
#: Rows that a thread holds in registers at a time.
ROWS = 8


@_jit.kernel
def weighted_sums(kind: str, width: int) -> Any:
    """A kernel for x (n_outer, n_reduce, n_inner) with a byte for each element that says if it takes part.

    `width` neighbouring threads have neighbouring columns; every block leaves the sums of a
    piece of the rows in scratch.
    """
    number, scaled, height = real(kind), kind in SCALED, THREADS // width
    start, add, load = starter(kind, ROWS, 1), adder(kind, ROWS, 1, False), scalar_load(kind, KEEP)
    merge_columns = columns_merger(kind, THREADS, THREADS)

    def weighted_sums(x, weights, scratch, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece):
        shared = cuda.shared.array(STATES, number)
        r = cuda.local.array(ROWS, number)
        t = cuda.threadIdx.x
        group = int64(cuda.blockIdx.x) // n_tiles
        outer = group // n_splits
        col = (int64(cuda.blockIdx.x) - group * n_tiles) * width + t % width
        left = (group - outer * n_splits) * piece
        stride = height * n_inner
        base = outer * n_reduce * n_inner + col
        i = base + (left + t // width) * n_inner
        last = base + min(left + piece, n_reduce) * n_inner
        if col >= n_inner:
            last = i
        one, zero = number(1), number(0)
        n, centre, scale, shift, a, al, b, bl = int32(0), zero, one, zero, zero, zero, zero, zero
        while i < last:
            taken, present = int32(0), int32(0)
            for u in range(ROWS):
                there = False
                if i + u * stride < last:
                    there = weights[i + u * stride] != 0
                r[u] = load(x, i + u * stride, there)
                if there:
                    taken = int32(taken | (1 << u))
                    present = int32(present + 1)
            if present > 0:
                if n == 0:
                    centre, scale, shift = start(r, 0, number(present))
                for u in range(ROWS):
                    r[u] = r[u] if taken & (1 << u) != 0 else centre
                scale, shift, a, al, b, bl = add(r, 0, scale, shift, a, al, b, bl)
                n = int32(n + present)
            i += ROWS * stride
        k = int32(0)
        if scaled:
            k = exponent_of(scale)
        store_sums(shared, t, THREADS, number(n), centre, number(k), a, al, b, bl)
        merge_columns(shared, int32(width), int32(height))
        if t < width and col < n_inner:
            size, c, k, a, al, b, bl = load_sums(shared, t, THREADS)
            store_sums(scratch, group * n_inner + col, n_outer * n_splits * n_inner, size, c, number(k), a, al, b, bl)

    index = types.int64
    parameters = (pointer(kind), pointer("uint8"), pointer(working(kind)), *[index] * 6)
    return weighted_sums, parameters, THREADS
