"""Statistics of channels that lie along the last axis of x (n, n_channels): x is read once."""

from __future__ import annotations

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import N_SUMS, load_sums, merged, store_sums
from numbanorm.backends.cuda._intrinsics import STREAM, pointer, real
from numbanorm.backends.cuda._launch_moments import column_threads
from numbanorm.backends.cuda._moments_cols import column_accumulator
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._norm_split_kernels import finisher
from numbanorm.backends.cuda._parts import is_last, part_loader

int32, int64 = types.int32, types.int64


@_jit.kernel
def column_statistics(kind, vector, width):
    """A block has a piece of the rows of a tile of columns, the last of a tile's blocks merges its pieces.

    `width` neighbouring threads share a row of the tile. With width 0 the tile is all of the
    columns, and `across` rows lie one behind the other in each step of the block. The cut is
    that of :func:`._launch_moments.cols`.
    """
    threads, number = column_threads(vector), real(kind)
    n_states = threads * vector
    members, n_shared = N_SUMS * vector, N_SUMS * n_states
    sums_of, load_part, finish = column_accumulator(kind, vector, STREAM), part_loader(kind), finisher(kind)
    tile_cols, tile_rows = width * vector, threads // max(width, 1)

    @_jit.device
    def merge_columns(shared, n_cols, n_sets):
        """Merge sums that lie `n_cols` apart, pairwise, into the first `n_cols`."""
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
    def merge_parts(shared, scratch, first, n_cols, n_channels, n_splits, n_sets):
        """The parts of each column into `n_sets` sums, by as many threads for each."""
        n_parts = n_splits * n_channels
        for i in range(cuda.threadIdx.x, n_sets * n_cols, threads):
            col = i % n_cols
            size, c, k, a, al, b, bl = load_part(scratch, first + (i // n_cols) * n_channels + col, n_parts)
            for s in range(i // n_cols + n_sets, n_splits, n_sets):
                n2, c2, k2, a2, al2, b2, bl2 = load_part(scratch, first + s * n_channels + col, n_parts)
                size, c, k, a, al, b, bl = merged(size, c, k, a, al, b, bl, n2, c2, k2, a2, al2, b2, bl2)
            store_sums(shared, i, n_states, size, c, number(k), a, al, b, bl)

    def column_statistics(
        x, scratch, tickets, centre, rest, ready, first_out, second_out, n_rows, n_channels, n_tiles, n_splits,
        piece, across, flags, n, nl, inverse, eps,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        sums = cuda.local.array(members, number)
        t = cuda.threadIdx.x
        split = int64(cuda.blockIdx.x) // n_tiles
        tile = int64(cuda.blockIdx.x) - split * n_tiles
        left = split * piece
        last = min(left + piece, n_rows) * n_channels
        if width == 0:
            col, n_cols, n_sets, stride = int64(0), int32(n_channels), int32(across), across * n_channels
            first = left * n_channels + t * vector
            if t * vector >= stride:
                first = last
        else:
            col, n_cols, n_sets, stride = tile * tile_cols, int32(tile_cols), int32(tile_rows), tile_rows * n_channels
            first = (left + t // width) * n_channels + col + (t % width) * vector
            if col + (t % width) * vector >= n_channels:
                first = last
        sums_of(x, first, last, stride, sums)
        for e in range(vector):
            size, c, k, a, al, b, bl = load_sums(sums, e, vector)
            store_sums(shared, t * vector + e, n_states, size, c, number(k), a, al, b, bl)
        merge_columns(shared, n_cols, n_sets)
        present = min(int64(n_cols), n_channels - col)
        if n_splits > 1:
            for i in range(t, present, threads):
                size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                at = split * n_channels + col + i
                store_sums(scratch, at, n_splits * n_channels, size, c, number(k), a, al, b, bl)
            if not is_last(tickets, tile, n_splits):
                return
            n_sets = int32(max(min(threads // n_cols, n_splits), 1))
            n_cols = int32(present)
            merge_parts(shared, scratch, col, n_cols, n_channels, n_splits, n_sets)
            merge_columns(shared, n_cols, n_sets)
        for i in range(t, present, threads):
            size, c, k, a, al, b, bl = load_sums(shared, i, n_states)
            finish(col + i, c, k, a, al, b, bl, centre, rest, ready, first_out, second_out, n, nl, inverse, eps, flags)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), p, pointer("uint32"), p, p, p, p, p)
    return column_statistics, (*arrays, *[int64] * 6, int32, *[real(kind)] * 4), threads
