"""How statistics are cut into blocks: integers only, from shapes and alignment alone.

Nothing here looks at the device, so that results do not depend on it: the numbers suit
132 multiprocessors and are more than enough for fewer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda._intrinsics import VECTOR

#: Blocks that keep every multiprocessor busy, and blocks enough that the last wave costs little.
BUSY, MANY = 132 * 8, 132 * 32
#: Bytes below which a piece of a row is not worth a block.
PIECE = 32 << 10
#: Threads of a block.
THREADS = 256
#: Elements for each lane that rows of a few lanes aim at.
PER_LANE = 32
#: Longest rows that a warp sums by itself.
LONG = 16384
#: Rows up to this length are summed with exact differences (see ``_accumulate.adder``).
CAREFUL = 64


def item_size(kind: str) -> int:
    """Bytes of an element."""
    return 16 // VECTOR[kind]


class Rows(NamedTuple):
    """The launch for x (n_rows, n_cols)."""

    vector: int
    lanes: int
    n_splits: int
    piece: int
    n_blocks: int
    careful: bool

    @property
    def split(self) -> bool:
        """Whether rows are cut into pieces."""
        return self.n_splits > 1


@lru_cache(maxsize=4096)
def rows(kind: str, n_rows: int, n_cols: int, aligned: bool) -> Rows:
    """Lanes for each row, pieces of each row. `aligned`: x begins at a multiple of 16 bytes."""
    size = item_size(kind)
    vector = VECTOR[kind] if aligned and n_cols % VECTOR[kind] == 0 else 1
    lanes = 1
    while lanes < 32 and lanes * PER_LANE < n_cols:
        lanes *= 2
    # A block for each row where warps would be too few, or have too much to do.
    if n_cols > LONG or (n_cols > 2048 and n_rows < 4 * BUSY) or (n_cols >= 1024 and n_rows < BUSY):
        lanes = THREADS
    if lanes < THREADS:
        return Rows(vector, lanes, 1, n_cols, -(-n_rows // (THREADS // lanes)), n_cols <= CAREFUL)
    wanted = min(-(-MANY // n_rows), BUSY, n_cols * size // PIECE)
    n_splits, piece = pieces(n_cols, max(1, wanted), 32)
    return Rows(vector, lanes, n_splits, piece, n_rows * n_splits, False)


def pieces(length: int, wanted: int, unit: int) -> tuple[int, int]:
    """About `wanted` equal pieces whose length is a multiple of `unit`; none is empty."""
    piece = -(-length // (wanted * unit)) * unit
    return -(-length // piece), piece


class Cols(NamedTuple):
    """The launch for x (n_outer, n_reduce, n_inner); without `blocks_share` a thread has whole columns."""

    vector: int
    blocks_share: bool
    width: int
    across: int
    n_tiles: int
    n_splits: int
    piece: int
    n_blocks: int


#: Rows of a column that a thread sums by itself.
FEW_ROWS = 64
#: Columns up to which a block reads whole rows, one behind the other.
NARROW = 64
#: Most blocks whose parts of a column the last one merges.
MERGED = 264


def column_threads(vector: int) -> int:
    """Threads of a block, so that the sums of their columns fit in 28 KB of shared memory."""
    return 1024 // max(vector, 4)


def cols(kind: str, n_outer: int, n_reduce: int, n_inner: int, aligned: bool) -> Cols:
    """Which columns and rows a block has. `aligned`: x begins at a multiple of 16 bytes."""
    full = VECTOR[kind]
    plane = n_reduce * n_inner
    if n_reduce <= FEW_ROWS or (plane <= 4096 and n_outer * n_inner >= BUSY * 32):
        vector = full if aligned and n_inner % full == 0 else 1
        n_blocks = -(-n_outer * n_inner // (column_threads(vector) * vector))
        return Cols(vector, False, 0, 1, 1, 1, n_reduce, n_blocks)
    vector = full if aligned and plane % full == 0 else 1
    threads = column_threads(vector)
    across = across_block(n_inner, vector, threads * vector)
    if n_inner <= NARROW and across:
        width, n_tiles, unit = 0, 1, across
    else:
        vector = vector if n_inner % full == 0 else 1
        threads = column_threads(vector)
        width = 8 if vector > 1 else 32
        n_tiles, unit, across = -(-n_inner // (width * vector)), threads // width, 1
    wanted = min(-(-BUSY // (n_outer * n_tiles)), MERGED, n_reduce // max(4 * unit, worth_a_part(kind)))
    n_splits, piece = pieces(n_reduce, max(1, wanted), unit)
    return Cols(vector, True, width, across, n_tiles, n_splits, piece, n_outer * n_tiles * n_splits)


def worth_a_part(kind: str) -> int:
    """Rows for which a part is worth its bytes: it is an eighth of them, which stays in the L2."""
    return 8 * 2 * N_SUMS * (8 if kind == "float64" else 4) // item_size(kind)


def across_block(n_inner: int, vector: int, most: int) -> int:
    """Most rows of n_inner elements that make up at most `most` elements and whole vectors; 0 if none do."""
    rows = most // n_inner
    while rows * n_inner % vector:
        rows -= 1
    return rows


class Weighted(NamedTuple):
    """The launch for an x (n_outer, n_reduce, n_inner) of which some elements take part."""

    width: int
    n_tiles: int
    n_splits: int
    piece: int
    n_blocks: int


def weighted(n_outer: int, n_reduce: int, n_inner: int) -> Weighted:
    """One column for each block where they are few, else a warp of them."""
    width = 1 if n_inner == 1 else 32
    n_tiles = -(-n_inner // width)
    unit = 8 * 128 // width
    wanted = min(-(-BUSY // (n_outer * n_tiles)), n_reduce // unit)
    n_splits, piece = pieces(n_reduce, max(1, wanted), unit)
    return Weighted(width, n_tiles, n_splits, piece, n_outer * n_tiles * n_splits)


def combine_width(n_reduce: int, n_inner: int) -> int:
    """Neighbouring columns that neighbouring threads of a block of 128 merge."""
    return 128 if n_reduce <= 16 and n_inner > 8 else 8 if n_inner > 4 else 1
