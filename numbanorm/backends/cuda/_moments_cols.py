"""Sums of columns: every thread keeps the sums of a few columns in registers, x read once."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32, int64, uint32

from numbanorm.backends.cuda import _finish, _jit
from numbanorm.backends.cuda._arithmetic import N_SUMS, load_sums, merged, store_sums
from numbanorm.backends.cuda._column_accumulate import column_accumulator
from numbanorm.backends.cuda._intrinsics import KEEP, STREAM, pointer, real
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._launch_moments import column_threads
from numbanorm.backends.cuda._parts import is_last, part_loader, working


def column_bounds(kind: str, vector: int) -> tuple[int, int]:
    """Threads of a block, and blocks that shall fit on a multiprocessor, with 32 KB or more on their way."""
    return column_threads(vector), {8: 3, 4: 2, 2: 3, 1: 3 if kind == "float64" else 4}[vector]


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
    return thread_column_sums, (*signature, *_finish.parameters(kind)), column_bounds(kind, vector)


@cache
def tile_sums(kind: str, vector: int, width: int, policy: str, final: bool) -> Any:
    """``there, first, present = sums(x, scratch, tickets, shared, the cut...)`` for a block of a tile of columns.

    A block sums its piece of the rows; :class:`._launch_moments.Cols` says what the numbers of the
    cut are. `width` neighbouring threads share a row of the tile. With width 0 the tile is all of
    n_inner columns, and rows lie one behind the other in the block's `width` elements.

    With `final` the last block has the sums of `present` sets, from the one numbered `first`
    on, in shared memory, in states `tile_states` apart; without, all blocks leave theirs in scratch.
    """
    threads, number = column_threads(vector), real(kind)
    n_states, members = tile_states(vector), N_SUMS * vector
    sums_of, merge_columns = column_accumulator(kind, vector, policy), columns_merger(kind, threads, n_states)
    merge_parts, thread_place = parts_merger(kind, vector), place_in_tile(vector, width)

    @_jit.device
    def sums(x, scratch, tickets, shared, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across, group, n_parts):
        mine = cuda.local.array(members, number)
        t = cuda.threadIdx.x
        # Blocks are fewer than 2**31, and far fewer where there are parts.
        place = int32(uint32(cuda.blockIdx.x) // uint32(n_tiles))
        tile = int32(cuda.blockIdx.x - place * int32(n_tiles))
        n_blocks = int32(n_splits)
        outer = int32(uint32(place) // uint32(n_blocks))
        split = int32(place - outer * n_blocks)
        left = split * piece
        base = outer * n_reduce * n_inner
        last = base + min(left + piece, n_reduce) * n_inner
        first, last, stride, col, n_cols, n_sets = thread_place(tile, base + left * n_inner, last, n_inner, across)
        sums_of(x, first, last, stride, mine)
        for e in range(vector):
            size, c, k, a, al, b, bl = load_sums(mine, e, vector)
            store_sums(shared, t * vector + e, n_states, size, c, number(k), a, al, b, bl)
        merge_columns(shared, n_cols, n_sets)
        n_cols = int32(min(int64(n_cols), n_inner - col))
        # The last block of a group merges the group's parts, and is one part of the next level.
        level, ticket = int32(0), int32((outer * int32(n_tiles) + tile) * int32(n_parts - n_splits + 1))
        while n_blocks > 1 or not final:
            part, plane = int32(level + outer * n_blocks + split), n_outer * n_parts * n_inner
            for i in range(t, n_cols, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                store_sums(scratch, part * n_inner + col + i, plane, size, c, number(k), a, al, b, bl)
            if not final:
                return False, col, n_cols
            above = int32(uint32(split) // uint32(group))
            part = int32(part - split + above * int32(group))
            here = min(int32(group), int32(n_blocks - above * int32(group)))
            if not is_last(tickets, int64(ticket + above), here):
                return False, col, n_cols
            n_sets = int32(max(min(threads // n_cols, here), 1))
            merge_parts(shared, scratch, part * n_inner + col, n_cols, n_inner, here, plane, n_sets)
            merge_columns(shared, n_cols, n_sets)
            level = int32(level + int32(n_outer) * n_blocks)
            split = above
            n_blocks = int32(uint32(n_blocks + int32(group) - 1) // uint32(group))
            ticket = int32(ticket + n_blocks)
        return True, outer * n_inner + col, n_cols

    return sums


@cache
def place_in_tile(vector: int, width: int) -> Any:
    """``first, last, stride, col, n_cols, n_sets = place(tile, start, last, n_inner, across)`` of a thread.

    Its elements, from the piece's `start` on; the tile's columns, and the threads that have each of them.
    """
    threads = column_threads(vector)
    tile_cols, tile_rows = width * vector, threads // max(width, 1)

    @_jit.device
    def behind_each_other(tile, start, last, n_inner, across):
        t = cuda.threadIdx.x
        stride = across * n_inner
        first = start + t * vector if t * vector < stride else last
        return first, last, stride, int64(0), int32(n_inner), int32(across)

    @_jit.device
    def side_by_side(tile, start, last, n_inner, across):
        t = cuda.threadIdx.x
        col = tile * tile_cols
        mine = col + (t % width) * vector
        first = start + (t // width) * n_inner + mine if mine < n_inner else last
        return first, last, tile_rows * n_inner, col, int32(tile_cols), int32(tile_rows)

    return side_by_side if width else behind_each_other


def tile_states(vector: int) -> int:
    """Sums in the shared memory of a block: those of every thread's columns."""
    return column_threads(vector) * vector


