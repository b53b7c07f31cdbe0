"""What launchers move through memory, from their plans: integers only, so no device is needed.

``python -m tests.backends.cuda.test_costs`` prints the table.

A launcher's *cost* is the bytes that it moves over the least possible ones: x and y once, the
statistics that it gives or takes, a parameter once. Counted on top is all that a plan adds: a
second reading of x, and the sums that blocks leave for each other, written and read. Whatever
was written or read a moment ago and is smaller than `L2` comes from there and costs nothing;
sums are counted all the same.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanorm.backends.cuda import _launch_moments as moments
from numbanorm.backends.cuda import _launch_norms as norms
from numbanorm.backends.cuda._affine_kernels import COLUMN_THREADS, ROWS_AT_ONCE
from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda.affine import COLUMN_BLOCKS

#: Bytes of which a second reading finds the whole in the L2 of an H200 (50 MB), with y passing through.
L2 = 40 << 20
KINDS = {2: "bfloat16", 4: "float32", 8: "float64"}
#: Bytes of a set's moments: three float64.
MOMENTS = 24


class Cost(NamedTuple):
    """Bytes; `plan` says in a word how they are moved, `reads` how often kernels read x."""

    plan: str
    moved: int
    least: int
    reads: int = 1

    @property
    def ratio(self) -> float:
        return self.moved / self.least


def working(itemsize: int) -> int:
    """Bytes of a number that is computed with."""
    return 8 if itemsize == 8 else 4


def sums(itemsize: int, n_parts: int) -> int:
    """Bytes of sums, written once and read once."""
    return 2 * N_SUMS * working(itemsize) * n_parts


def covered(length: int, piece: int, n_pieces: int) -> int:
    """Elements that `n_pieces` pieces have in common with a row: all of them, and no piece is empty."""
    assert (n_pieces - 1) * piece < length <= n_pieces * piece
    return length


def again(n_bytes: int) -> int:
    """Bytes that a second reading takes from memory."""
    return n_bytes if n_bytes > L2 else 0


def applied(itemsize: int, n_rows: int, n_cols: int) -> int:
    """Elements that ``affine_planes`` visits."""
    vector = n_cols * itemsize % norms.ACCESS == 0
    plan = norms.pieces_plan(itemsize, vector, n_rows, n_cols)
    width = norms.ACCESS // itemsize if vector else 1
    assert plan.grid * (plan.threads // plan.lanes) >= n_rows * plan.n_chunks
    return n_rows * covered(n_cols, plan.lanes * norms.units_held(itemsize, vector) * width, plan.n_chunks)


def applied_columns(itemsize: int, n_rows: int, n_cols: int) -> int:
    """Elements that ``affine_columns`` visits."""
    width = norms.ACCESS // itemsize if n_cols * itemsize % norms.ACCESS == 0 else 1
    units = norms.ceil_div(n_cols, width)
    plan = norms.columns_plan(units, n_rows, COLUMN_THREADS, ROWS_AT_ONCE, COLUMN_BLOCKS)
    columns = min(width * covered(units, plan.lanes, plan.tiles), n_cols)
    return columns * covered(n_rows, plan.rows_per_chunk, plan.n_chunks)


def _rows(itemsize: int, layout: norms.Layout, parameters: int, saved: int, applied_elements: int) -> Cost:
    """Rows that stay on chip, or are read for their statistics and again for y."""
    size = layout.n_rows * layout.n_cols * itemsize
    vector = layout.segment * itemsize % norms.ACCESS == 0
    plan = norms.rows_plan(itemsize, vector, layout.n_rows, layout.n_cols)
    least = 2 * size + (parameters + saved) * working(itemsize)
    if plan.tier != "split":
        teams = plan.grid * (plan.threads // plan.lanes)
        assert teams >= layout.n_rows > teams - plan.threads // plan.lanes
        return Cost(plan.tier, plan.reads * size + size + least - 2 * size, least)
    split = norms.split_plan(itemsize, layout.n_rows, layout.n_cols)
    first = layout.n_rows * covered(layout.n_cols, split.piece, split.n_splits) * itemsize
    parts = sums(itemsize, layout.n_rows * split.n_splits * (split.n_splits > 1))
    second = again(applied_elements * itemsize)
    between = 2 * 3 * working(itemsize) * layout.n_rows
    word = "split, twice" if second else "split, from L2"
    moved = first + parts + between + second + applied_elements * itemsize + least - 2 * size
    return Cost(word, moved, least, plan.reads)


def norm_rows(itemsize: int, n_rows: int, n_cols: int) -> Cost:
    layout = norms.Layout(n_rows, n_cols, n_cols, n_cols, 0, 0, 0)
    return _rows(itemsize, layout, 2 * n_cols, 2 * n_rows, applied(itemsize, n_rows, n_cols))


def norm_groups(itemsize: int, n_rows: int, n_channels: int, n_inner: int) -> Cost:
    n_cols = n_channels * n_inner
    layout = norms.Layout(n_rows, n_cols, n_cols, n_cols, 0, n_channels, 1)
    return _rows(itemsize, layout, 2 * n_channels, 2 * n_rows, applied(itemsize, n_rows * n_channels, n_inner))


def norm_channels(itemsize: int, n: int, n_channels: int, n_inner: int) -> Cost:
    if n_inner > 1:
        layout = norms.Layout(n_channels, n * n_inner, n_inner, n_inner, (n_channels - 1) * n_inner, 1, 0)
        return _rows(itemsize, layout, 2 * n_channels, 2 * n_channels, applied(itemsize, n * n_channels, n_inner))
    size = n * n_channels * itemsize
    plan = moments.tiles(itemsize, 1, n, n_channels, True)
    first = n_channels * covered(n, plan.piece, plan.n_splits) * itemsize
    parts = sums(itemsize, plan.n_parts * n_channels * (plan.n_splits > 1))
    elements = applied_columns(itemsize, n, n_channels)
    rest = 4 * n_channels * working(itemsize)
    between = 2 * 3 * working(itemsize) * n_channels
    moved = first + parts + between + again(elements * itemsize) + elements * itemsize + rest
    return Cost("columns, twice" if again(size) else "columns, from L2", moved, 2 * size + rest, 2)


def affine_rows(itemsize: int, n_outer: int, n_mid: int, n_inner: int, given: int = 0) -> Cost:
    """Statistics and parameters per middle index; `given` bytes each if not in the compute dtype."""
    elements = applied(itemsize, n_outer * n_mid, n_inner)
    return _affine("pieces", itemsize, n_outer * n_mid * n_inner, elements, n_mid, given)


def affine_cols(itemsize: int, n_outer: int, n_mid: int, n_inner: int, given: int = 0) -> Cost:
    """Statistics and parameters along the last axis."""
    elements = applied_columns(itemsize, n_outer * n_mid, n_inner)
    return _affine("columns", itemsize, n_outer * n_mid * n_inner, elements, n_inner, given)


def _affine(plan: str, itemsize: int, size: int, elements: int, n_sets: int, given: int) -> Cost:
    number = working(itemsize)
    least = 2 * size * itemsize + 2 * n_sets * ((given or number) + number)
    prepared = 2 * 3 * number * n_sets if given else 0
    moved = 2 * elements * itemsize + least - 2 * size * itemsize + prepared
    return Cost(plan + (", prepared" if given else ""), moved, least)


def mean_var_rows(itemsize: int, n_rows: int, n_cols: int) -> Cost:
    return moments_rows(itemsize, n_rows, n_cols, final=True)


def mean_var_cols(itemsize: int, n_outer: int, n_reduce: int, n_inner: int) -> Cost:
    return moments_cols(itemsize, n_outer, n_reduce, n_inner, final=True)


def moments_rows(itemsize: int, n_rows: int, n_cols: int, final: bool = False) -> Cost:
    plan = moments.rows(KINDS[itemsize], n_rows, n_cols, True)
    out = 2 * itemsize if final else MOMENTS
    parts = n_rows * plan.n_splits * (plan.split or not final)
    elements = n_rows * covered(n_cols, plan.piece, plan.n_splits)
    word = f"{plan.n_splits} pieces" if plan.split else f"{plan.lanes} lanes"
    least = n_rows * (n_cols * itemsize + out)
    return Cost(word, elements * itemsize + sums(itemsize, parts) + n_rows * out, least)


def moments_cols(itemsize: int, n_outer: int, n_reduce: int, n_inner: int, final: bool = False) -> Cost:
    plan = moments.cols(KINDS[itemsize], n_outer, n_reduce, n_inner, True)
    out, n_sets = 2 * itemsize if final else MOMENTS, n_outer * n_inner
    if plan.blocks_share and plan.width:
        assert (plan.n_tiles - 1) * plan.width * plan.vector < n_inner <= plan.n_tiles * plan.width * plan.vector
    elements = n_sets * covered(n_reduce, plan.piece, plan.n_splits)
    parts = n_sets * (plan.n_parts * (plan.n_splits > 1) if final else plan.n_splits)
    word = f"{plan.n_splits} pieces" if plan.blocks_share else "threads"
    least = n_sets * (n_reduce * itemsize + out)
    return Cost(word, elements * itemsize + sums(itemsize, parts) + n_sets * out, least)


def weighted(itemsize: int, n_outer: int, n_reduce: int, n_inner: int) -> Cost:
    """``moments_*`` with a mask."""
    plan = moments.weighted(n_outer, n_reduce, n_inner)
    n_sets = n_outer * n_inner
    elements = n_sets * covered(n_reduce, plan.piece, plan.n_splits)
    moved = elements * (itemsize + 1) + sums(itemsize, n_sets * plan.n_splits) + n_sets * MOMENTS
    return Cost(f"{plan.n_splits} pieces", moved, n_sets * (n_reduce * (itemsize + 1) + MOMENTS))


def mean_var_channels(itemsize: int, n: int, n_channels: int, n_inner: int) -> Cost:
    plan = norms.split_plan(itemsize, n_channels, n * n_inner)
    elements = n_channels * covered(n * n_inner, plan.piece, plan.n_splits)
    parts = n_channels * plan.n_splits * (plan.n_splits > 1)
    out = 2 * itemsize * n_channels
    moved = elements * itemsize + sums(itemsize, parts) + out
    return Cost(f"{plan.n_splits} pieces", moved, n * n_channels * n_inner * itemsize + out)


def combine_moments(itemsize: int, n_outer: int, n_reduce: int, n_inner: int) -> Cost:
    """Parts in float64, whatever x was."""
    width = moments.combine_width(n_reduce, n_inner)
    columns = n_outer * min(norms.ceil_div(n_inner, width) * width, n_inner)
    return Cost(f"{width} wide", (columns * n_reduce + columns) * MOMENTS, n_outer * n_inner * (n_reduce + 1) * MOMENTS)
