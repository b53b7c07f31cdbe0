"""Norms of x some of whose elements take no part: a mask says which, or how many of a line's first elements do.

Padding of lines with lengths is not read. As in :mod:`.normalize`, a set is summed and then
written while it is in cache; a few large ones are read twice, so that all threads share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu import _masked_kernels as kernels
from numbanorm.backends.cpu._elements import flat_input, flat_output
from numbanorm.backends.cpu._launch import (
    BLOCK,
    SHORT_SEGMENT,
    TILE,
    WIDE,
    fold,
    n_column_splits,
    n_parts,
    n_splits,
    rows_at_once,
)
from numbanorm.backends.cpu._masked_rows import are_whole, whole_rows_kernel
from numbanorm.backends.cpu._masked_short import masked_short_kernel
from numbanorm.backends.cpu._stream import goes_past_caches
from numbanorm.backends.cpu.moments import combine_moments
from numbanorm.backends.cpu.normalize import Scale, finished, same_length

Array = NDArray[Any]
Taken = tuple[Array | None, Array | None]


def _mask_or_lengths(taken: Array) -> Taken:
    """(mask, lengths) as kernels take them: one of them is None."""
    flat = flat_input(taken)
    return (flat, None) if taken.dtype == np.bool_ else (None, flat)


def masked_norm_rows(
    x: Array,
    taken: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """:func:`norm_rows` of the elements of x (n_rows, n_cols) that take part."""
    gamma, beta = same_length(gamma, beta)
    n_rows, n_cols = x.shape
    if n_splits(n_rows, n_cols) == 1 and are_whole(taken, n_cols):
        whole_rows_kernel(
            n_parts(n_rows, x.size),
            flat_input(x),
            flat_input(taken),
            n_cols,
            rows_at_once(n_cols),
            flat_input(gamma),
            flat_input(beta),
            (eps, eps_on_std, use_mean),
            float(ddof),
            keep,
            flat_output(y),
            goes_past_caches(x, y, n_cols),
            mean,
            rstd,
        )
        return
    lines = n_rows, 1, n_cols
    _norm(x, taken, lines, gamma, beta, gamma.size > 1, (eps, eps_on_std, use_mean), ddof, keep, y, mean, rstd)


def masked_norm_groups(
    x: Array,
    taken: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    eps_on_std: bool,
    use_mean: bool,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """:func:`norm_groups` of the elements of x (n_rows, n_channels, n_inner) that take part."""
    gamma, beta = same_length(gamma, beta)
    _norm(x, taken, x.shape, gamma, beta, False, (eps, eps_on_std, use_mean), ddof, keep, y, mean, rstd)


def _norm(
    x: Array,
    taken: Array,
    shape: tuple[int, int, int],
    gamma: Array,
    beta: Array,
    by_column: bool,
    scale: Scale,
    ddof: float,
    keep: bool,
    y: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Sets of n_lines lines each, with a parameter per line (cyclic) or per element of a line."""
    n_sets, n_lines, length = shape
    if n_splits(n_sets, n_lines * length) > 1:
        statistics = _split_sets(x, taken, shape, scale, ddof, mean, rstd)
        mu, var = (np.repeat(statistic, n_lines) for statistic in statistics)
        _affine_lines(x, taken, length, mu, var, scale[:2], gamma, beta, by_column, keep, y)
        return
    past_caches = goes_past_caches(x, y, length)
    if taken.dtype == np.bool_ and n_lines * length <= BLOCK:
        cut = n_lines, length, rows_at_once(n_lines * length)
        operands = flat_input(x), flat_input(taken), cut, flat_input(gamma), flat_input(beta), by_column, scale
        masked_short_kernel(
            n_parts(n_sets, x.size), *operands, float(ddof), keep, flat_output(y), past_caches, mean, rstd
        )
        return
    kernels.masked_norm_kernel(
        n_parts(n_sets, x.size),
        flat_input(x),
        *_mask_or_lengths(taken),
        (n_lines, length, rows_at_once(n_lines * length)),
        flat_input(gamma),
        flat_input(beta),
        by_column,
        scale,
        float(ddof),
        keep,
        flat_output(y),
        past_caches,
        mean,
        rstd,
    )


