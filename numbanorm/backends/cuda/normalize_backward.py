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
    ONE_PARAMETER,
    PER_ELEMENT,
    USE_MEAN,
    WANT_DX,
    WANT_SUMS,
    scale_arguments,
)
from numbanorm.backends.cuda._backward_in_two import channels_in_two, channels_last, groups_in_two, rows_in_two
from numbanorm.backends.cuda._backward_launches import merge, prepared
from numbanorm.backends.cuda._launch_backward import rows_plan, sets_plan
from numbanorm.backends.cuda._launch_norms import Layout, division
from numbanorm.backends.cuda._room import part_of
from numbanorm.backends.cuda._rows_backward_kernels import rows_backward
from numbanorm.backends.cuda._sets_backward_kernels import sets_backward
from numbanorm.backends.cuda._split import channels_layout
from numbanorm.backends.cuda.affine import aligned, kind_of

Array = Any


def _flags(use_mean: bool, dx: Array, dgamma: Array, dbeta: Array) -> int:
    sums = dgamma.size > 0 or dbeta.size > 0
    return int(USE_MEAN * use_mean | WANT_DX * (dx.size > 0) | WANT_SUMS * sums)


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
        rows_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, vector, flags, dx, dgamma, dbeta)
        return
    plane = plan.n_parts * n_cols
    mean, _, rstd, _, parts = prepared(kind, mean, rstd, use_mean, 2 * plane * (n_out > 0))
    arrays = dy, x, gamma, mean, rstd, dx, parts
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)
    if n_out:
        merge(kind, parts, n_cols, plan.n_parts, plane, 0, dgamma, dbeta)


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
        groups_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, flags, dx, dgamma, dbeta)
        return
    direct = n_sums == dgamma.size == dbeta.size
    mean, _, rstd, _, shares = prepared(kind, mean, rstd, use_mean, 0 if direct else 2 * n_sums)
    if direct or not n_sums:
        outputs = dgamma, dbeta
    else:
        outputs = part_of(shares, n_sums, 2 * n_sums), shares
    arrays = dy, x, gamma, mean, rstd, dx, *outputs
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)
    if n_out and not direct:
        merge(kind, shares, n_out, n_sums // n_out, n_sums, 0, dgamma, dbeta)


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
        channels_last(dy, x, gamma, mean, rstd, std_eps, ddof, flags, dx, dgamma, dbeta)
        return
    kind, layout = kind_of(x.dtype), channels_layout(n, n_channels, n_inner)
    vector = not n_inner * x.itemsize & 15 and aligned(dy, x, dx)
    what = _jit.shared_limit(), kind, x.itemsize, vector, layout, gamma.size, flags | ONE_PARAMETER, ddof, std_eps
    plan, kernel, scalars = _sets_call(*what)
    if fixed or kernel is None:
        channels_in_two(dy, x, gamma, mean, rstd, std_eps, ddof, vector, flags, dx, dgamma, dbeta)
        return
    shares = [n_channels * (out.size == 0 and bool(flags & WANT_SUMS)) for out in (dgamma, dbeta)]
    mean, _, rstd, _, of_gamma, of_beta = prepared(kind, mean, rstd, True, *shares)
    outputs = (out if out.size else share for out, share in zip((dgamma, dbeta), (of_gamma, of_beta), strict=True))
    arrays = dy, x, gamma, mean, rstd, dx, *outputs
    _jit.run(kernel, plan.grid, *arrays, *scalars, shared=plan.shared, threads=plan.threads)
