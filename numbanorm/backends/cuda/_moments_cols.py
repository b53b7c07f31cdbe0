"""Sums of columns: every thread keeps the sums of a few columns in registers, x read once."""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, int64

from numbanorm.backends.cuda import _finish, _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import N_SUMS, SCALED, load_sums, merged, store_sums
from numbanorm.backends.cuda._intrinsics import KEEP, STREAM, exponent_of, pointer, power_of_two, real
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._launch_moments import column_threads
from numbanorm.backends.cuda._parts import is_last, loader, part_loader, working


def rows_at_once(kind: str, vector: int) -> int:
    """Rows that a thread holds in registers at a time."""
    return 4 if vector > 1 else 8


@_jit.kernel
def thread_column_sums(kind: str, vector: int, final: bool) -> Any:
    """A kernel in which a thread has the whole of its `vector` neighbouring columns: for few rows."""
    threads, number = column_threads(vector), real(kind)
    sums_of, members = column_accumulator(kind, vector, KEEP), N_SUMS * vector
    finish = _finish.writer(kind)

    def thread_column_sums(x, scratch, mean, var, n_outer, n_reduce, n_inner, n, nl, inverse, divisor, dl, wanted):
        out = (int64(cuda.blockIdx.x) * threads + cuda.threadIdx.x) * vector
        if out >= n_outer * n_inner:
            return
        sums = cuda.local.array(members, number)
        outer = out // n_inner
        first = outer * n_reduce * n_inner + (out - outer * n_inner)
        sums_of(x, first, (outer + 1) * n_reduce * n_inner, n_inner, sums)
        for e in range(vector):
            size, c, k, a, al, b, bl = load_sums(sums, e, vector)
            if final:
                finish(out + e, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)
            else:
                store_sums(scratch, out + e, n_outer * n_inner, size, c, number(k), a, al, b, bl)

    index, partial, output = types.int64, pointer(working(kind)), pointer(kind)
    signature = (pointer(kind), partial, output, output, index, index, index)
    return thread_column_sums, (*signature, *_finish.parameters(kind)), threads


