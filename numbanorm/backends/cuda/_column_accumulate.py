"""Sums of a few neighbouring columns in a thread's registers; rows are held as they travel."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import SCALED, store_sums
from numbanorm.backends.cuda._intrinsics import exponent_of, power_of_two, real, unpack, words_load
from numbanorm.backends.cuda._jit import types
from numbanorm.backends.cuda._parts import loader


def rows_at_once(kind: str, vector: int) -> int:
    """Rows that a thread has in flight: 64 bytes, or 128 where the sums of 8 columns leave room for few threads."""
    return 4 if vector in (2, 4) else 8


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
