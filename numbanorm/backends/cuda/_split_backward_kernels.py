"""Gradients in two visits to dy and x, for sets that do not fit on chip: sums of pieces, then dx.

Sets lie as rows do in :mod:`._norm_rows_kernels`. `parts` (3, pieces, sets) holds the sums of dy,
dy * xhat0 and xhat0 of each piece (see :mod:`._backward_arithmetic`).
"""

from __future__ import annotations

from numba import cuda

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import two_sum
from numbanorm.backends.cuda._backward_arithmetic import (
    FIXED,
    GAMMA_ALONG,
    WANT_DX,
    WANT_SUMS,
    int32,
    int64,
    quotient_of,
    remainder,
    set_statistics,
    team_totals,
    uint32,
)
from numbanorm.backends.cuda._intrinsics import pointer, real
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._norm_rows_kernels import segment_of
from numbanorm.backends.cuda._vectors import units

#: Threads of a block of sums.
THREADS = 256


def units_at_once(vector: bool) -> int:
    """Units of dy, and of x, that a thread has in flight."""
    return 2 if vector else 4


@_jit.kernel
def split_backward(kind, vector):
    """Block (set, piece) leaves the sums of its piece of `piece` elements, a multiple of 16 bytes.

    Of ``dy * gamma`` with ``GAMMA_ALONG``. Where statistics are ``FIXED`` it writes dx, too.
    Statistics are those of set ``i // per_statistic``.
    """
    n_units = units_at_once(vector)
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    parameters, store, kept = unit.parameters, unit.store, n_units * unit.words
    number = real(kind)
    totals, statistics = team_totals(kind), set_statistics(kind)
    zero, one = number(0), number(1)

    def split_backward(
        dy, x, gamma, mean, rstd, dx, parts, n_sets, n_cols, stride, segment, gap, piece, magic, shift,
        n_splits, per_statistic, n_gamma, flags,
    ):  # fmt: skip
        buffers = cuda.shared.array((2, 96), number)
        gradients = cuda.local.array(kept, word)
        held = cuda.local.array(kept, word)
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        t = cuda.threadIdx.x
        one_set = quotient_of(int64(cuda.blockIdx.x), n_splits)
        split = int64(cuda.blockIdx.x) - one_set * n_splits
        left = split * piece
        length = int32(min(piece, n_cols - left))
        before = left // segment
        origin = one_set * stride + left + before * gap
        offset = int32(left - before * segment)
        centre, scale = statistics(mean, rstd, quotient_of(one_set, per_statistic), True, flags)
        factor = gamma[remainder(one_set, 1, n_gamma)] * scale
        for e in range(width):
            g[e] = one
        a, al, b, bl, c, cl = zero, zero, zero, zero, zero, zero
        for first in range(t * width, length, THREADS * width * n_units):
            for v in range(n_units):
                j = first + v * THREADS * width
                at = origin + j + segment_of(offset + j, magic, shift) * gap
                keep(load(dy, at, j < length), gradients, v * words)
                keep(load(x, at, j < length and flags & WANT_SUMS != 0), held, v * words)
            for v in range(n_units):
                j = first + v * THREADS * width
                if j < length:
                    expand(gradients, v * words, dys)
                    expand(held, v * words, xs)
                    if flags & GAMMA_ALONG:
                        parameters(gamma, left + j, True, g)
                    of_a, of_b, of_c = zero, zero, zero
                    for e in range(width):
                        xhat = (xs[e] - centre) * scale
                        gradient = dys[e] * g[e]
                        of_a += gradient
                        of_b += gradient * xhat
                        of_c += xhat
                        dys[e] = dys[e] * factor
                    if flags & FIXED:
                        at = origin + j + segment_of(offset + j, magic, shift) * gap
                        store(dx, at, dys, flags & WANT_DX != 0)
                    a, lost = two_sum(a, of_a)
                    al += lost
                    b, lost = two_sum(b, of_b)
                    bl += lost
                    c, lost = two_sum(c, of_c)
                    cl += lost
        if flags & WANT_SUMS:
            # Each thread's sums are short of a rounding only; so is a tree of their high parts and one of the low.
            a, b, c = totals(a, b, c, int32(THREADS), buffers[0])
            al, bl, cl = totals(al, bl, cl, int32(THREADS), buffers[1])
            if t == 0:
                at = split * n_sets + one_set
                plane = n_splits * n_sets
                parts[at] = a + al
                parts[at + plane] = b + bl
                parts[at + 2 * plane] = c + cl

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), pointer(kind), p, p, p, pointer(kind), p)
    layout = (int64, int64, int64, int64, int64, int64, uint32, int32)
    return split_backward, (*arrays, *layout, int32, int64, int64, int32), THREADS


@_jit.kernel
def planes_backward(kind, vector, n_units):
    """dx of segments of n_inner elements: a team of `lanes` threads takes one of the n_chunks pieces of a segment.

    Segment i belongs to set ``i // per_set % n_sets`` and has parameter ``i % n_gamma``;
    `operands` (3, n_sets) are slope, constant and low. The last blocks come first, whose dy and
    x are still in the L2.
    """
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    store, kept = unit.store, n_units * unit.words
    number, statistics = real(kind), set_statistics(kind)

    def planes_backward(
        dy, x, gamma, mean, rstd, operands, dx, n_segments, n_inner, per_set, n_sets, n_gamma, lanes, n_chunks, flags
    ):
        gradients = cuda.local.array(kept, word)
        held = cuda.local.array(kept, word)
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        block = int64(cuda.gridDim.x - 1 - cuda.blockIdx.x)
        group = quotient_of(block, n_chunks)
        team = int32(uint32(cuda.threadIdx.x) // uint32(lanes))
        segment = group * int32(uint32(cuda.blockDim.x) // uint32(lanes)) + team
        first = ((block - group * n_chunks) * (lanes * n_units) + cuda.threadIdx.x - team * lanes) * width
        if segment < n_segments:
            start = segment * n_inner
            for v in range(n_units):
                j = first + v * lanes * width
                keep(load(dy, start + j, j < n_inner), gradients, v * words)
                keep(load(x, start + j, j < n_inner), held, v * words)
            one_set = remainder(quotient_of(segment, per_set), 1, n_sets)
            centre, scale = statistics(mean, rstd, one_set, True, flags)
            slope, constant = operands[one_set], operands[n_sets + one_set]
            factor = gamma[remainder(segment, 1, n_gamma)] * scale
            for v in range(n_units):
                j = first + v * lanes * width
                if j < n_inner:
                    expand(gradients, v * words, dys)
                    expand(held, v * words, xs)
                    for e in range(width):
                        xs[e] = dys[e] * factor + (xs[e] - centre) * scale * slope + constant
                    store(dx, start + j, xs, True)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), pointer(kind), p, p, p, p, pointer(kind))
    return planes_backward, (*arrays, *[int64] * 5, int32, int32, int32), 512
