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
    """The launch for x (n_outer, n_reduce, n_inner); without `blocks_share` a thread has whole columns.

    A tile has `width` times `vector` columns, and each of its `n_splits` blocks `piece` rows; with
    width 0 it has all columns, and a step of a block `across` rows. The last of each `group` blocks
    merges their parts, and so on: `n_parts` of a column are left for others on all levels.
    """

    vector: int
    blocks_share: bool
    width: int
    across: int
    n_tiles: int
    n_splits: int
    piece: int
    n_blocks: int
    group: int
    n_parts: int

    @property
    def cut(self) -> tuple[int, ...]:
        """What kernels are told after x's shape."""
        return self.n_tiles, self.n_splits, self.piece, self.across, self.group, self.n_parts


#: Rows of a column that a thread sums by itself.
FEW_ROWS = 64
#: Columns up to which a block reads whole rows, one behind the other.
NARROW = 64
#: Most blocks for a tile: then two levels merge them.
MERGED = 256
#: Parts that a thread merges one after the other, at a third of a microsecond each.
IN_TURN = 8


def column_threads(vector: int) -> int:
    """Threads of a block, so that the sums of their columns fit in 28 KB of shared memory."""
    return 1024 // max(vector, 4)


def cols(kind: str, n_outer: int, n_reduce: int, n_inner: int, aligned: bool) -> Cols:
    """Which columns and rows a block has. `aligned`: x begins at a multiple of 16 bytes."""
    full = VECTOR[kind]
    if n_reduce <= FEW_ROWS or (n_reduce * n_inner <= 4096 and n_outer * n_inner >= BUSY * 32):
        vector = full if aligned and n_inner % full == 0 else 1
        n_blocks = -(-n_outer * n_inner // (column_threads(vector) * vector))
        return Cols(vector, False, 0, 1, 1, 1, n_reduce, n_blocks, 1, 1)
    return tiles(item_size(kind), n_outer, n_reduce, n_inner, aligned)


def tiles(itemsize: int, n_outer: int, n_reduce: int, n_inner: int, aligned: bool) -> Cols:
    """Tiles of columns, and pieces of their rows, for the blocks of :func:`._moments_cols.tile_sums`."""
    full = 16 // itemsize
    vector = full if aligned and n_reduce * n_inner % full == 0 else 1
    threads = column_threads(vector)
    across = across_block(n_inner, vector, threads * vector)
    if n_inner <= NARROW and across:
        width, n_tiles, unit, columns = 0, 1, across, n_inner
    else:
        vector = vector if n_inner % full == 0 else 1
        threads = column_threads(vector)
        width = 8 if vector > 1 else 32
        columns = width * vector
        n_tiles, unit, across = -(-n_inner // columns), threads // width, 1
    wanted = min(-(-BUSY // (n_outer * n_tiles)), MERGED, n_reduce // max(4 * unit, worth_a_part(itemsize)))
    n_splits, piece = pieces(n_reduce, max(1, wanted), unit)
    group = IN_TURN * max(1, threads // columns)
    n_parts = parts_left(n_splits, group)
    return Cols(vector, True, width, across, n_tiles, n_splits, piece, n_outer * n_tiles * n_splits, group, n_parts)


def parts_left(n_splits: int, group: int) -> int:
    """Parts of a column on all levels: of the blocks, of their groups, of these, until one is left."""
    n_parts, level = n_splits, n_splits
    while level > 1:
        level = -(-level // group)
        n_parts += level * (level > 1)
    return n_parts


def worth_a_part(itemsize: int) -> int:
    """Rows for which a part is worth its bytes: it is an eighth of them, which stays in the L2."""
    return 8 * 2 * N_SUMS * (8 if itemsize == 8 else 4) // itemsize


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
