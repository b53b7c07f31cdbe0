"""Sums of columns: every thread keeps the sums of a few columns in registers, x read once."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32, int64

from numbanorm.backends.cuda import _finish, _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import N_SUMS, SCALED, load_sums, merged, store_sums
from numbanorm.backends.cuda._intrinsics import (
    KEEP,
    STREAM,
    exponent_of,
    pointer,
    power_of_two,
    real,
    unpack,
    words_load,
)
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._launch_moments import column_threads
from numbanorm.backends.cuda._parts import is_last, loader, part_loader, working


def rows_at_once(kind: str, vector: int) -> int:
    """Rows that a thread has in flight: 64 bytes, or 128 where the sums of 8 columns leave room for few threads."""
    return 4 if vector in (2, 4) else 8


def column_bounds(vector: int) -> tuple[int, int]:
    """Threads of a block, and blocks that shall fit on a multiprocessor: 32 KB or more on their way."""
    return column_threads(vector), 3 if vector == 8 else 1


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
    return thread_column_sums, (*signature, *_finish.parameters(kind)), column_bounds(vector)


@cache
def tile_sums(kind: str, vector: int, width: int, policy: str, final: bool) -> Any:
    """``there, outer, col, present = sums(x, scratch, tickets, shared, the cut...)`` for a block of a tile of columns.

    A block sums its piece of the rows; :class:`._launch_moments.Cols` says what the numbers of the
    cut are. `width` neighbouring threads share a row of the tile. With width 0 the tile is all of
    n_inner columns, and rows lie one behind the other in the block's `width` elements.

    With `final` the last block has the sums of the `present` columns from `col` on in shared
    memory, in states `tile_states` apart; without, all blocks leave theirs in scratch.
    """
    threads, number = column_threads(vector), real(kind)
    n_states, members = tile_states(vector), N_SUMS * vector
    sums_of, merge_columns = column_accumulator(kind, vector, policy), columns_merger(kind, vector)
    merge_parts = parts_merger(kind, vector)
    tile_cols, tile_rows = width * vector, threads // max(width, 1)

    @_jit.device
    def sums(x, scratch, tickets, shared, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across, group, n_parts):
        mine = cuda.local.array(members, number)
        t = cuda.threadIdx.x
        place = int64(cuda.blockIdx.x) // n_tiles
        tile = int64(cuda.blockIdx.x) - place * n_tiles
        outer = place // n_splits
        split = place - outer * n_splits
        left = split * piece
        base = outer * n_reduce * n_inner
        last = base + min(left + piece, n_reduce) * n_inner
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
        sums_of(x, first, last, stride, mine)
        for e in range(vector):
            size, c, k, a, al, b, bl = load_sums(mine, e, vector)
            store_sums(shared, t * vector + e, n_states, size, c, number(k), a, al, b, bl)
        merge_columns(shared, n_cols, n_sets)
        n_cols = int32(min(int64(n_cols), n_inner - col))
        # The last block of a group merges the group's parts, and is one part of the next level.
        level, ticket = int64(0), (outer * n_tiles + tile) * (n_parts - n_splits + 1)
        plane = n_outer * n_parts * n_inner
        while n_splits > 1 or not final:
            at = (level + outer * n_splits + split) * n_inner + col
            for i in range(t, n_cols, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                store_sums(scratch, at + i, plane, size, c, number(k), a, al, b, bl)
            if not final:
                return False, outer, col, n_cols
            member = split % group
            split //= group
            here = min(group, n_splits - split * group)
            if not is_last(tickets, ticket + split, here):
                return False, outer, col, n_cols
            n_sets = int32(max(min(threads // n_cols, here), 1))
            merge_parts(shared, scratch, at - member * n_inner, n_cols, n_inner, here, plane, n_sets)
            merge_columns(shared, n_cols, n_sets)
            level += n_outer * n_splits
            n_splits = (n_splits + group - 1) // group
            ticket += n_splits
        return True, outer, col, n_cols

    return sums


def tile_states(vector: int) -> int:
    """Sums in the shared memory of a block: those of every thread's columns."""
    return column_threads(vector) * vector


#: Types of the numbers that say how x is cut, the last parameters of :func:`tile_sums`.
CUT = (int64,) * 9