@_jit.kernel
def column_sums(kind: str, vector: int, width: int, final: bool) -> Any:
    """A kernel in which a block has a piece of the rows of a tile of columns; see :mod:`._launch_moments`.

    `width` neighbouring threads share a row of the tile. With width 0 the tile is all of
    n_inner columns, and rows lie one behind the other in the block's `width` elements.
    """
    threads, number = column_threads(vector), real(kind)
    n_states = threads * vector
    members, n_shared = N_SUMS * vector, N_SUMS * n_states
    sums_of, load_part = column_accumulator(kind, vector, STREAM if vector > 1 else KEEP), part_loader(kind)
    finish = _finish.writer(kind)
    tile_cols, tile_rows = width * vector, threads // max(width, 1)

    @_jit.device
    def merge_columns(shared, n_cols, n_sets):
        """Merge states that lie `n_cols` apart, pairwise, into the first `n_cols`."""
        cuda.syncthreads()
        while n_sets > 1:
            half = (n_sets + 1) // 2
            for i in range(cuda.threadIdx.x, (n_sets - half) * n_cols, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                n2, c2, k2, a2, al2, b2, bl2 = load_sums(shared, i + half * n_cols, n_states)
                size, c, k, a, al, b, bl = merged(size, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2)
                store_sums(shared, i, n_states, size, c, number(k), a, al, b, bl)
            n_sets = half
            cuda.syncthreads()

    @_jit.device
    def merge_parts(shared, scratch, first, n_cols, n_inner, n_splits, n_parts, n_sets):
        """The parts of each column, `n_sets` threads for each, into as many states."""
        for i in range(cuda.threadIdx.x, n_sets * n_cols, threads):
            col = i % n_cols
            size, c, k, a, al, b, bl = load_part(scratch, first + (i // n_cols) * n_inner + col, n_parts)
            for s in range(i // n_cols + n_sets, n_splits, n_sets):
                n2, c2, k2, a2, al2, b2, bl2 = load_part(scratch, first + s * n_inner + col, n_parts)
                size, c, k, a, al, b, bl = merged(size, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2)
            store_sums(shared, i, n_states, size, c, number(k), a, al, b, bl)

    def column_sums(
        x, scratch, tickets, mean, var, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across,
        n, nl, inverse, divisor, dl, wanted,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        sums = cuda.local.array(members, number)
        t = cuda.threadIdx.x
        group = int64(cuda.blockIdx.x) // n_tiles
        tile = int64(cuda.blockIdx.x) - group * n_tiles
        outer = group // n_splits
        left = (group - outer * n_splits) * piece
        right = min(left + piece, n_reduce)
        base = outer * n_reduce * n_inner
        last = base + right * n_inner
        if width == 0:
            # `across` rows lie in one step of the block.
            col, n_cols, n_sets, stride = int64(0), int32(n_inner), int32(across), across * n_inner
            first = base + left * n_inner + t * vector
            if t * vector >= stride:
                first = last
        else:
            col, n_cols, n_sets, stride = tile * tile_cols, int32(tile_cols), int32(tile_rows), tile_rows * n_inner
            first = base + (left + t // width) * n_inner + col + (t % width) * vector
            if col + (t % width) * vector >= n_inner:
                first = last
        sums_of(x, first, last, stride, sums)
        for e in range(vector):
            size, c, k, a, al, b, bl = load_sums(sums, e, vector)
            store_sums(shared, t * vector + e, n_states, size, c, number(k), a, al, b, bl)
        merge_columns(shared, n_cols, n_sets)
        present = min(int64(n_cols), n_inner - col)
        n_parts = n_outer * n_splits * n_inner
        if n_splits > 1 or not final:
            for i in range(t, present, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                store_sums(scratch, group * n_inner + col + i, n_parts, size, c, number(k), a, al, b, bl)
            if not final or not is_last(tickets, outer * n_tiles + tile, n_splits):
                return
            n_sets = int32(max(min(threads // n_cols, n_splits), 1))
            columns = int32(present)
            merge_parts(shared, scratch, outer * n_splits * n_inner + col, columns, n_inner, n_splits, n_parts, n_sets)
            merge_columns(shared, columns, n_sets)
        if final:
            for i in range(t, present, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                out = outer * n_inner + col + i
                finish(out, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)

    index, partial, output = types.int64, pointer(working(kind)), pointer(kind)
    signature = (pointer(kind), partial, pointer("uint32"), output, output, *[index] * 7)
    return column_sums, (*signature, *_finish.parameters(kind)), threads


def column_accumulator(kind: str, vector: int, policy: str) -> Any:
    """``sums_of(x, first, last, stride, sums)``: sums of `vector` columns, elements `stride` apart.

    `sums` is a local array, which a caller reads with ``load_sums(sums, column, vector)``.
    """
    number, scaled, n_rows = real(kind), kind in SCALED, rows_at_once(kind, vector)
    start, add = starter(kind, n_rows, vector), adder(kind, n_rows, vector, False)
    load, count = loader(kind, vector, policy), n_rows * vector

    @_jit.device
    def exponent_of_scale(factor):
        return exponent_of(factor) if scaled else int32(0)

    @_jit.device
    def fetch(r, x, i, last, stride):
        """The next rows into r; zeros from `last` on. How many there are."""
        if i + (n_rows - 1) * stride < last:
            for u in range(n_rows):
                v = load(x, i + u * stride, True)
                for e in range(vector):
                    r[u * vector + e] = v[e]
            return int32(n_rows)
        present = int32(0)
        for u in range(n_rows):
            v = load(x, i + u * stride, i + u * stride < last)
            for e in range(vector):
                r[u * vector + e] = v[e]
            if i + u * stride < last:
                present = int32(present + 1)
        return present

    @_jit.device
    def sums_of(x, i, last, stride, sums):
        r = cuda.local.array(count, number)
        scale = cuda.local.array(vector, number)
        shift = cuda.local.array(vector, number)
        a = cuda.local.array(vector, number)
        al = cuda.local.array(vector, number)
        b = cuda.local.array(vector, number)
        bl = cuda.local.array(vector, number)
        one, zero = number(1), number(0)
        for e in range(vector):
            scale[e], shift[e], a[e], al[e], b[e], bl[e] = one, zero, zero, zero, zero, zero
        n = int32(0)
        while i < last:
            present = fetch(r, x, i, last, stride)
            if n == 0:
                for e in range(vector):
                    _, scale[e], shift[e] = start(r, e, number(present))
            if present < n_rows:
                for e in range(vector):
                    centre = shift[e] * power_of_two(int32(-exponent_of_scale(scale[e])))
                    for u in range(n_rows):
                        r[u * vector + e] = r[u * vector + e] if u < present else centre
            for e in range(vector):
                scale[e], shift[e], a[e], al[e], b[e], bl[e] = add(r, e, scale[e], shift[e], a[e], al[e], b[e], bl[e])
            n = int32(n + present)
            i += n_rows * stride
        for e in range(vector):
            k = exponent_of_scale(scale[e])
            centre = shift[e] * power_of_two(int32(-k))
            store_sums(sums, e, vector, number(n), centre, number(k), a[e], al[e], b[e], bl[e])

    return sums_of
