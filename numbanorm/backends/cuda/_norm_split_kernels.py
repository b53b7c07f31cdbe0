"""Statistics of rows that are split over blocks: x is read once, by whoever is there.

Rows lie as in :mod:`._norm_rows_kernels`. Block (row, piece) sums its piece (see
:mod:`._arithmetic` for what sums are); the last block of a row merges the pieces in their
order and leaves what ``affine_*`` kernels take, the mean as two numbers and 1 / std, or
mean and variance as they are asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _finish, _jit
from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import (
    MOST,
    SCALED,
    WARP_SUMS,
    m2_of,
    mean_of,
    over_block,
    quotient,
    store_sums,
)
from numbanorm.backends.cuda._intrinsics import (
    VECTOR,
    exponent_of,
    pointer,
    power_of_two,
    real,
)
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import (
    EPS_ON_STD,
    KEEP_STATISTICS,
    KEEP_VARIANCE,
    USE_MEAN,
    compute_kind,
    reciprocal_std,
)
from numbanorm.backends.cuda._norm_rows_kernels import segment_of
from numbanorm.backends.cuda._parts import is_last, loader, parts_reducer

int32, int64, uint32 = types.int32, types.int64, types.uint32

#: Threads of a block.
THREADS = 256
#: A further bit of `flags`: eps is so large that a variance that underflows is nothing beside it.
EPS_HIDES = 1 << 12


def elements_at_once(kind: str) -> int:
    """Elements that a thread has in flight: 64 bytes, or 32 of a 16-bit dtype."""
    return 8 if kind == "float64" else 16


@cache
def finisher(kind: str) -> Any:
    """``finish(i, sums..., arrays..., n as a pair, 1 / n, eps, flags)``: statistics of row i to all that want them."""
    number, reciprocal = real(kind), reciprocal_std(kind)
    zero = number(0)
    # Numbers that are not all equal differ by more of their mean, if fewer than 2**40.
    equal = number(2.0**-150 if kind == "float64" else 2.0**-92)

    @device
    def finish(i, c, k, a, al, b, bl, centre, rest, ready, first, second, n, nl, inverse, eps, flags):
        q, ql = quotient(a, al, n, nl, inverse)
        mean, low = mean_of(c, k, q, ql)
        m2, m2l = m2_of(a, al, b, bl, q, ql)
        v, vl = quotient(m2, m2l, n, nl, inverse)
        v = v + vl if m2 > zero else m2
        scaled = mean * number(power_of_two(k))
        if v < scaled * scaled * equal:
            v = zero
            if flags & USE_MEAN:
                k = int32(0)
        if not flags & USE_MEAN:
            v = cuda.fma(scaled, scaled, v)
            mean = zero
            low = zero
        # Beside eps, or beyond what float32 can hold of it, the finest scales are too fine.
        coarser = min(k, int32(0)) if flags & EPS_HIDES else min(k, int32(90))
        if coarser < k:
            ratio = power_of_two(max(int32(coarser - k), int32(-126)))
            v = v * ratio * ratio
            k = coarser
        scale = number(power_of_two(k))
        back = number(power_of_two(int32(-k)))
        rstd = reciprocal(v, eps, scale, flags & EPS_ON_STD) * scale
        centre[i] = mean
        rest[i] = low
        ready[i] = rstd
        if flags & KEEP_STATISTICS:
            first[i] = mean
            second[i] = v * back * back if flags & KEEP_VARIANCE else rstd

    return finish


@cache
def piece_fetcher(kind: str, width: int) -> tuple[Any, Any]:
    """``fetch(r, x, origin, ...)`` and ``fill(r, j, n, value)`` for a thread's elements of its block's piece."""
    n_loads, stride = elements_at_once(kind) // width, THREADS * width
    load = loader(kind, width, "")

    @device
    def fetch(r, x, origin, offset, j, n, gap, magic, shift):
        """Elements from the j-th of a piece on, zeros from the n-th on; how many there are."""
        present = int32(0)
        for u in range(n_loads):
            i = int32(j + u * stride)
            at = origin + i + segment_of(offset + i, magic, shift) * gap
            values = load(x, at, i < n)
            for e in range(width):
                r[u * width + e] = values[e]
            if i < n:
                present = int32(present + width)
        return present

    @device
    def fill(r, j, n, value):
        """`value` for elements from the n-th on."""
        for u in range(n_loads):
            for e in range(width):
                r[u * width + e] = r[u * width + e] if j + u * stride < n else value

    return fetch, fill


@cache
def split_sums(kind: str, vector: bool) -> Any:
    """``sums(x, scratch, tickets, layout...)``: those of this block's row, in thread 0 of the row's last block.

    First comes whether this thread has them.
    """
    number, scaled, width = real(kind), kind in SCALED, VECTOR[kind] if vector else 1
    count, (fetch, fill) = elements_at_once(kind), piece_fetcher(kind, width)
    start, add, step = starter(kind, count, 1), adder(kind, count, 1, False), THREADS * count
    reduce_block, reduce_parts = over_block(THREADS, scaled, number), parts_reducer(kind, THREADS)
    zero = number(0)

    @device
    def sums(x, scratch, tickets, n_cols, row_stride, segment, gap, piece, magic, shift, n_splits):
        shared = cuda.shared.array(WARP_SUMS, number)
        r = cuda.local.array(count, number)
        t = cuda.threadIdx.x
        row = int64(cuda.blockIdx.x) // n_splits
        split = int64(cuda.blockIdx.x) - row * n_splits
        left = split * piece
        length = int32(min(piece, n_cols - left))
        segments = left // segment
        origin = row * row_stride + left + segments * gap
        offset = int32(left - segments * segment)

        j = int32(t * width)
        size = fetch(r, x, origin, offset, j, length, gap, magic, shift)
        c, scale, about = start(r, 0, number(size))
        fill(r, j, length, c)
        scale, about, a, al, b, bl = add(r, 0, scale, about, zero, zero, zero, zero)
        j = int32(j + step)
        while j < length:
            present = fetch(r, x, origin, offset, j, length, gap, magic, shift)
            if present < count:
                fill(r, j, length, c)
            scale, about, a, al, b, bl = add(r, 0, scale, about, a, al, b, bl)
            size = int32(size + present)
            j = int32(j + step)
        k = int32(0)
        if scaled:
            k = exponent_of(scale) if size > 0 else int32(MOST)
        total, c, k, a, al, b, bl = reduce_block(number(size), c, k, a, al, b, bl, shared)
        if n_splits > 1:
            if t == 0:
                store_sums(scratch, int64(cuda.blockIdx.x), int64(cuda.gridDim.x), total, c, number(k), a, al, b, bl)
            if not is_last(tickets, row, n_splits):
                return False, row, c, k, a, al, b, bl
            n_parts = int64(cuda.gridDim.x)
            total, c, k, a, al, b, bl = reduce_parts(scratch, row * n_splits, n_splits, n_parts, shared)
        return t == 0, row, c, k, a, al, b, bl

    return sums


#: Where the elements of rows lie and how these are split, the last parameters of :func:`split_sums`.
_LAYOUT = (int64, int64, int64, int64, int64, uint32, int32, int32)


@_jit.kernel
def split_statistics(kind, vector):
    """Grid: n_splits blocks for each row, each taking `piece` elements, a multiple of 16 bytes."""
    sums, finish, number = split_sums(kind, vector), finisher(kind), real(kind)

    def split_statistics(
        x, scratch, tickets, centre, rest, ready, first, second, n_cols, row_stride, segment, gap,
        piece, magic, shift, n_splits, flags, n, nl, inverse, eps,
    ):  # fmt: skip
        there, row, c, k, a, al, b, bl = sums(
            x, scratch, tickets, n_cols, row_stride, segment, gap, piece, magic, shift, n_splits
        )
        if there:
            finish(row, c, k, a, al, b, bl, centre, rest, ready, first, second, n, nl, inverse, eps, flags)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), p, pointer("uint32"), p, p, p, p, p)
    return split_statistics, (*arrays, *_LAYOUT, int32, number, number, number, number), THREADS


@_jit.kernel
def split_mean_var(kind, vector):
    """The same for ``mean_var_channels``, whose results have the dtype of x."""
    sums, finish = split_sums(kind, vector), _finish.writer(kind)

    def split_mean_var(
        x, scratch, tickets, mean, var, n_cols, row_stride, segment, gap, piece, magic, shift, n_splits,
        n, nl, inverse, divisor, dl, wanted,
    ):  # fmt: skip
        there, row, c, k, a, al, b, bl = sums(
            x, scratch, tickets, n_cols, row_stride, segment, gap, piece, magic, shift, n_splits
        )
        if there:
            finish(row, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, dl, wanted)

    p = pointer(kind)
    arrays = (p, pointer(compute_kind(kind)), pointer("uint32"), p, p)
    return split_mean_var, (*arrays, *_LAYOUT, *_finish.parameters(kind)), THREADS
