"""Gradients of normalisation: dy and x stay on chip between the sums of a set and its dx, else two visits.

Bytes moved are given in sizes of x, reads plus writes; least are 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._backward_arithmetic import (
    FIXED,
    GAMMA_ALONG,
    HAS_REST,
    ONE_PARAMETER,
    PER_ELEMENT,
    USE_MEAN,
    WANT_DX,
    WANT_SUMS,
    scale_arguments,
)
from numbanorm.backends.cuda._columns_backward_kernels import ROWS_AT_ONCE, columns_backward
from numbanorm.backends.cuda._columns_backward_kernels import THREADS as COLUMN_THREADS
from numbanorm.backends.cuda._launch_backward import column_sums_plan, rows_plan, sets_plan
from numbanorm.backends.cuda._launch_norms import ColumnsPlan, Layout, ceil_div, division, pieces_plan, units_held
from numbanorm.backends.cuda._merge_backward_kernels import (
    CENTRED,
    COLUMNS,
    CONVERT_THREADS,
    DBETA,
    DGAMMA,
    OPERANDS,
    RAW,
    convert_statistics,
    merge_parts,
    merge_segments,
)
from numbanorm.backends.cuda._norm_arithmetic import compute_kind
from numbanorm.backends.cuda._room import part_of, rooms
from numbanorm.backends.cuda._rows_backward_kernels import rows_backward
from numbanorm.backends.cuda._sets_backward_kernels import sets_backward
from numbanorm.backends.cuda._split import channels_layout, cut_of
from numbanorm.backends.cuda._split_backward_kernels import planes_backward, split_backward
from numbanorm.backends.cuda.affine import aligned, kind_of

Array = Any

#: Blocks of four warps merge segments.
WARPS = 4


def _flags(use_mean: bool, dx: Array, dgamma: Array, dbeta: Array) -> int:
    return USE_MEAN * use_mean | WANT_DX * (dx.size > 0) | WANT_SUMS * (dgamma.size > 0 or dbeta.size > 0)


def _prepared(kind: str, mean: Array, rstd: Array, use_mean: bool, *sizes: int) -> tuple[Any, ...]:
    """(mean, its low part, rstd) in the compute dtype, whether there is a low part, and scratch of the sizes.

    Statistics in that dtype are taken as they are; others are converted by a small launch.
    """
    number = compute_kind(kind)
    if not use_mean:
        mean = rstd
    kinds = kind_of(mean.dtype), kind_of(rstd.dtype)
    if kinds == (number, number):
        return mean, mean, rstd, 0, *(rooms(number, *sizes) if any(sizes) else [rstd] * len(sizes))
    n = rstd.size
    centre, rest, scale, *others = rooms(number, n, n, n, *sizes)
    kernel = convert_statistics(number, *kinds)
    _jit.run(kernel, ceil_div(n, CONVERT_THREADS), mean, rstd, np.int64(n), centre, rest, scale)
    return centre, rest, scale, HAS_REST, *others


def _merge(
    kind: str,
    parts: Array,
    n: int,
    n_parts: int,
    plane: int,
    flags: int,
    dgamma: Array,
    dbeta: Array,
    gamma: Array | None = None,
    statistics: tuple[Array, Array] | None = None,
    operands: Array | None = None,
    scale: tuple[Any, ...] | None = None,
) -> None:
    """Parts of sums into dgamma and dbeta, and into operands; `statistics` are the mean's low part and rstd."""
    flags |= DGAMMA * (dgamma.size > 0) | DBETA * (dbeta.size > 0)
    gamma = parts if gamma is None else gamma
    operands = parts if operands is None else operands
    numbers = (np.int64(v) for v in (n, n_parts, plane, gamma.size))
    _jit.run(
        merge_parts(compute_kind(kind)),
        ceil_div(n, COLUMNS),
        *(parts, gamma, *(statistics or (parts, parts)), dgamma, dbeta, operands),
        *numbers,
        np.int32(flags),
        *(scale or scale_arguments(kind, 1, 0, 0)),
    )


@lru_cache(maxsize=1024)
def _rows_call(
    limit: int,
    kind: str,
    itemsize: int,
    vector: bool,
    n_rows: int,
    n_cols: int,
    flags: int,
    ddof: float,
    std_eps: float,
) -> tuple[Any, ...]:
    """Plan, and where rows fit on chip the kernel and its scalar arguments."""
    plan = rows_plan(itemsize, vector, n_rows, n_cols, bool(flags & WANT_SUMS), limit)
    if plan.tier == "split":
        return plan, None, ()
    words = np.int32(n_cols), np.int32(plan.n_steps), np.int32(plan.lanes), np.int32(flags)
    kernel = rows_backward(kind, vector, plan.n_units)
    return plan, kernel, (np.int64(n_rows), *words, *scale_arguments(kind, n_cols, ddof, std_eps))