def _split_sets(
    x: Array, taken: Array, shape: tuple[int, int, int], scale: Scale, ddof: float, mean: Array, rstd: Array
) -> tuple[Array, Array]:
    """Mean and variance (n_sets,) of a few large sets, each shared by all threads."""
    n_sets, n_lines, length = shape
    splits = n_splits(n_sets * n_lines, length)
    pieces = np.empty((3, n_sets, n_lines * splits, 1))
    kernels.masked_pieces_kernel(
        n_parts(pieces[0].size, x.size), flat_input(x), *_mask_or_lengths(taken), length, splits, *pieces.reshape(3, -1)
    )
    moments = np.empty((3, n_sets, 1))
    combine_moments(*pieces, *moments)
    count, mu, m2 = moments[..., 0]
    return finished(count, mu, m2, scale, ddof, mean, rstd)


def masked_affine(
    x: Array,
    taken: Array,
    mean: Array,
    var: Array,
    eps: float,
    eps_on_std: bool,
    gamma: Array,
    beta: Array,
    keep: bool,
    y: Array,
) -> None:
    """``(x - mean) * rstd * gamma + beta`` of the elements of x (n, n_channels, n_inner) that take part.

    Statistics and parameters are per channel.
    """
    n_inner = x.shape[2]
    scale = eps, eps_on_std
    gamma, beta = same_length(gamma, beta)
    if n_inner >= SHORT_SEGMENT:
        _affine_lines(x, taken, n_inner, mean, var, scale, gamma, beta, False, keep, y)
    else:
        _affine_columns(x, taken, mean, var, scale, gamma, beta, keep, y)


def _affine_lines(
    x: Array,
    taken: Array,
    length: int,
    mean: Array,
    var: Array,
    scale: tuple[float, bool],
    gamma: Array,
    beta: Array,
    by_column: bool,
    keep: bool,
    y: Array,
) -> None:
    """Lines with cyclic statistics; a parameter per line (cyclic) or per element of a line."""
    n_lines = x.size // length
    splits = n_splits(n_lines, length)
    kernels.masked_lines_kernel(
        n_parts(n_lines * splits, x.size),
        flat_input(x),
        *_mask_or_lengths(taken),
        length,
        splits,
        flat_input(mean),
        flat_input(var),
        scale,
        flat_input(gamma),
        flat_input(beta),
        by_column,
        keep,
        flat_output(y),
        goes_past_caches(x, y, length // splits),
    )


def _affine_columns(
    x: Array,
    taken: Array,
    mean: Array,
    var: Array,
    scale: tuple[float, bool],
    gamma: Array,
    beta: Array,
    keep: bool,
    y: Array,
) -> None:
    """Statistics and parameters per column of the matrix (n, n_channels * n_inner)."""
    n, n_channels, n_inner = x.shape
    n_cols = n_channels * n_inner
    line = n_inner if n_inner > 1 else n_channels if n_channels < WIDE else 0
    rows_at_once = fold(n, n_cols)
    n_tiles = -(-n_cols // TILE)
    n_chunks = n_column_splits(n_tiles, n // rows_at_once, x.size)
    mean, var = (np.repeat(statistic, n_inner) for statistic in (mean, var))
    gamma, beta = (np.repeat(a, n_inner) if a.size > 1 else a for a in (gamma, beta))
    kernels.masked_columns_kernel(
        n_parts(n_tiles * n_chunks, x.size),
        flat_input(x),
        *_mask_or_lengths(taken),
        (n_cols, n_inner, line, rows_at_once, n_tiles, n_chunks),
        flat_input(mean),
        flat_input(var),
        scale,
        flat_input(gamma),
        flat_input(beta),
        keep,
        flat_output(y),
        goes_past_caches(x, y, n_cols * rows_at_once // n_tiles),
    )
