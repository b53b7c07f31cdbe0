"""Cutting work into parts: integers only, from shapes alone.

Nothing here looks at the number of threads, so results do not depend on it. What depends on
the machine is how much its caches hold.
"""

from __future__ import annotations

import os
from functools import lru_cache


def _cache_bytes(level: int, otherwise: int) -> int:
    """Size of a cache, from the C library; `otherwise` where it does not say."""
    try:
        size = os.sysconf(f"SC_LEVEL{level}_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        return otherwise
    return size if size > 0 else otherwise


#: Elements below which starting threads costs more than it saves.
SERIAL_BELOW = 1 << 15
#: Parts of a parallel loop: enough to balance a handful of cores, few enough to cost nothing.
MAX_PARTS = 64
#: Elements of a part at least: starting one takes a quarter of a microsecond.
PART = 1 << 14
#: Elements summed about one shift before Chan's merge; 16 KiB of float64 stay in L1.
BLOCK = 2048
#: Elements summed in float32 before they are merged in float64; each lane adds some sixteen.
QUICK_BLOCK = 1024
#: Elements below which a row's sums cost less in float64 than checking those in float32.
SHORT_ROW = 96
#: Most short rows whose statistics are finished, and which are written, in one go.
BATCH = 64
#: Elements of a batch of rows that stays in the L1, and of one that stays in the L2.
IN_L1, IN_L2 = 1 << 13, 1 << 16
#: Rows of a piece of columns: merging pieces costs as much as reading some of them. Beyond FEW_PIECES at least these.
SHORTEST_COLUMN = 64
SHORTER_COLUMN = 1024
FEW_PIECES = 8
#: Columns whose running sums stay in L1 together.
TILE = 1024
#: Columns of a tile at least, where that would make more tiles.
NARROWEST = 64
#: Narrow matrices are read as if this many columns wide, several rows at a time.
WIDE = 256
#: Bytes of channels that stay in L2 between their statistics and their normalisation.
CHANNEL_BYTES = _cache_bytes(2, 1 << 20) // 2
#: Bytes of channels that stay in this core's share of the L3: to read them again from there costs less than
#: to jump between the samples for each channel on its own.
BLOCK_BYTES = max(CHANNEL_BYTES, _cache_bytes(3, 1 << 25) // (2 * max(os.cpu_count() or 1, 4)))
#: Outputs from here on are written past the caches: with an input as large they would drive each other out.
STREAM_BYTES = _cache_bytes(3, 1 << 25) // 2
#: Shorter runs of neighbouring bytes have too many partial cache lines.
SHORTEST_RUN = 1 << 10
#: Bytes that are left out between two segments which take less time to pass over than to jump over.
BRIDGE_BYTES = 12 << 10
#: Segments shorter than this are treated as columns.
SHORT_SEGMENT = 32


@lru_cache(maxsize=1024)
def n_parts(n_units: int, n_elements: int) -> int:
    """Parts of a loop over `n_units` independent units; 1 means: do not start threads."""
    return 1 if n_elements < SERIAL_BELOW else max(1, min(n_units, MAX_PARTS, n_elements // PART))


@lru_cache(maxsize=1024)
def n_splits(n_units: int, length: int) -> int:
    """Pieces into which each of `n_units` reductions of `length` elements is cut.

    1 where there are units enough to share out; pieces keep at least 8 blocks.
    """
    wanted = -(-MAX_PARTS // n_units)
    return max(1, min(wanted, length // (8 * BLOCK)))


@lru_cache(maxsize=1024)
def n_column_splits(n_units: int, n_rows: int, n_elements: int) -> int:
    """The same for `n_units` tiles of columns with `n_rows` rows; pieces keep at least SHORTEST_COLUMN rows.

    Half as many: each takes 24 bytes a column until it is merged. One where no threads are started.
    """
    if n_elements < SERIAL_BELOW:
        return 1
    wanted = -(-MAX_PARTS // (2 * n_units))
    return max(1, min(wanted, n_rows // SHORTEST_COLUMN, max(FEW_PIECES, n_rows // SHORTER_COLUMN)))


def fold(n_reduce: int, n_inner: int) -> int:
    """Rows of a narrow matrix (n_reduce, n_inner) to read as one wide row."""
    return max(1, min(WIDE // n_inner, n_reduce))


@lru_cache(maxsize=1024)
def column_cut(shape: tuple[int, int, int], itemsize: int) -> tuple[int, int, int]:
    """(rows read as one, tiles of columns, pieces of rows) for sums over the middle axis.

    An x that stays in cache is cut into more tiles than its sums need, so that there are parts
    enough without pieces, which would have to be merged.
    """
    n_outer, n_reduce, n_inner = shape
    size = n_outer * n_reduce * n_inner
    at_once, n_tiles = fold(n_reduce, n_inner), -(-n_inner // TILE)
    whole = min(n_inner // NARROWEST, size // PART)
    if size * itemsize <= CHANNEL_BYTES and at_once == 1 and whole > 1:
        return 1, max(n_tiles, whole), 1
    return at_once, n_tiles, n_column_splits(n_outer * n_tiles, n_reduce // at_once, size)


def rows_at_once(n_cols: int, elements: int = IN_L2) -> int:
    """Rows of a batch that is summed and then written: short ones together, as long as they stay in cache."""
    return max(1, min(BATCH, elements // n_cols))


def channels_at_once(n_channels: int, channel_bytes: int) -> int:
    """Neighbouring channels that stay in cache together, and leave blocks enough to share out."""
    return max(1, min(BLOCK_BYTES // channel_bytes, n_channels // MAX_PARTS, BATCH))
