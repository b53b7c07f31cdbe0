"""Which kernels a gradient takes, and with how many blocks and threads: integers only, from shapes alone.

As in :mod:`._launch_norms` nothing here looks at a device. Bytes are counted in sizes of x: least
are 3, dy and x in and dx out.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanorm.backends.cuda._launch_norms import (
    ACCESS,
    LARGEST_SHARED,
    MULTIPROCESSORS,
    RESERVED_SHARED,
    SHORT_ROWS_THREADS,
    SPLIT_FEW_BYTES,
    ColumnsPlan,
    ceil_div,
    columns_plan,
)

#: Most threads for a row in registers, with few units held and with many.
FEW_UNITS, FEW_UNITS_THREADS, MANY_UNITS_THREADS = 2, 1024, 512
#: Most threads for a set with segments.
SETS_THREADS = 256
#: Threads of a block that short rows share; a row is a warp's at most.
SHARED_ROWS_THREADS = 256
#: Bytes of dy and x that a multiprocessor shall have in flight, and the fewest blocks that share one.
IN_FLIGHT, FEWEST_BLOCKS = 48 << 10, 2
#: Rows whose share of dgamma and dbeta a thread adds up by itself.
MOST_ROWS = 80
#: Registers of a multiprocessor, and of a thread that holds few units or many.
REGISTERS, FEW_REGISTERS, MANY_REGISTERS = 65536, 64, 128


class RowsPlan(NamedTuple):
    """Rows with a parameter per column. `tier` is "registers" or "split"; `n_steps` rows for each team."""

    tier: str
    n_units: int = 0
    lanes: int = 0
    threads: int = 0
    n_steps: int = 0
    grid: int = 0
    shared: int = 0

    @property
    def n_parts(self) -> int:
        """Sums of dgamma and dbeta that are merged at the end."""
        return self.grid


def many_units(itemsize: int, vector: bool) -> int:
    """Units of dy, and of x, that a thread holds at most: 32 elements or 128 bytes."""
    return 4 if vector and itemsize == 2 else 8


def _width(itemsize: int, vector: bool) -> int:
    return ACCESS // itemsize if vector else 1


def _lanes(units: int, held: int, vector: bool) -> int:
    """Threads for a row of few units: a power of two, whole cache lines side by side."""
    wanted = max(ceil_div(units, held), min(units, 8 if vector else 32))
    return 1 << (wanted - 1).bit_length()


def rows_plan(
    itemsize: int, vector: bool, n_rows: int, n_cols: int, sums: bool, shared_limit: int = LARGEST_SHARED
) -> RowsPlan:
    """How rows are shared out; with `sums` their block adds up dgamma and dbeta in shared memory."""
    units, many = ceil_div(n_cols, _width(itemsize, vector)), many_units(itemsize, vector)
    split = RowsPlan("split")
    if n_rows < MULTIPROCESSORS // 2 and n_cols * itemsize > SPLIT_FEW_BYTES:
        return split
    widest = FEW_UNITS_THREADS // (2 if itemsize == 8 else 1)
    if vector and units <= 32 * FEW_UNITS:
        n_units, lanes, threads = FEW_UNITS, _lanes(units, FEW_UNITS, vector), SHARED_ROWS_THREADS
    elif units <= 32 * many:
        n_units, lanes, threads = many, _lanes(units, many, vector), SHARED_ROWS_THREADS
    elif vector and units <= widest * FEW_UNITS:
        n_units, lanes = FEW_UNITS, 32 * ceil_div(units, 32 * FEW_UNITS)
        threads = lanes
    elif units <= MANY_UNITS_THREADS * many:
        n_units, lanes = many, 32 * ceil_div(units, 32 * many)
        threads = lanes
    else:
        return split
    per_thread = 2 * n_units * _width(itemsize, vector) * max(4, itemsize) if sums else 0
    whole = shared_limit - RESERVED_SHARED
    while threads * per_thread > whole and threads > lanes and threads > 32:
        threads //= 2
    if threads * per_thread > whole:
        return split
    teams = threads // lanes
    n_turns = ceil_div(n_rows, teams)
    n_steps = 1
    if sums:
        blocks = _blocks_at_once(itemsize, vector, n_units, threads, threads * per_thread)
        n_waves = ceil_div(n_turns, MOST_ROWS * blocks)
        n_steps = ceil_div(n_turns, n_waves * blocks)
    return RowsPlan("registers", n_units, lanes, threads, n_steps, ceil_div(n_turns, n_steps), threads * per_thread)


def _blocks_at_once(itemsize: int, vector: bool, n_units: int, threads: int, shared: int) -> int:
    """Blocks that run at the same time: enough to keep memory busy, no more, because each leaves sums."""
    in_flight = 2 * threads * n_units * (ACCESS if vector else itemsize)
    registers = FEW_REGISTERS if n_units == FEW_UNITS and itemsize < 8 else MANY_REGISTERS
    most = REGISTERS // (registers * threads)
    if shared:
        most = min(most, LARGEST_SHARED // (shared + RESERVED_SHARED))
    return MULTIPROCESSORS * max(1, min(most, max(FEWEST_BLOCKS, ceil_div(IN_FLIGHT, in_flight))))


class SetsPlan(NamedTuple):
    """Sets with a parameter for each segment or for all.

    With `n_slots` sums of units (or elements) in shared memory for each set, `length` of them in a segment.
    """

    tier: str
    n_units: int = 0
    lanes: int = 0
    threads: int = 0
    grid: int = 0
    n_slots: int = 0
    length: int = 0
    together: int = 1
    shared: int = 0


def sets_plan(
    itemsize: int,
    vector: bool,
    n_rows: int,
    n_cols: int,
    segment: int,
    by_segment: bool,
    shared_limit: int = LARGEST_SHARED,
) -> SetsPlan:
    """How sets are shared out; `by_segment`: each segment's share of dgamma and dbeta is wanted by itself."""
    width, held = _width(itemsize, vector), many_units(itemsize, vector)
    units = ceil_div(n_cols, width)
    if units > SETS_THREADS * held:
        return SetsPlan("split")
    if n_rows < MULTIPROCESSORS // 2 and n_cols * itemsize > SPLIT_FEW_BYTES:
        return SetsPlan("split")
    if units <= 32 * held:
        lanes, threads = _lanes(units, held, vector), SHORT_ROWS_THREADS
    else:
        lanes = threads = 32 * ceil_div(units, 32 * held)
    grid = ceil_div(n_rows, threads // lanes)
    if not by_segment:
        return SetsPlan("registers", held, lanes, threads, grid)
    n_slots, length = lanes * held, segment // width
    if segment % width:
        n_slots, length = n_slots * width, segment
    shared = 2 * (threads // lanes) * n_slots * max(4, itemsize)
    if shared > shared_limit - RESERVED_SHARED:
        return SetsPlan("split")
    together = min(32, lanes, 1 << (length.bit_length() - 1))
    return SetsPlan("registers", held, lanes, threads, grid, n_slots, length, together, shared)


def column_sums_plan(units: int, n_rows: int, threads: int, rows_at_once: int, sums: bool) -> ColumnsPlan:
    """Columns in tiles and chunks of rows, of which with `sums` a thread has at most ``MOST_ROWS``.

    Chunks that leave sums have as many rows at least, so that these are next to nothing.
    """
    blocks = 8 * MULTIPROCESSORS
    if sums:
        blocks = min(blocks, max(1, n_rows // MOST_ROWS) * ceil_div(units, 64))
    plan = columns_plan(units, n_rows, threads, rows_at_once, blocks)
    step = threads // plan.lanes * rows_at_once
    most = MOST_ROWS // rows_at_once * step
    if not sums or plan.rows_per_chunk <= most:
        return plan
    return plan._replace(rows_per_chunk=most, n_chunks=ceil_div(n_rows, most))