@cache
def columns_merger(kind: str, vector: int) -> Any:
    """``merge(shared, n_cols, n_sets)``: sums that lie `n_cols` apart, pairwise, into the first `n_cols`."""
    threads, n_states, number = column_threads(vector), tile_states(vector), real(kind)

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
            col = i % n_cols
            size, c, k, a, al, b, bl = load_part(scratch, first + (i // n_cols) * n_inner + col, n_parts)
            for s in range(i // n_cols + n_sets, n_here, n_sets):
                n2, c2, k2, a2, al2, b2, bl2 = load_part(scratch, first + s * n_inner + col, n_parts)
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
        there, outer, col, present = sums(
            x, scratch, tickets, shared, n_outer, n_reduce, n_inner, n_tiles, n_splits, piece, across, group, n_parts
        )
        if there:
            for i in range(cuda.threadIdx.x, present, threads):
                _, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                out = outer * n_inner + col + i
                finish(out, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)

    partial, output = pointer(working(kind)), pointer(kind)
    signature = (pointer(kind), partial, pointer("uint32"), output, output, *CUT)
    return column_sums, (*signature, *_finish.parameters(kind)), column_bounds(vector)


@cache
def row_unpacker(kind: str, vector: int) -> Any:
    """``words, per, spread``: words in `vector` elements, elements in a word, and ``spread(held, w, values)``.

    Rows are held as they travel, so that many fit in registers. `values` are those of word w in each row.
    """
    n_rows = rows_at_once(kind, vector)
    words = vector if vector < 8 else vector // 2

    @_jit.device
    def plain(held, w, values):
        for u in range(n_rows):
            values[u] = held[u * words + w]

    if vector < 8:
        return words, 1, plain
    unpack_word = unpack(kind)

    @_jit.device
    def pairs(held, w, values):
        for u in range(n_rows):
            pair = unpack_word(held[u * words + w])
            values[2 * u] = pair[0]
            values[2 * u + 1] = pair[1]

    return words, 2, pairs


@cache
def row_fetcher(kind: str, vector: int, policy: str) -> Any:
    """``fetch(held, x, i, last, stride)``: the next rows, zeros from `last` on. How many there are."""
    n_rows, words = rows_at_once(kind, vector), row_unpacker(kind, vector)[0]
    load = loader(kind, vector, policy) if vector < 8 else words_load(kind, policy)

    @_jit.device
    def fetch(held, x, i, last, stride):
        if i + (n_rows - 1) * stride < last:
            for u in range(n_rows):
                v = load(x, i + u * stride, True)
                for w in range(words):
                    held[u * words + w] = v[w]
            return int32(n_rows)
        present = int32(0)
        for u in range(n_rows):
            v = load(x, i + u * stride, i + u * stride < last)
            for w in range(words):
                held[u * words + w] = v[w]
            if i + u * stride < last:
                present = int32(present + 1)
        return present

    return fetch


@cache
def column_adder(kind: str, vector: int, e: int) -> Any:
    """``add(held, present, scale, shift, a, al, b, bl)``: rows that are held to the sums of columns e and beyond.

    A call for each column, because a loop of so large a body is not unrolled, and arrays that are
    indexed by its counter would lie in memory.
    """
    number, n_rows = real(kind), rows_at_once(kind, vector)
    _, per, spread = row_unpacker(kind, vector)
    add, exponent, n_values = adder(kind, n_rows, per, False), exponent_of_scale(kind), n_rows * per
    word, half = e // per, e % per

    @_jit.device
    def add_column(held, present, scale, shift, a, al, b, bl):
        r = cuda.local.array(n_values, number)
        spread(held, word, r)
        if present < n_rows:
            centre = shift[e] * power_of_two(int32(-exponent(scale[e])))
            for u in range(n_rows):
                if u >= present:
                    r[u * per + half] = centre
        scale[e], shift[e], a[e], al[e], b[e], bl[e] = add(r, half, scale[e], shift[e], a[e], al[e], b[e], bl[e])

    if e + 1 == vector:
        return add_column
    add_others = column_adder(kind, vector, e + 1)

    @_jit.device
    def add_columns(held, present, scale, shift, a, al, b, bl):
        add_column(held, present, scale, shift, a, al, b, bl)
        add_others(held, present, scale, shift, a, al, b, bl)

    return add_columns


@cache
def exponent_of_scale(kind: str) -> Any:
    """``exponent(scale)``: that of a power of two, which is 1 for kinds that need no scale."""
    if kind in SCALED:
        return exponent_of
    return _jit.device(lambda scale: int32(0))


@cache
def column_accumulator(kind: str, vector: int, policy: str) -> Any:
    """``sums_of(x, first, last, stride, sums)``: sums of `vector` columns, elements `stride` apart.

    `sums` is a local array, which a caller reads with ``load_sums(sums, column, vector)``.
    """
    number, n_rows = real(kind), rows_at_once(kind, vector)
    words, per, spread = row_unpacker(kind, vector)
    start, add, exponent = starter(kind, n_rows, per), column_adder(kind, vector, 0), exponent_of_scale(kind)
    fetch, n_held, n_values = row_fetcher(kind, vector, policy), n_rows * words, n_rows * per
    word = types.uint32 if per > 1 else number

    @_jit.device
    def sums_of(x, i, last, stride, sums):
        held = cuda.local.array(n_held, word)
        r = cuda.local.array(n_values, number)
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
            present = fetch(held, x, i, last, stride)
            if n == 0:
                for e in range(vector):
                    spread(held, e // per, r)
                    _, scale[e], shift[e] = start(r, e % per, number(present))
            add(held, present, scale, shift, a, al, b, bl)
            n = int32(n + present)
            i += n_rows * stride
        for e in range(vector):
            k = exponent(scale[e])
            centre = shift[e] * power_of_two(int32(-k))
            store_sums(sums, e, vector, number(n), centre, number(k), a[e], al[e], b[e], bl[e])

    return sums_of
