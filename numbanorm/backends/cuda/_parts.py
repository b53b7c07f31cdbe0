"""What blocks leave for each other: sums in scratch, and who of them is the last."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda, int32, uint32

from numbanorm.backends.cuda._arithmetic import MOST, SCALED, merged, over_block
from numbanorm.backends.cuda._intrinsics import ORDERED, real, scalar_load, take_ticket, vector_load
from numbanorm.backends.cuda._jit import device


def working(kind: str) -> str:
    """The kind of the numbers that elements of a kind are computed with."""
    return "float64" if kind == "float64" else "float32"


@cache
def loader(kind: str, vector: int, policy: str) -> Any:
    """``load(x, i, wanted)``: a tuple of `vector` elements, 1 or as many as 16 bytes hold."""
    if vector > 1:
        return vector_load(kind, policy)
    load = scalar_load(kind, policy)
    return device(lambda x, i, wanted: (load(x, i, wanted),))


@cache
def part_loader(kind: str) -> Any:
    """``load(planes, at, stride)``: sums that another block wrote with ``store_sums``."""
    load = scalar_load(working(kind), ORDERED)

    @device
    def load_part(planes, at, stride):
        return (
            load(planes, at, True),
            load(planes, at + stride, True),
            int32(load(planes, at + 2 * stride, True)),
            load(planes, at + 3 * stride, True),
            load(planes, at + 4 * stride, True),
            load(planes, at + 5 * stride, True),
            load(planes, at + 6 * stride, True),
        )

    return load_part


@cache
def parts_reducer(kind: str, threads: int) -> Any:
    """``reduce(scratch, first, n_splits, n_parts, shared)``: the sums of a set's parts, in the block's first warp.

    `shared` is what :func:`._arithmetic.over_block` asks for.
    """
    number, load_part = real(kind), part_loader(kind)
    reduce_block = over_block(threads, kind in SCALED, number)

    @device
    def reduce_parts(scratch, first, n_splits, n_parts, shared):
        zero = number(0)
        size, c, k, a, al, b, bl = zero, zero, int32(MOST), zero, zero, zero, zero
        for s in range(cuda.threadIdx.x, n_splits, threads):
            n2, c2, k2, a2, al2, b2, bl2 = load_part(scratch, first + s, n_parts)
            size, c, k, a, al, b, bl = merged(size, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2)
        return reduce_block(size, c, k, a, al, b, bl, shared)

    return reduce_parts


@device
def is_last(tickets, i, n_blocks):
    """Whether this block is the last of the `n_blocks` that share ticket `i`; then it sees what the others wrote."""
    taken = cuda.shared.array(1, uint32)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        taken[0] = take_ticket(tickets, i, uint32(n_blocks - 1))
    cuda.syncthreads()
    return taken[0] == uint32(n_blocks - 1)
