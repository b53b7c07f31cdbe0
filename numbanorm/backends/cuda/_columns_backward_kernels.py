"""Gradients along columns, a thread for a unit of them: sums over rows, dx from operands, or both in one visit.

x has n_rows rows of n_cols elements. Statistics and operands are those of the column (channels
along the last axis), or with ``BY_ROW`` those of the row (layer norm of long rows).
`parts` (2 or 3, n_chunks, n_cols): the sums of dy, dy * xhat and, by column, xhat.
"""

from __future__ import annotations

from numba import cuda

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    FIXED,
    USE_MEAN,
    WANT_DX,
    WANT_SUMS,
    int32,
    int64,
    uint32,
)
from numbanorm.backends.cuda._intrinsics import pointer, real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._vectors import units

#: Threads of a block, and rows that each has in flight.
THREADS, ROWS_AT_ONCE = 256, 2


@_jit.kernel
def columns_backward(kind, vector, by_row):
    """`lanes` threads side by side take a unit each; a block has a tile of columns and a chunk of rows."""
    unit = units(kind, vector)
    width, words, word, load, keep, expand = unit.width, unit.words, unit.word, unit.load, unit.keep, unit.expand
    parameters, store, kept = unit.parameters, unit.store, ROWS_AT_ONCE * unit.words
    number = real(kind)
    n_planes = 2 if by_row else 3
    n_shared = THREADS * width
    zero = number(0)

    @device
    def of_columns(mean, rstd, operands, gamma, column, n_cols, flags, centre, scale, g, slope, constant):
        """Statistics and operands of a thread's columns."""
        parameters(mean, column, flags & USE_MEAN != 0, centre)
        parameters(rstd, column, True, scale)
        for e in range(width):
            slope[e] = zero
            constant[e] = zero
        if flags & WANT_DX and not flags & FIXED:
            for e in range(width):
                slope[e] = operands[column + e]
                constant[e] = operands[n_cols + column + e]

    @device
    def leave(acc, shared, parts, plane, column, chunk, n_chunks, n_cols, line, lines, lanes):
        """The sums of a block's lines as one, pairwise, to `parts`."""
        t = cuda.threadIdx.x
        cuda.syncthreads()
        for e in range(width):
            shared[e * THREADS + t] = acc[e]
        cuda.syncthreads()
        n_sets = lines
        while n_sets > 1:
            half = (n_sets + 1) // 2
            if t + half * lanes < n_sets * lanes:
                for e in range(width):
                    shared[e * THREADS + t] += shared[e * THREADS + t + half * lanes]
            n_sets = half
            cuda.syncthreads()
        if line == 0 and column < n_cols:
            at = (plane * n_chunks + int64(chunk)) * n_cols + column
            for e in range(width):
                parts[at + e] = shared[e * THREADS + t]

    def columns_backward(
        dy, x, gamma, mean, rstd, operands, dx, parts, n_rows, n_cols, rows_per_chunk, n_gamma,
        tiles, n_chunks, lanes, flags,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        gradients = cuda.local.array(kept, word)
        held = cuda.local.array(kept, word)
        dys = cuda.local.array(width, number)
        xs = cuda.local.array(width, number)
        centre = cuda.local.array(width, number)
        scale = cuda.local.array(width, number)
        g = cuda.local.array(width, number)
        slope = cuda.local.array(width, number)
        constant = cuda.local.array(width, number)
        a = cuda.local.array(width, number)
        b = cuda.local.array(width, number)
        c = cuda.local.array(width, number)
        block = cuda.gridDim.x - 1 - cuda.blockIdx.x
        chunk = int32(uint32(block) // uint32(tiles))
        tile = int32(block - chunk * tiles)
        line = int32(uint32(cuda.threadIdx.x) // uint32(lanes))
        lines = int32(uint32(THREADS) // uint32(lanes))
        column = (int64(tile) * lanes + cuda.threadIdx.x - line * lanes) * width
        row = int64(chunk) * rows_per_chunk + line
        last = min(n_rows, int64(chunk + 1) * rows_per_chunk)
        for e in range(width):
            a[e], b[e], c[e] = zero, zero, zero
        if column >= n_cols or line >= lines:
            row = last
        else:
            if n_gamma > 1:
                parameters(gamma, column, True, g)
            else:
                for e in range(width):
                    g[e] = gamma[0]
            if not by_row:
                of_columns(mean, rstd, operands, gamma, column, n_cols, flags, centre, scale, g, slope, constant)
        wants_x = flags & WANT_SUMS != 0 or not flags & FIXED
        while row < last:
            for u in range(ROWS_AT_ONCE):
                r = row + u * lines
                keep(load(dy, r * n_cols + column, r < last), gradients, u * words)
                keep(load(x, r * n_cols + column, r < last and wants_x), held, u * words)
            for u in range(ROWS_AT_ONCE):
                r = row + u * lines
                if r < last:
                    expand(gradients, u * words, dys)
                    expand(held, u * words, xs)
                    if by_row:
                        middle = mean[r] if flags & USE_MEAN else zero
                        spread, of_slope, of_constant = rstd[r], operands[r], operands[n_rows + r]
                        low = operands[2 * n_rows + r]
                        for e in range(width):
                            xhat = (xs[e] - middle) * spread
                            a[e] += dys[e]
                            b[e] += dys[e] * (xhat - low)
                            xs[e] = dys[e] * (g[e] * spread) + xhat * of_slope + of_constant
                    else:
                        for e in range(width):
                            xhat = (xs[e] - centre[e]) * scale[e]
                            a[e] += dys[e]
                            b[e] += dys[e] * xhat
                            c[e] += xhat
                            dys[e] = dys[e] * (g[e] * scale[e])
                            xs[e] = dys[e] if flags & FIXED else dys[e] + xhat * slope[e] + constant[e]
                    store(dx, r * n_cols + column, xs, flags & WANT_DX != 0)
            row += ROWS_AT_ONCE * lines
        if flags & WANT_SUMS:
            leave(a, shared, parts, 0, column, chunk, n_chunks, n_cols, line, lines, lanes)
            leave(b, shared, parts, 1, column, chunk, n_chunks, n_cols, line, lines, lanes)
            if n_planes > 2:
                leave(c, shared, parts, 2, column, chunk, n_chunks, n_cols, line, lines, lanes)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), pointer(kind), p, p, p, p, pointer(kind), p)
    return columns_backward, (*arrays, *[int64] * 4, *[int32] * 4), THREADS
