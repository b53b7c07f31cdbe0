"""Gradients in two visits to dy and x: sums of pieces, then dx. Five sizes of x are moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    FIXED,
    GAMMA_ALONG,
    USE_MEAN,
    WANT_DX,
    WANT_SUMS,
    scale_arguments,
)
from numbanorm.backends.cuda._backward_launches import (
    WARPS,
    merge,
    n_pieces,
    planned_columns,
    prepared,
    sum_pieces,
    visit_columns,
    write_planes,
)
from numbanorm.backends.cuda._launch_norms import Layout, ceil_div
from numbanorm.backends.cuda._merge_backward_kernels import (
    CENTRED,
    OPERANDS,
    RAW,
    merge_segments,
)
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._room import part_of
from numbanorm.backends.cuda._split import channels_layout
from numbanorm.backends.cuda.affine import aligned, kind_of

Array = Any


def rows_in_two(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    vector: bool,
    flags: int,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Sums of pieces of rows, then columns: 5 sizes of x."""
    n_rows, n_cols = x.shape
    kind, layout = kind_of(x.dtype), Layout(n_rows, n_cols, n_cols, n_cols, 0, 0, 0)
    n_splits, n_chunks = (
        n_pieces(x.itemsize, layout),
        planned_columns(x.itemsize, vector, n_rows, n_cols, True).n_chunks,
    )
    sizes = 3 * n_rows, 3 * n_splits * n_rows, 2 * n_chunks * n_cols * bool(flags & WANT_SUMS)
    mean, rest, rstd, _, operands, parts, shares = prepared(kind, mean, rstd, bool(flags & USE_MEAN), *sizes)
    scale = scale_arguments(kind, n_cols, ddof, std_eps)
    given = dy, x, gamma, mean, rstd
    sum_pieces(kind, vector, layout, x.itemsize, 1, 1, flags & ~WANT_DX | WANT_SUMS, *given, dx, parts)
    nothing = dgamma[:0]
    wanted = flags & USE_MEAN | GAMMA_ALONG | CENTRED | OPERANDS
    statistics, plane = (rest, rstd), n_splits * n_rows
    merge(kind, parts, n_rows, n_splits, plane, wanted, nothing, nothing, gamma, statistics, operands, scale)
    visit_columns(kind, vector, True, (n_rows, n_cols), x.itemsize, flags, *given, operands, dx, shares)
    if flags & WANT_SUMS:
        merge(kind, shares, n_cols, n_chunks, n_chunks * n_cols, 0, dgamma, dbeta)


def groups_in_two(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    flags: int,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Sums of pieces of segments, then dx: 5 sizes of x."""
    n_rows, n_channels, n_inner = x.shape
    kind, n = kind_of(x.dtype), n_rows * n_channels
    vector = not n_inner * x.itemsize & 15 and aligned(dy, x, dx)
    layout = Layout(n, n_inner, n_inner, n_inner, 0, 0, 0)
    n_splits, n_sums = n_pieces(x.itemsize, layout), n * bool(flags & WANT_SUMS)
    sizes = 3 * n_rows, 3 * n_splits * n, 3 * n * (n_splits > 1), 2 * n_sums
    ready = prepared(kind, mean, rstd, bool(flags & USE_MEAN), *sizes)
    mean, _, rstd, _, operands, parts, whole, shares = ready
    given = dy, x, gamma, mean, rstd
    sums = flags & ~WANT_DX | WANT_SUMS
    sum_pieces(kind, vector, layout, x.itemsize, n_channels, 1, sums, *given, dx, parts)
    if n_splits > 1:
        nothing = dgamma[:0]
        merge(kind, parts, n, n_splits, n_splits * n, CENTRED | FIXED | RAW, nothing, nothing, operands=whole)
        parts = whole
    wide = (np.int64(v) for v in (n_rows, n_channels, 1, gamma.size))
    scale = scale_arguments(kind, n_channels * n_inner, ddof, std_eps)
    words = np.int32(n_sums > 0), np.int32(flags)
    arrays = parts, gamma, rstd, part_of(shares, n_sums, 2 * n_sums), shares, operands
    _jit.run(merge_segments(compute_kind(kind)), ceil_div(n_rows, WARPS), *arrays, *wide, *words, *scale)
    if dx.size:
        write_planes(kind, vector, (n, n_inner), n_channels, n_rows, flags, *given, operands, dx)
    if n_sums:
        n_out = max(dgamma.size, dbeta.size)
        merge(kind, shares, n_out, n_sums // n_out, n_sums, 0, dgamma, dbeta)


def channels_in_two(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    vector: bool,
    flags: int,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Sums of pieces of channels, then dx; all at once where statistics are fixed."""
    n, n_channels, n_inner = x.shape
    kind, fixed = kind_of(x.dtype), bool(flags & FIXED)
    layout = channels_layout(n, n_channels, n_inner)
    n_splits = n_pieces(x.itemsize, layout)
    sums = bool(flags & WANT_SUMS) or not fixed
    sizes = 3 * n_channels * (not fixed), 3 * n_splits * n_channels * sums
    mean, rest, rstd, has_rest, operands, parts = prepared(kind, mean, rstd, True, *sizes)
    given = dy, x, gamma, mean, rstd
    flags |= WANT_SUMS * sums
    sum_pieces(kind, vector, layout, x.itemsize, 1, gamma.size, flags, *given, dx, parts)
    if sums:
        wanted = flags & (USE_MEAN | FIXED) | has_rest | (0 if fixed else CENTRED | OPERANDS)
        scale = scale_arguments(kind, n * n_inner, ddof, std_eps)
        plane, statistics = n_splits * n_channels, (rest, rstd)
        merge(kind, parts, n_channels, n_splits, plane, wanted, dgamma, dbeta, gamma, statistics, operands, scale)
    if dx.size and not fixed:
        write_planes(kind, vector, (n * n_channels, n_inner), 1, n_channels, flags, *given, operands, dx)


def channels_last(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    flags: int,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """The same for x (n, n_channels, 1), by columns."""
    n, n_channels, _ = x.shape
    kind, fixed, shape = kind_of(x.dtype), bool(flags & FIXED), (n, n_channels)
    vector = not n_channels * x.itemsize & 15 and aligned(dy, x, dx, gamma, mean, rstd)
    n_chunks = planned_columns(x.itemsize, vector, *shape, True).n_chunks
    sums = bool(flags & WANT_SUMS) or not fixed
    sizes = 3 * n_channels * (not fixed), 3 * n_chunks * n_channels * sums
    mean, rest, rstd, has_rest, operands, parts = prepared(kind, mean, rstd, True, *sizes)
    given = dy, x, gamma, mean, rstd, operands, dx, parts
    flags |= WANT_SUMS * sums
    first = flags if fixed else flags & ~WANT_DX
    visit_columns(kind, vector, False, shape, x.itemsize, first, *given)
    if sums:
        wanted = flags & (USE_MEAN | FIXED) | has_rest | (0 if fixed else CENTRED | OPERANDS)
        scale = scale_arguments(kind, n, ddof, std_eps)
        plane, statistics = n_chunks * n_channels, (rest, rstd)
        merge(kind, parts, n_channels, n_chunks, plane, wanted, dgamma, dbeta, gamma, statistics, operands, scale)
    if dx.size and not fixed:
        visit_columns(kind, vector, False, shape, x.itemsize, flags & ~WANT_SUMS, *given)
