"""One view of 16 bytes and of single elements, for kernels that are written once for both.

A *unit* is what one access moves: 16 bytes where pointers and rows allow, else one element.
Rows kept in registers stay as they travel (*words*: two 16-bit numbers in each), so that a
thread holds 64 bytes in 16 registers whatever the dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from numba.cuda import types

from numbanorm.backends.cuda import _intrinsics
from numbanorm.backends.cuda._intrinsics import KEEP, STREAM, VECTOR, real
from numbanorm.backends.cuda._jit import device


@dataclass(frozen=True)
class Units:
    """How a kernel loads, keeps, expands and stores units of a dtype."""

    #: Elements, and words, in a unit.
    width: int
    words: int
    #: The type of a word.
    word: Any
    #: ``load(pointer, index, wanted)``: a tuple of words.
    load: Any
    #: ``keep(words, held, at)``: into a local array from `at` on.
    keep: Any
    #: ``expand(held, at, values)``: the numbers of a unit into a local array.
    expand: Any
    #: ``parameters(pointer, index, wanted, values)``: as many parameters as a unit has elements.
    parameters: Any
    #: ``store(pointer, index, values, wanted)``: rounded, from a local array.
    store: Any


@cache
def units(kind: str, vector: bool, policy: str = STREAM) -> Units:
    """Units of a dtype: 16 bytes each, or single elements."""
    number = real(kind)
    width = VECTOR[kind] if vector else 1
    if not vector:
        load_one = _intrinsics.scalar_load(kind, policy)
        store_one = _intrinsics.scalar_store(kind)
        parameter = _intrinsics.scalar_load("float64" if kind == "float64" else "float32", KEEP)
        return Units(1, 1, number, _single(load_one), _keep1, _expand1, _parameters1(parameter), _store1(store_one))
    store = _intrinsics.vector_store(kind)
    parameter = _intrinsics.vector_load("float64" if kind == "float64" else "float32", KEEP)
    if width == 8:
        load = _intrinsics.words_load(kind, policy)
        expand = _expand8(_intrinsics.unpack(kind))
        return Units(8, 4, types.uint32, load, _keep4, expand, _parameters8(parameter), _store8(store))
    load = _intrinsics.vector_load(kind, policy)
    if width == 4:
        return Units(4, 4, number, load, _keep4, _expand4, _parameters4(parameter), _store4(store))
    return Units(2, 2, number, load, _keep2, _expand2, _parameters2(parameter), _store2(store))


def _single(load):
    @device
    def load_single(pointer, index, wanted):
        return (load(pointer, index, wanted),)

    return load_single


@device
def _keep1(words, held, at):
    held[at] = words[0]


@device
def _keep2(words, held, at):
    held[at] = words[0]
    held[at + 1] = words[1]


@device
def _keep4(words, held, at):
    held[at] = words[0]
    held[at + 1] = words[1]
    held[at + 2] = words[2]
    held[at + 3] = words[3]


@device
def _expand1(held, at, values):
    values[0] = held[at]


@device
def _expand2(held, at, values):
    values[0] = held[at]
    values[1] = held[at + 1]


@device
def _expand4(held, at, values):
    values[0] = held[at]
    values[1] = held[at + 1]
    values[2] = held[at + 2]
    values[3] = held[at + 3]


def _expand8(unpack):
    @device
    def expand(held, at, values):
        for k in range(4):
            pair = unpack(held[at + k])
            values[2 * k] = pair[0]
            values[2 * k + 1] = pair[1]

    return expand


def _parameters1(load):
    @device
    def parameters(pointer, index, wanted, values):
        values[0] = load(pointer, index, wanted)

    return parameters


def _parameters2(load):
    @device
    def parameters(pointer, index, wanted, values):
        pair = load(pointer, index, wanted)
        values[0] = pair[0]
        values[1] = pair[1]

    return parameters


def _parameters4(load):
    @device
    def parameters(pointer, index, wanted, values):
        four = load(pointer, index, wanted)
        values[0] = four[0]
        values[1] = four[1]
        values[2] = four[2]
        values[3] = four[3]

    return parameters


def _parameters8(load):
    @device
    def parameters(pointer, index, wanted, values):
        for k in range(2):
            four = load(pointer, index + 4 * k, wanted)
            values[4 * k] = four[0]
            values[4 * k + 1] = four[1]
            values[4 * k + 2] = four[2]
            values[4 * k + 3] = four[3]

    return parameters


def _store1(store):
    @device
    def store_values(pointer, index, v, wanted):
        store(pointer, index, v[0], wanted)

    return store_values


def _store2(store):
    @device
    def store_values(pointer, index, v, wanted):
        store(pointer, index, (v[0], v[1]), wanted)

    return store_values


def _store4(store):
    @device
    def store_values(pointer, index, v, wanted):
        store(pointer, index, (v[0], v[1], v[2], v[3]), wanted)

    return store_values


def _store8(store):
    @device
    def store_values(pointer, index, v, wanted):
        store(pointer, index, (v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]), wanted)

    return store_values
