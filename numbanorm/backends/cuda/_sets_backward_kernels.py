"""Gradients of sets that share statistics and whose parameters are constant in segments: groups, channels.

Sets lie as rows do in :mod:`._norm_rows_kernels`; dy and x are read once and stay in registers.
Segment s of set r has parameter ``r % period * n_segments + s``, or all segments have
parameter ``r % period`` (``ONE_PARAMETER``). The share of dgamma and dbeta of each segment, or of
each set, goes to `of_gamma` and `of_beta`.
"""

from __future__ import annotations

from numba import cuda

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    FULL,
    ONE_PARAMETER,
    PER_ELEMENT,
    WANT_DX,
    WANT_SUMS,
    int32,
    int64,
    scale_parameters,
    set_statistics,
    team_totals,
    through_statistics,
    uint32,
)
from numbanorm.backends.cuda._intrinsics import forgotten, pointer, real, scalar_store
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._launch_backward import SETS_THREADS
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._norm_rows_kernels import segment_of
from numbanorm.backends.cuda._vectors import units


@_jit.kernel
def sets_backward(kind, vector, n_units):
    """Each team of `lanes` threads takes one set of at most n_units * lanes units.

    Segments are summed from `slots` in shared memory, one for each unit (or element, with
    ``PER_ELEMENT``), by `together` neighbouring threads each.
    """
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    store, store_one, kept = unit.store, scalar_store(compute_kind(kind)), n_units * unit.words
    number = real(kind)
    totals, finish, statistics = team_totals(kind), through_statistics(kind), set_statistics(kind)
    zero, one = number(0), number(1)

    @device
    def factors(gamma, first, n_gamma, j, magic, shift, flags, g):
        """gamma of a unit's elements; ones where that of the set is multiplied with its sums."""
        if flags & ONE_PARAMETER:
            for e in range(width):
                g[e] = one
        elif n_gamma == 1:
            for e in range(width):
                g[e] = gamma[0]
        elif flags & PER_ELEMENT:
            for e in range(width):
                g[e] = gamma[first + segment_of(j + e, magic, shift)]
        else:
            value = gamma[first + segment_of(j, magic, shift)]
            for e in range(width):
                g[e] = value

    @device
    def segment_sums(slots, at, plane, length, of_gamma, of_beta, row, low, n_segments, lane, lanes, together, there):
        """What segments of the team's set leave; each has `length` slots from `at` on."""
        member = lane & (together - 1)
        first = int32(0)
        # The barrier also tells the compiler that warps are together, see _rows_backward_kernels.
        while cuda.syncthreads_or(int32(first < n_segments)) != 0:
            segment = first + int32(uint32(lane) // uint32(together))
            wanted = there & (segment < n_segments)
            a, b = zero, zero
            for k in range(0, length, together):
                s = k + member
                inside = wanted & (s < length)
                slot = at + segment * length + s if inside else at
                of_a, of_b = slots[slot], slots[slot + plane]
                a += of_a if inside else zero
                b += of_b if inside else zero
            for bits in (16, 8, 4, 2, 1):
                other_a = cuda.shfl_xor_sync(FULL, a, bits)
                other_b = cuda.shfl_xor_sync(FULL, b, bits)
                a += other_a if together > bits else zero
                b += other_b if together > bits else zero
            store_one(of_gamma, row * n_segments + segment, b - low * a, wanted & (member == 0))
            store_one(of_beta, row * n_segments + segment, a, wanted & (member == 0))
            first = int32(first + uint32(lanes) // uint32(together))

    def sets_backward(
        dy, x, gamma, mean, rstd, dx, of_gamma, of_beta, n_rows, n_cols, stride, gap, magic, shift,
        n_gamma, period, n_segments, n_slots, length, together, lanes, flags, inverse, degrees, std_eps,
    ):  # fmt: skip
        buffers = cuda.shared.array(96, number)
        slots = cuda.shared.array(0, number)
        gradients = cuda.local.array(kept, word)
        held = cuda.local.array(kept, word)
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        teams = int32(uint32(cuda.blockDim.x) // uint32(lanes))
        team = int32(uint32(cuda.threadIdx.x) // uint32(lanes))
        lane = int32(cuda.threadIdx.x - team * lanes)
        row = int64(cuda.blockIdx.x) * teams + team
        there = row < n_rows
        for v in range(n_units):
            j = (v * lanes + lane) * width
            at = row * stride + j + segment_of(j, magic, shift) * gap
            keep(load(dy, at, there & (j < n_cols)), gradients, v * words)
            keep(load(x, at, there & (j < n_cols)), held, v * words)
        centre, scale = statistics(mean, rstd, row, there, flags)
        parameter = int32(uint32(row) % uint32(period)) * (1 if flags & ONE_PARAMETER else n_segments)

        a, b, c = zero, zero, zero
        slot, plane = team * n_slots, teams * n_slots
        for v in range(n_units):
            unit_at = v * lanes + forgotten(lane)
            j = unit_at * width
            inside = j < n_cols
            expand(gradients, v * words, dys)
            expand(held, v * words, xs)
            factors(gamma, parameter, n_gamma, j if inside else 0, magic, shift, flags, g)
            of_a, of_b, of_c, of_dy, of_product = zero, zero, zero, zero, zero
            for e in range(width):
                xhat = (xs[e] - centre) * scale
                product = dys[e] * xhat
                if n_slots > 0 and flags & PER_ELEMENT:
                    slots[slot + j + e] = dys[e]
                    slots[slot + plane + j + e] = product
                of_dy += dys[e]
                of_product += product
                of_a += dys[e] * g[e]
                of_b += product * g[e]
                of_c += xhat
            if n_slots > 0 and not flags & PER_ELEMENT:
                slots[slot + unit_at] = of_dy
                slots[slot + plane + unit_at] = of_product
            a += of_a
            b += of_b
            c += of_c if inside else zero
        a, b, c = totals(a, b, c, lanes, buffers)
        total, product, factor = a, b, one
        if flags & ONE_PARAMETER:
            factor = gamma[parameter if n_gamma > 1 else 0]
            a, b = a * factor, b * factor
        low, slope, constant = finish(a, b, c, scale, flags, inverse, degrees, std_eps)
        if n_slots > 0:
            segment_sums(
                slots, slot, plane, length, of_gamma, of_beta, row, low, n_segments, lane, lanes, together, there
            )
        else:
            wanted = (flags & WANT_SUMS != 0) & there & (lane == 0)
            store_one(of_gamma, row, product - low * total, wanted)
            store_one(of_beta, row, total, wanted)
        for k in range(kept):
            gradients[k] = forgotten(gradients[k])
            held[k] = forgotten(held[k])
        row, lane = forgotten(row), forgotten(lane)
        for v in range(n_units):
            j = (v * lanes + lane) * width
            if there and j < n_cols:
                expand(gradients, v * words, dys)
                expand(held, v * words, xs)
                factors(gamma, parameter, n_gamma, j, magic, shift, flags, g)
                for e in range(width):
                    xhat = (xs[e] - centre) * scale
                    xs[e] = dys[e] * (g[e] * factor * scale) + xhat * slope + constant
                store(dx, row * stride + j + segment_of(j, magic, shift) * gap, xs, flags & WANT_DX != 0)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), pointer(kind), p, p, p, pointer(kind), p, p)
    layout = (int64, int32, int64, int64, uint32, int32)
    return (
        sets_backward,
        (*arrays, *layout, *[int32] * 8, *scale_parameters(kind)),
        SETS_THREADS,
    )
