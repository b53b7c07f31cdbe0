"""Sums of rows: a few lanes, a warp or a block for each row or piece of a row, x read once."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32, int64

from numbanorm.backends.cuda import _finish, _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import MOST, SCALED, WARP_SUMS, over_block, over_lanes, store_sums
from numbanorm.backends.cuda._intrinsics import KEEP, STREAM, exponent_of, pointer, real
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._parts import is_last, loader, parts_reducer, working

#: Threads of a block.
THREADS = 256


def elements_at_once(kind: str) -> int:
    """Elements that a thread holds in registers at a time."""
    return 8 if kind == "float64" else 16


@cache
def piece_adder(kind: str, vector: int, lanes: int, careful: bool) -> Any:
    """``sums(x, i, last)``: those of a thread's elements from i on and before `last`, one in `lanes` units."""
    number, scaled, count = real(kind), kind in SCALED, elements_at_once(kind)
    n_loads, stride, step = count // vector, lanes * vector, lanes * count
    start, add = starter(kind, count, 1), adder(kind, count, 1, careful)
    load = loader(kind, vector, STREAM if lanes > 1 and vector > 1 else KEEP)

    @_jit.device
    def fetch(r, x, i, last):
        """The next elements into r; zeros from `last` on. How many there are."""
        if i + (n_loads - 1) * stride < last:
            for u in range(n_loads):
                v = load(x, i + u * stride, True)
                for e in range(vector):
                    r[u * vector + e] = v[e]
            return int32(count)
        present = int32(0)
        for u in range(n_loads):
            v = load(x, i + u * stride, i + u * stride < last)
            for e in range(vector):
                r[u * vector + e] = v[e]
            if i + u * stride < last:
                present = int32(present + vector)
        return present

    @_jit.device
    def piece_sums(x, i, last):
        r = cuda.local.array(count, number)
        one, zero = number(1), number(0)
        n, centre, scale, shift, a, al, b, bl = int32(0), zero, one, zero, zero, zero, zero, zero
        while i < last:
            present = fetch(r, x, i, last)
            if n == 0:
                centre, scale, shift = start(r, 0, number(present))
            if present < count:
                for e in range(count):
                    r[e] = r[e] if e < present else centre
            scale, shift, a, al, b, bl = add(r, 0, scale, shift, a, al, b, bl)
            n = int32(n + present)
            i += step
        k = int32(0)
        if scaled:
            k = exponent_of(scale) if n > 0 else int32(MOST)
        return number(n), centre, k, a, al, b, bl

    return piece_sums


@_jit.kernel
def row_sums(kind: str, vector: int, lanes: int, split: bool, final: bool, careful: bool) -> Any:
    """A kernel for rows of x, `lanes` threads for each row or piece; see :mod:`._launch_moments`.

    With `final` it writes statistics (for a row in pieces, in the last of its blocks);
    without, it leaves the sums of each piece in scratch. `vector` is 1 for rows that cannot
    be read by 16 bytes.
    """
    number, scaled, piece_sums = real(kind), kind in SCALED, piece_adder(kind, vector, lanes, careful)
    reduce_lanes = over_lanes(min(lanes, 32), scaled)
    reduce_block = over_block(THREADS, scaled, number)
    finish, reduce_parts = _finish.writer(kind), parts_reducer(kind, THREADS)
    rows_per_block = THREADS // lanes
    whole_block = lanes == THREADS

    def row_sums(x, scratch, tickets, mean, var, n_rows, n_cols, n_splits, piece, n, nl, inverse, divisor, dl, wanted):
        shared = cuda.shared.array(WARP_SUMS, number)
        t = cuda.threadIdx.x
        block = int64(cuda.blockIdx.x)
        if whole_block:
            row = block // n_splits
            s = block - row * n_splits
            lane = t
        else:
            row = block * rows_per_block + t // lanes
            s = int64(0)
            lane = t & (lanes - 1)
        left, right = s * piece, min(s * piece + piece, n_cols)
        if row >= n_rows:
            right = left
        base = row * n_cols
        size, c, k, a, al, b, bl = piece_sums(x, base + left + lane * vector, base + right)
        if whole_block:
            size, c, k, a, al, b, bl = reduce_block(size, c, k, a, al, b, bl, shared)
        else:
            size, c, k, a, al, b, bl = reduce_lanes(size, c, k, a, al, b, bl)
        if not split and final:
            if lane == 0 and row < n_rows:
                finish(row, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)
            return
        part, n_parts = row * n_splits + s, n_rows * n_splits
        if lane == 0 and row < n_rows:
            store_sums(scratch, part, n_parts, size, c, number(k), a, al, b, bl)
        if final:
            if not is_last(tickets, row, n_splits):
                return
            size, c, k, a, al, b, bl = reduce_parts(scratch, row * n_splits, n_splits, n_parts, shared)
            if t == 0:
                finish(row, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)

    partial, output, index = pointer(working(kind)), pointer(kind), types.int64
    signature = (pointer(kind), partial, pointer("uint32"), output, output, index, index, index, index)
    # 1024 threads with 64 bytes each (32 of 16-bit kinds) on their way keep the memory busy.
    resident = 3 if kind == "float64" else 4
    return row_sums, (*signature, *_finish.parameters(kind)), (THREADS, resident)
