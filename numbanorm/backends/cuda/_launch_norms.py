"""Which kernel a norm takes, and with how many blocks and threads: integers only, from shapes alone.

Nothing here looks at a device: the figures are an H200's (132 multiprocessors, 50 MB of L2),
which suit its neighbours, so results do not depend on the device's size.
"""

from __future__ import annotations

from typing import NamedTuple

#: Multiprocessors that blocks are shared out to.
MULTIPROCESSORS = 132
#: Bytes of an access where pointers and rows allow it.
ACCESS = 16
#: Shared memory that a block may ask for: of a large device, and what is left for the few static numbers.
LARGEST_SHARED, RESERVED_SHARED = 227 << 10, 2 << 10
#: Threads for a row in shared memory where a multiprocessor holds several rows, and where it holds one.
SHARED_THREADS = 512, 1024
#: Threads of a block that many short rows share.
SHORT_ROWS_THREADS = 128
#: Most threads for a row in registers: two such blocks fill a multiprocessor.
REGISTERS_THREADS = 512
#: Rows longer than this are split where there are too few of them to fill the device.
SPLIT_FEW_BYTES = 64 << 10


class Plan(NamedTuple):
    """`tier` is "registers", "shared" or "split"; `lanes` threads share a row; `shared` in bytes."""

    tier: str
    vector: bool
    lanes: int = 0
    threads: int = 0
    grid: int = 0
    shared: int = 0

    @property
    def reads(self) -> int:
        """How often x is read from memory."""
        return 2 if self.tier == "split" else 1


class Layout(NamedTuple):
    """Where the elements of rows lie, and which parameter belongs to them; see :mod:`._norm_rows_kernels`."""

    n_rows: int
    n_cols: int
    #: Elements from a row to the next, in a segment, and from a segment's end to the next one.
    stride: int
    segment: int
    gap: int
    #: Parameters from a row, and from a segment, to the next.
    row_step: int
    segment_step: int


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def units_held(itemsize: int, vector: bool) -> int:
    """Units that a thread of the kernel for rows in registers holds: 64 bytes, or a few elements."""
    return 4 if vector or itemsize == 8 else 8


def division(segment: int, n_cols: int) -> tuple[int, int]:
    """``(magic, shift)`` with ``j * magic >> shift == j // segment`` for 0 <= j < 2**31; 0 for one segment."""
    if segment >= n_cols:
        return 0, 0
    shift = 31 + (segment - 1).bit_length()
    return ceil_div(1 << shift, segment), shift


def rows_plan(itemsize: int, vector: bool, n_rows: int, n_cols: int, shared_limit: int = LARGEST_SHARED) -> Plan:
    """Where rows of n_cols elements stay between their statistics and their normalisation."""
    width = ACCESS // itemsize if vector else 1
    units = ceil_div(n_cols, width)
    held = units_held(itemsize, vector)
    if n_rows < MULTIPROCESSORS // 2 and n_cols * itemsize > SPLIT_FEW_BYTES:
        return Plan("split", vector)
    if units <= 32 * held:
        # Eight 16-byte accesses, or 32 elements, that lie side by side are whole cache lines.
        wanted = max(ceil_div(units, held), min(units, 8 if vector else 32))
        lanes = 1 << (wanted - 1).bit_length()
        rows_per_block = SHORT_ROWS_THREADS // lanes
        return Plan("registers", vector, lanes, SHORT_ROWS_THREADS, ceil_div(n_rows, rows_per_block))
    if units <= REGISTERS_THREADS * held:
        lanes = 32 * ceil_div(ceil_div(units, held), 32)
        return Plan("registers", vector, lanes, lanes, n_rows)
    unit_bytes = ACCESS if vector else max(itemsize, 4)
    # A multiprocessor holds two rows of half the size: one is loaded while the other is written.
    whole = shared_limit - RESERVED_SHARED
    for threads, most in zip(SHARED_THREADS, (whole // 2 - RESERVED_SHARED, whole), strict=True):
        threads = SHARED_THREADS[0] if itemsize == 8 else threads
        shared = ceil_div(units, threads) * threads * unit_bytes
        if shared <= most:
            return Plan("shared", vector, threads, threads, n_rows, shared)
    return Plan("split", vector)


class PiecesPlan(NamedTuple):
    """Rows in `n_chunks` pieces each, or short rows together in a block; `lanes` threads a piece."""

    lanes: int
    threads: int
    n_chunks: int
    grid: int


def pieces_plan(itemsize: int, vector: bool, n_rows: int, n_cols: int) -> PiecesPlan:
    """How rows are shared out that need nothing from one another."""
    units = ceil_div(n_cols, ACCESS // itemsize if vector else 1)
    held = units_held(itemsize, vector)
    if units <= 32 * held:
        wanted = max(ceil_div(units, held), min(units, 8 if vector else 32))
        lanes = 1 << (wanted - 1).bit_length()
        return PiecesPlan(lanes, SHORT_ROWS_THREADS, 1, ceil_div(n_rows, SHORT_ROWS_THREADS // lanes))
    n_chunks = ceil_div(units, 256 * held)
    lanes = 32 * ceil_div(ceil_div(ceil_div(units, n_chunks), held), 32)
    n_chunks = ceil_div(units, lanes * held)
    return PiecesPlan(lanes, lanes, n_chunks, n_rows * n_chunks)


class ColumnsPlan(NamedTuple):
    """`tiles` of columns times `n_chunks` of rows; `lanes` threads beside each other in a block."""

    lanes: int
    tiles: int
    rows_per_chunk: int
    n_chunks: int

    @property
    def grid(self) -> int:
        """Blocks."""
        return self.tiles * self.n_chunks


def columns_plan(units: int, n_rows: int, threads: int, rows_at_once: int, blocks: int) -> ColumnsPlan:
    """How a matrix of `units` units a row is shared out when its columns keep something in registers."""
    tiles = ceil_div(units, 64)
    lanes = ceil_div(units, tiles)
    tiles = ceil_div(units, lanes)
    step = threads // lanes * rows_at_once
    n_steps = ceil_div(n_rows, step)
    steps = ceil_div(n_steps, max(1, min(n_steps, blocks // tiles)))
    return ColumnsPlan(lanes, tiles, steps * step, ceil_div(n_steps, steps))


#: Blocks of statistics that a device holds at a time, twice.
STATISTICS_BLOCKS = 2 * 4 * MULTIPROCESSORS
#: Threads of such a block, and the elements that it has in flight.
STATISTICS_THREADS = 256


class SplitPlan(NamedTuple):
    """Each row in `n_splits` pieces of `piece` elements, the last one shorter."""

    n_splits: int
    piece: int


def split_plan(itemsize: int, n_rows: int, n_cols: int) -> SplitPlan:
    """How rows are cut for their statistics."""
    step = STATISTICS_THREADS * (8 if itemsize == 8 else 16)
    n_splits = max(1, min(ceil_div(STATISTICS_BLOCKS, n_rows), n_cols // step))
    unit = STATISTICS_THREADS * ACCESS // itemsize
    piece = unit * ceil_div(n_cols, n_splits * unit)
    return SplitPlan(ceil_div(n_cols, piece), piece)