def norm_rows_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_rows`: x (n_rows, n_cols), one parameter per column, or one for all.

    Moves 3 sizes of x, or 5 where rows do not fit on chip or are few and long, and the sums of
    dgamma and dbeta that two or three blocks of each multiprocessor leave.
    """
    n_rows, n_cols = x.shape
    n_out = max(dgamma.size, dbeta.size)
    if gamma.size == 1 and not 1 < n_out == n_cols:
        cube = n_rows, 1, n_cols
        target = dx.reshape(cube) if dx.size else dx
        operands = dy.reshape(cube), x.reshape(cube), gamma, mean, rstd, std_eps, ddof, use_mean
        norm_groups_backward(*operands, target, dgamma, dbeta)
        return
    kind, flags = kind_of(x.dtype), _flags(use_mean, dx, dgamma, dbeta) | GAMMA_ALONG * (gamma.size > 1)
    vector = not n_cols * x.itemsize & 15 and aligned(dy, x, dx, gamma)
    what = _jit.shared_limit(), kind, x.itemsize, vector, n_rows, n_cols, flags, ddof, std_eps
    plan, kernel, scalars = _rows_call(*what)
    if kernel is None:
        _rows_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, vector, flags, dx, dgamma, dbeta)
        return
    plane = plan.n_parts * n_cols
    mean, _, rstd, _, parts = _prepared(kind, mean, rstd, use_mean, 2 * plane * (n_out > 0))
    arrays = dy, x, gamma, mean, rstd, dx, parts
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)
    if n_out:
        _merge(kind, parts, n_cols, plan.n_parts, plane, 0, dgamma, dbeta)


def _sum_pieces(
    kind: str,
    vector: bool,
    layout: Layout,
    itemsize: int,
    per_statistic: int,
    n_gamma: int,
    flags: int,
    *arrays: Array,
) -> None:
    """Sums of the pieces of sets, from (dy, x, gamma, mean, rstd, dx, parts)."""
    n_blocks, cut = cut_of(itemsize, layout)
    scalars = np.int64(per_statistic), np.int64(n_gamma), np.int32(flags)
    _jit.run(split_backward(kind, vector), n_blocks, *arrays, np.int64(layout.n_rows), *cut, *scalars)


def _pieces(itemsize: int, layout: Layout) -> int:
    return cut_of(itemsize, layout)[0] // layout.n_rows


def _visit_columns(
    kind: str, vector: bool, by_row: bool, shape: tuple[int, int], itemsize: int, flags: int, *arrays: Array
) -> None:
    """Launch on (dy, x, gamma, mean, rstd, operands, dx, parts) as `shape` (n_rows, n_cols)."""
    plan = _columns_plan(itemsize, vector, *shape, bool(flags & WANT_SUMS))
    wide = (np.int64(v) for v in (*shape, plan.rows_per_chunk, arrays[2].size))
    words = (np.int32(v) for v in (plan.tiles, plan.n_chunks, plan.lanes, flags))
    _jit.run(columns_backward(kind, vector, by_row), plan.grid, *arrays, *wide, *words)


@lru_cache(maxsize=1024)
def _columns_plan(itemsize: int, vector: bool, n_rows: int, n_cols: int, sums: bool) -> ColumnsPlan:
    units = ceil_div(n_cols, 16 // itemsize if vector else 1)
    return column_sums_plan(units, n_rows, COLUMN_THREADS, ROWS_AT_ONCE, sums)


def _rows_in_two(
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
    n_splits, n_chunks = _pieces(x.itemsize, layout), _columns_plan(x.itemsize, vector, n_rows, n_cols, True).n_chunks
    sizes = 3 * n_rows, 3 * n_splits * n_rows, 2 * n_chunks * n_cols * bool(flags & WANT_SUMS)
    mean, rest, rstd, _, operands, parts, shares = _prepared(kind, mean, rstd, bool(flags & USE_MEAN), *sizes)
    scale = scale_arguments(kind, n_cols, ddof, std_eps)
    given = dy, x, gamma, mean, rstd
    _sum_pieces(kind, vector, layout, x.itemsize, 1, 1, flags & ~WANT_DX | WANT_SUMS, *given, dx, parts)
    nothing = dgamma[:0]
    wanted = flags & USE_MEAN | GAMMA_ALONG | CENTRED | OPERANDS
    statistics, plane = (rest, rstd), n_splits * n_rows
    _merge(kind, parts, n_rows, n_splits, plane, wanted, nothing, nothing, gamma, statistics, operands, scale)
    _visit_columns(kind, vector, True, (n_rows, n_cols), x.itemsize, flags, *given, operands, dx, shares)
    if flags & WANT_SUMS:
        _merge(kind, shares, n_cols, n_chunks, n_chunks * n_cols, 0, dgamma, dbeta)


@lru_cache(maxsize=1024)
def _sets_call(
    limit: int,
    kind: str,
    itemsize: int,
    vector: bool,
    layout: Layout,
    n_gamma: int,
    flags: int,
    ddof: float,
    std_eps: float,
) -> tuple[Any, ...]:
    """Plan, and where sets fit on chip the kernel and its scalar arguments."""
    by_segment = bool(flags & WANT_SUMS and not flags & ONE_PARAMETER)
    n_rows, n_cols, segment = layout.n_rows, layout.n_cols, layout.segment
    plan = sets_plan(itemsize, vector, n_rows, n_cols, segment, by_segment, limit)
    if plan.tier == "split":
        return plan, None, ()
    if segment % (16 // itemsize if vector else 1):
        flags |= PER_ELEMENT
    magic, shift = division(segment, n_cols)
    where = np.int64(n_rows), np.int32(n_cols), np.int64(layout.stride), np.int64(layout.gap)
    n_segments = n_cols // segment
    period = max(1, n_gamma if flags & ONE_PARAMETER else n_gamma // n_segments)
    words = n_gamma, period, n_segments, plan.n_slots, plan.length, plan.together, plan.lanes, flags
    scalars = (*where, np.uint32(magic), np.int32(shift), *map(np.int32, words))
    kernel = sets_backward(kind, vector, plan.n_units)
    return plan, kernel, (*scalars, *scale_arguments(kind, n_cols, ddof, std_eps))


def norm_groups_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    use_mean: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_groups`: x (n_rows, n_channels, n_inner), cyclic parameters per channel.

    Moves 3 sizes of x, or 5 where rows do not fit on chip or are few and long.
    """
    n_rows, n_channels, n_inner = x.shape
    kind, n_out, n_cols = kind_of(x.dtype), max(dgamma.size, dbeta.size), n_channels * n_inner
    single = n_channels == 1 or max(gamma.size, n_out) == 1
    flags = _flags(use_mean, dx, dgamma, dbeta) | ONE_PARAMETER * single
    layout = Layout(n_rows, n_cols, n_cols, n_cols if single else n_inner, 0, 1 if single else n_channels, 1)
    vector = not n_cols * x.itemsize & 15 and aligned(dy, x, dx)
    what = _jit.shared_limit(), kind, x.itemsize, vector, layout, gamma.size, flags, ddof, std_eps
    plan, kernel, scalars = _sets_call(*what)
    n_sums = 0 if n_out == 0 else n_rows if single else n_rows * n_channels
    if kernel is None:
        _groups_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, flags, dx, dgamma, dbeta)
        return
    direct = n_sums == dgamma.size == dbeta.size
    mean, _, rstd, _, shares = _prepared(kind, mean, rstd, use_mean, 0 if direct else 2 * n_sums)
    if direct or not n_sums:
        outputs = dgamma, dbeta
    else:
        outputs = part_of(shares, n_sums, 2 * n_sums), shares
    arrays = dy, x, gamma, mean, rstd, dx, *outputs
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)
    if n_out and not direct:
        _merge(kind, shares, n_out, n_sums // n_out, n_sums, 0, dgamma, dbeta)


def _groups_in_two(
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
    n_splits, n_sums = _pieces(x.itemsize, layout), n * bool(flags & WANT_SUMS)
    sizes = 3 * n_rows, 3 * n_splits * n, 3 * n * (n_splits > 1), 2 * n_sums
    prepared = _prepared(kind, mean, rstd, bool(flags & USE_MEAN), *sizes)
    mean, _, rstd, _, operands, parts, whole, shares = prepared
    given = dy, x, gamma, mean, rstd
    sums = flags & ~WANT_DX | WANT_SUMS
    _sum_pieces(kind, vector, layout, x.itemsize, n_channels, 1, sums, *given, dx, parts)
    if n_splits > 1:
        nothing = dgamma[:0]
        _merge(kind, parts, n, n_splits, n_splits * n, CENTRED | FIXED | RAW, nothing, nothing, operands=whole)
        parts = whole
    wide = (np.int64(v) for v in (n_rows, n_channels, 1, gamma.size))
    scale = scale_arguments(kind, n_channels * n_inner, ddof, std_eps)
    words = np.int32(n_sums > 0), np.int32(flags)
    arrays = parts, gamma, rstd, part_of(shares, n_sums, 2 * n_sums), shares, operands
    _jit.run(merge_segments(compute_kind(kind)), ceil_div(n_rows, WARPS), *arrays, *wide, *words, *scale)
    if dx.size:
        _write_planes(kind, vector, (n, n_inner), n_channels, n_rows, flags, *given, operands, dx)
    if n_sums:
        n_out = max(dgamma.size, dbeta.size)
        _merge(kind, shares, n_out, n_sums // n_out, n_sums, 0, dgamma, dbeta)


def _write_planes(
    kind: str,
    vector: bool,
    shape: tuple[int, int],
    per_set: int,
    n_sets: int,
    flags: int,
    *arrays: Array,
) -> None:
    """dx of segments, `shape` (n_segments, n_inner), from (dy, x, gamma, mean, rstd, operands, dx)."""
    itemsize = arrays[1].itemsize
    plan = pieces_plan(itemsize, vector, *shape)
    wide = (np.int64(v) for v in (*shape, per_set, n_sets, arrays[2].size))
    words = np.int32(plan.lanes), np.int32(plan.n_chunks), np.int32(flags)
    kernel = planes_backward(kind, vector, units_held(itemsize, vector))
    _jit.run(kernel, plan.grid, *arrays, *wide, *words, threads=plan.threads)


def norm_channels_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    std_eps: float,
    ddof: float,
    fixed: bool,
    dx: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """Gradients of :func:`norm_channels`, or with `fixed` of an application of given statistics.

    Moves 5 sizes of x, 3 of them beyond the L2; 3 where channels fit on chip and are many, or
    where statistics are fixed.
    """
    n, n_channels, n_inner = x.shape
    flags = _flags(True, dx, dgamma, dbeta) | FIXED * fixed
    if n_inner == 1:
        _channels_last(dy, x, gamma, mean, rstd, std_eps, ddof, flags, dx, dgamma, dbeta)
        return
    kind, layout = kind_of(x.dtype), channels_layout(n, n_channels, n_inner)
    vector = not n_inner * x.itemsize & 15 and aligned(dy, x, dx)
    what = _jit.shared_limit(), kind, x.itemsize, vector, layout, gamma.size, flags | ONE_PARAMETER, ddof, std_eps
    plan, kernel, scalars = _sets_call(*what)
    if fixed or kernel is None:
        _channels_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, vector, flags, dx, dgamma, dbeta)
        return
    shares = [n_channels * (out.size == 0 and bool(flags & WANT_SUMS)) for out in (dgamma, dbeta)]
    mean, _, rstd, _, of_gamma, of_beta = _prepared(kind, mean, rstd, True, *shares)
    outputs = (out if out.size else share for out, share in zip((dgamma, dbeta), (of_gamma, of_beta), strict=True))
    arrays = dy, x, gamma, mean, rstd, dx, *outputs
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)


def _channels_in_two(
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
    n_splits = _pieces(x.itemsize, layout)
    sums = bool(flags & WANT_SUMS) or not fixed
    sizes = 3 * n_channels * (not fixed), 3 * n_splits * n_channels * sums
    mean, rest, rstd, has_rest, operands, parts = _prepared(kind, mean, rstd, True, *sizes)
    given = dy, x, gamma, mean, rstd
    flags |= WANT_SUMS * sums
    _sum_pieces(kind, vector, layout, x.itemsize, 1, gamma.size, flags, *given, dx, parts)
    if sums:
        wanted = flags & (USE_MEAN | FIXED) | has_rest | (0 if fixed else CENTRED | OPERANDS)
        scale = scale_arguments(kind, n * n_inner, ddof, std_eps)
        plane, statistics = n_splits * n_channels, (rest, rstd)
        _merge(kind, parts, n_channels, n_splits, plane, wanted, dgamma, dbeta, gamma, statistics, operands, scale)
    if dx.size and not fixed:
        _write_planes(kind, vector, (n * n_channels, n_inner), 1, n_channels, flags, *given, operands, dx)


def _channels_last(
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
    n_chunks = _columns_plan(x.itemsize, vector, *shape, True).n_chunks
    sums = bool(flags & WANT_SUMS) or not fixed
    sizes = 3 * n_channels * (not fixed), 3 * n_chunks * n_channels * sums
    mean, rest, rstd, has_rest, operands, parts = _prepared(kind, mean, rstd, True, *sizes)
    given = dy, x, gamma, mean, rstd, operands, dx, parts
    flags |= WANT_SUMS * sums
    first = flags if fixed else flags & ~WANT_DX
    _visit_columns(kind, vector, False, shape, x.itemsize, first, *given)
    if sums:
        wanted = flags & (USE_MEAN | FIXED) | has_rest | (0 if fixed else CENTRED | OPERANDS)
        scale = scale_arguments(kind, n, ddof, std_eps)
        plane, statistics = n_chunks * n_channels, (rest, rstd)
        _merge(kind, parts, n_channels, n_chunks, plane, wanted, dgamma, dbeta, gamma, statistics, operands, scale)
    if dx.size and not fixed:
        _visit_columns(kind, vector, False, shape, x.itemsize, flags & ~WANT_SUMS, *given)