#: Types of the numbers that say how x is cut, the last parameters of :func:`tile_sums`.
CUT = (int64,) * 9


@cache
def columns_merger(kind: str, threads: int, n_states: int) -> Any:
    """``merge(shared, n_cols, n_sets)``: sums that lie `n_cols` apart, pairwise, into the first `n_cols`."""
    number = real(kind)

    @_jit.device
    def merge_columns(shared, n_cols, n_sets):
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

    return merge_columns


@cache
def parts_merger(kind: str, vector: int) -> Any:
    """``merge(shared, scratch, first, n_cols, n_inner, n_here, n_parts, n_sets)``: the parts of each column.

    `n_sets` threads for each column, into as many sums; a column's parts lie `n_inner` apart.
    """
    threads, n_states, number = column_threads(vector), tile_states(vector), real(kind)
    load_part = part_loader(kind)

    @_jit.device
    def merge_parts(shared, scratch, first, n_cols, n_inner, n_here, n_parts, n_sets):
        for i in range(cuda.threadIdx.x, n_sets * n_cols, threads):
            s = int32(uint32(i) // uint32(n_cols))
            at = first + s * n_inner + (i - s * n_cols)
            size, c, k, a, al, b, bl = load_part(scratch, at, n_parts)
            for _ in range(s + n_sets, n_here, n_sets):
                at += n_sets * n_inner
                n2, c2, k2, a2, al2, b2, bl2 = load_part(scratch, at, n_parts)
                size, c, k, a, al, b, bl = merged(size, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2)
            store_sums(shared, i, n_states, size, c, number(k), a, al, b, bl)

    return merge_parts


@_jit.kernel
def column_sums(kind: str, vector: int, width: int, final: bool) -> Any:
    """A kernel in which a block has a piece of the rows of a tile of columns; see :func:`tile_sums`."""
    threads, number, n_states = column_threads(vector), real(kind), tile_states(vector)
    n_shared, finish = N_SUMS * n_states, _finish.writer(kind)
    sums = tile_sums(kind, vector, width, STREAM if vector > 1 else KEEP, final)

    def column_sums(
        x, scratch, tickets, mean, var, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across, group, n_parts,
        n, nl, inverse, divisor, dl, wanted,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        there, first, present = sums(
            x, scratch, tickets, shared, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across, group, n_parts
        )
        if there:
            for i in range(cuda.threadIdx.x, present, threads):
                _, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                finish(first + i, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)

    partial, output = pointer(working(kind)), pointer(kind)
    signature = (pointer(kind), partial, pointer("uint32"), output, output, *CUT)
    return column_sums, (*signature, *_finish.parameters(kind)), column_bounds(kind, vector)
