"""Local response norm: sums of squares over a window that slides along the channels.

A unit of work is a *tile*: some lanes (positions other than the channel) with all their
channels, whose squares stay in cache in float64. Lanes are neighbours in memory, or lie
strides apart where channels come last. A tile is a matrix, flat in memory, a row per channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._elements import flat_input, flat_output, load, store
from numbanorm.backends.cpu._jit import exact, inner, kernel
from numbanorm.backends.cpu._launch import n_parts
from numbanorm.backends.cpu._memory import free, memory

Array = NDArray[Any]

#: Float64 numbers of a tile: 256 KiB, a fraction of an L2.
TILE_NUMBERS = 1 << 15
#: Lanes of a tile: a multiple of VECTOR, so that its rows begin where vectors do and have no tails.
VECTOR, MOST_LANES = 16, 512
#: Between its inverse and this, a sum can be raised to a power in float32.
LARGEST_SUM = 1e30


@inner
def _find_lanes(first, n, n_inner, n_channels, at):
    """Where the first channel of n lanes from `first` on lies."""
    for j in range(n):
        lane = first + j
        at[np.uintp(j)] = lane // n_inner * (n_inner * n_channels) + lane % n_inner


@inner
def _read(x, adjacent, start, at, step, n, row):
    """One channel of a tile: n neighbours, or what lies `step` after each lane's first channel."""
    if adjacent:
        for j in range(n):
            row[np.uintp(j)] = load(x, start + step + j)
    else:
        for j in range(n):
            row[np.uintp(j)] = load(x, at[np.uintp(j)] + step)


@inner
def _write(y, adjacent, start, at, step, n, row):
    """The same the other way."""
    if adjacent:
        for j in range(n):
            store(y, start + step + j, row[np.uintp(j)])
    else:
        for j in range(n):
            store(y, at[np.uintp(j)] + step, row[np.uintp(j)])


@inner
def _slide(tile, n_windows, size, n, prefix):
    """Row i of a tile becomes the sum of the rows from i to i + size - 1, for the first n_windows rows.

    Rows are cut into blocks as long as the window (van Herk 1992): a window is the end of one
    block and the beginning of the next, so two additions an element serve any size. Nothing is
    ever subtracted: sums of squares do not drift or turn negative, and an inf or NaN spoils
    its own windows only.
    """
    n_rows = n_windows + size - 1
    for block in range(0, n_windows, size):
        for i in range(min(block + size, n_rows) - 2, block - 1, -1):
            for j in range(n):
                tile[np.uintp(i * n + j)] += tile[np.uintp((i + 1) * n + j)]
        prefix[:n] = 0
        for i in range(block + 1, min(block + size, n_windows)):
            for j in range(n):
                prefix[np.uintp(j)] += tile[np.uintp((i + size - 1) * n + j)]
                tile[np.uintp(i * n + j)] += prefix[np.uintp(j)]


@exact
def _powers_of(sums, at, n, beta, like):
    """n numbers of `sums` from `at` on become their powers of -beta, by way of the dtype of `like`.

    Without fastmath, which would estimate roots by way of numbers that overflow.
    """
    one = like.dtype.type(1)
    if beta == 0.75:
        for j in range(n):
            root = np.sqrt(like.dtype.type(sums[np.uintp(at + j)]))
            sums[np.uintp(at + j)] = one / (root * np.sqrt(root))
    elif beta == 0.5:
        for j in range(n):
            sums[np.uintp(at + j)] = one / np.sqrt(like.dtype.type(sums[np.uintp(at + j)]))
    elif beta == 1:
        for j in range(n):
            sums[np.uintp(at + j)] = one / like.dtype.type(sums[np.uintp(at + j)])
    else:
        for j in range(n):
            sums[np.uintp(at + j)] = np.float64(sums[np.uintp(at + j)]) ** -beta


@inner
def _factors(sums, at, n, scale, like):
    """n sums of squares from `at` on become ``(k + alpha * sum) ** -beta``."""
    alpha, beta, k = scale
    outside = 0
    for j in range(n):
        s = k + alpha * sums[np.uintp(at + j)]
        sums[np.uintp(at + j)] = s
        outside += 0 if (s < LARGEST_SUM) & (s > 1 / LARGEST_SUM) else 1
    if outside:
        _powers_of(sums, at, n, beta, sums)
    else:
        _powers_of(sums, at, n, beta, like)


@inner
def _square_sums(x, adjacent, start, at, shape, n, width, window, tile, row, prefix):
    """Sums of squares over the window of each channel, in the tile's first rows."""
    n_channels, n_inner = shape
    before, after = window
    size = before + after + 1
    tile[: before * width] = 0
    tile[(before + n_channels) * width : (size - 1 + n_channels) * width] = 0
    for c in range(n_channels):
        _read(x, adjacent, start, at, c * n_inner, n, row)
        for j in range(width):
            value = np.float64(row[np.uintp(j)])
            tile[np.uintp((before + c) * width + j)] = value * value
    _slide(tile, n_channels, size, width, prefix)


@kernel
def _local_response_kernel(part, n_parts, x, shape, cut, window, scale, like, y):
    n_channels, n_inner = shape
    n_outer, n_tiles, width, adjacent = cut
    tile = memory((n_channels + window[0] + window[1]) * width)
    prefix = memory(width)
    row, result = memory(width, like.dtype), memory(width, like.dtype)
    row[:] = 1  # lanes beyond a tile's last one hold what they held: numbers, whose results are not written
    at = memory(width, np.intp)
    n_units = n_outer * n_tiles
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        first, n, start = _tile_of(unit, n_tiles, width, adjacent, shape, x.size)
        if not adjacent:
            _find_lanes(first, n, n_inner, n_channels, at)
        _square_sums(x, adjacent, start, at, shape, n, width, window, tile, row, prefix)
        for c in range(n_channels):
            _factors(tile, c * width, width, scale, like)
            _read(x, adjacent, start, at, c * n_inner, n, row)
            for j in range(width):
                value = np.float64(row[np.uintp(j)]) * tile[np.uintp(c * width + j)]
                result[np.uintp(j)] = like.dtype.type(value)
            _write(y, adjacent, start, at, c * n_inner, n, result)
    free(tile, prefix, row, result, at)


