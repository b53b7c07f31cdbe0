"""Statistics of channels that lie along the last axis of x (n, n_channels): x is read once."""

from __future__ import annotations

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import N_SUMS, load_sums
from numbanorm.backends.cuda._intrinsics import STREAM, pointer, real
from numbanorm.backends.cuda._launch_moments import column_threads
from numbanorm.backends.cuda._moments_cols import CUT, column_bounds, tile_states, tile_sums
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._norm_split_kernels import finisher


@_jit.kernel
def column_statistics(kind, vector, width):
    """A block has a piece of the rows of a tile of columns; see :func:`._moments_cols.tile_sums`."""
    threads, number, n_states = column_threads(vector), real(kind), tile_states(vector)
    n_shared, finish = N_SUMS * n_states, finisher(kind)
    sums = tile_sums(kind, vector, width, STREAM, True)

    def column_statistics(
        x, scratch, tickets, centre, rest, ready, first_out, second_out, n_outer, n_rows, n_channels, n_tiles, n_splits,
        piece, across, group, n_parts, flags, n, nl, inverse, eps,
    ):  # fmt: skip
        shared = cuda.shared.array(n_shared, number)
        there, first, present = sums(
            x, scratch, tickets, shared, n_outer, n_rows, n_channels, n_tiles, n_splits, piece, across, group, n_parts
        )
        if there:
            for i in range(cuda.threadIdx.x, present, threads):
                _, c, k, a, al, b, bl = load_sums(shared, i, n_states)
                out = first + i
                finish(out, c, k, a, al, b, bl, centre, rest, ready, first_out, second_out, n, nl, inverse, eps, flags)

    p = pointer(compute_kind(kind))
    arrays = (pointer(kind), p, pointer("uint32"), p, p, p, p, p)
    return column_statistics, (*arrays, *CUT, types.int32, *[real(kind)] * 4), column_bounds(kind, vector)