@inner
def _tile_of(unit, n_tiles, width, adjacent, shape, size):
    """(first lane, lanes, offset of the first of adjacent lanes) of a unit."""
    n_channels, n_inner = shape
    if not adjacent:
        first = unit * width
        return first, min(width, size // n_channels - first), 0
    outer, tile = unit // n_tiles, unit % n_tiles
    lower = n_inner * tile // n_tiles
    return 0, n_inner * (tile + 1) // n_tiles - lower, outer * n_channels * n_inner + lower


def _cut(shape: tuple[int, ...], size: int) -> tuple[int, int, int, bool]:
    """(outer units, tiles of each, lanes of a tile, whether lanes are neighbours) for a window of this size."""
    n_outer, n_channels, n_inner = shape
    most = max(VECTOR, min(TILE_NUMBERS // (n_channels + size - 1), MOST_LANES) // VECTOR * VECTOR)
    if n_inner < VECTOR:
        n_lanes = n_outer * n_inner
        width = min(most, _whole_vectors(n_lanes))
        return -(-n_lanes // width), 1, width, False
    n_tiles = -(-n_inner // most)
    return n_outer, n_tiles, _whole_vectors(-(-n_inner // n_tiles)), True


def _whole_vectors(n: int) -> int:
    """The next multiple of VECTOR."""
    return -(-n // VECTOR) * VECTOR


def _like(x: Array) -> Array:
    """An array of the compute dtype of x."""
    return np.empty(0, np.float64 if x.dtype == np.float64 else np.float32)


def local_response(x: Array, before: int, after: int, alpha: float, beta: float, k: float, y: Array) -> None:
    """``x / (k + alpha * sum of squares over a window of channels) ** beta``; reads x from memory once."""
    before, after = min(before, x.shape[1] - 1), min(after, x.shape[1] - 1)
    cut = _cut(x.shape, before + after + 1)
    parts = n_parts(cut[0] * cut[1], x.size)
    scale = float(alpha), float(beta), float(k)
    _local_response_kernel(parts, flat_input(x), x.shape[1:], cut, (before, after), scale, _like(x), flat_output(y))


@kernel
def _local_response_backward_kernel(part, n_parts, dy, x, shape, cut, window, scale, like, dx):
    n_channels, n_inner = shape
    n_outer, n_tiles, width, adjacent = cut
    before, after = window
    alpha, beta, k = scale
    factors = memory((n_channels + before + after) * width)
    through = memory((n_channels + before + after) * width)
    prefix = memory(width)
    gradient, value, result = memory(width, like.dtype), memory(width, like.dtype), memory(width, like.dtype)
    gradient[:] = 1
    value[:] = 1
    at = memory(width, np.intp)
    n_units = n_outer * n_tiles
    for unit in range(n_units * part // n_parts, n_units * (part + 1) // n_parts):
        first, n, start = _tile_of(unit, n_tiles, width, adjacent, shape, x.size)
        if not adjacent:
            _find_lanes(first, n, n_inner, n_channels, at)
        _square_sums(x, adjacent, start, at, shape, n, width, window, factors, value, prefix)
        through[: after * width] = 0
        through[(after + n_channels) * width : (before + after + n_channels) * width] = 0
        for c in range(n_channels):
            _read(dy, adjacent, start, at, c * n_inner, n, gradient)
            _read(x, adjacent, start, at, c * n_inner, n, value)
            to = (after + c) * width
            for j in range(width):
                s = k + alpha * factors[np.uintp(c * width + j)]
                product = np.float64(gradient[np.uintp(j)]) * np.float64(value[np.uintp(j)])
                through[np.uintp(to + j)] = product / s
            _factors(factors, c * width, width, scale, like)
            for j in range(width):
                through[np.uintp(to + j)] *= factors[np.uintp(c * width + j)]
        _slide(through, n_channels, before + after + 1, width, prefix)
        for c in range(n_channels):
            _read(dy, adjacent, start, at, c * n_inner, n, gradient)
            _read(x, adjacent, start, at, c * n_inner, n, value)
            for j in range(width):
                direct = np.float64(gradient[np.uintp(j)]) * factors[np.uintp(c * width + j)]
                indirect = 2 * alpha * beta * np.float64(value[np.uintp(j)]) * through[np.uintp(c * width + j)]
                result[np.uintp(j)] = like.dtype.type(direct - indirect)
            _write(dx, adjacent, start, at, c * n_inner, n, result)
    free(factors, through, prefix, gradient, value, result, at)


def local_response_backward(
    dy: Array, x: Array, before: int, after: int, alpha: float, beta: float, k: float, dx: Array
) -> None:
    """``dx = dy * s**-beta - 2 * alpha * beta * x * sum of dy * x * s**(-beta - 1) over the mirrored window``."""
    before, after = min(before, x.shape[1] - 1), min(after, x.shape[1] - 1)
    cut = _cut(x.shape, before + after + 1)
    parts = n_parts(cut[0] * cut[1], x.size)
    scale = float(alpha), float(beta), float(k)
    inputs = flat_input(dy), flat_input(x), x.shape[1:], cut, (before, after)
    _local_response_backward_kernel(parts, *inputs, scale, _like(x), flat_output(dx))
