"""Local response norm: a thread for each lane (position other than the channel) walks along the channels.

Windows are summed as on the CPU, by blocks as long as the window: the end of one block and the
beginning of the next, so that nothing is ever subtracted. Ends of blocks, and what came
before a channel, lie in shared memory that no other thread looks at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._intrinsics import KEEP, pointer, real, scalar_load, scalar_store
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._launch_norms import MULTIPROCESSORS
from numbanorm.backends.cuda._norm_arithmetic import RANGES, compute_kind
from numbanorm.backends.cuda._response_backward import local_response_gradient
from numbanorm.backends.cuda._response_power import LARGEST, POWERS, power, to_the_power
from numbanorm.backends.cuda.affine import kind_of

Array = Any

int32, int64, uint32 = types.int32, types.int64, types.uint32

THREADS = 128
#: Threads that keep a device busy; lanes are cut along the channels while there are fewer.
ENOUGH = MULTIPROCESSORS * 1024


@_jit.kernel
def local_response_lanes(kind):
    """A thread takes `per_chunk` channels of a lane.

    y may be x, if a lane is one chunk: what is overwritten is kept for the windows to come. A window
    whose squares overflow, or vanish beside a k that is no larger, is summed again, scaled.
    """
    number, load, store, raised = real(kind), scalar_load(kind, KEEP), scalar_store(kind), power(kind)
    limits = RANGES[compute_kind(kind)]
    down, up, tiny, shadow = (number(v) for v in (limits.down, limits.up, limits.tiny, limits.shadow))
    largest, zero = number(LARGEST[compute_kind(kind)]), number(0)
    to_the = to_the_power(kind)

    @device
    def slot(channel, before, lane, threads):
        """Where one of the last `before` channels is kept."""
        return int32(uint32(channel) % uint32(before)) * threads + lane

    @device
    def earlier(kept, channel, before, lane, threads):
        """One of the last `before` channels; zero before the first."""
        if channel < 0:
            return zero
        return kept[slot(channel, before, lane, threads)]

    @device
    def careful(x, start, step, n_channels, c, before, after, kept, lane, threads, scale):
        """The sum of squares of scaled numbers over the window of channel c."""
        total = zero
        for i in range(c - before, c):
            value = earlier(kept, i, before, lane, threads) * scale
            total += value * value
        for i in range(c, c + after + 1):
            value = load(x, start + i * step, i < n_channels) * scale
            total += value * value
        return total

    def local_response_lanes(
        x, y, n_lanes, n_inner, n_channels, n_chunks, per_chunk, before, after, alpha, beta, k, way
    ):  # fmt: skip
        shared = cuda.shared.array(0, number)
        threads, lane = int32(cuda.blockDim.x), int32(cuda.threadIdx.x)
        unit = int64(cuda.blockIdx.x) * threads + lane
        if unit >= n_lanes * n_chunks:
            return
        chunk = int32(unit // n_lanes)
        position = unit - chunk * n_lanes
        outer = position // n_inner
        start = outer * n_inner * n_channels + (position - outer * n_inner)
        size = before + after + 1
        kept = shared[size * threads :]
        block = chunk * per_chunk
        end = min(n_channels, block + per_chunk)
        for c in range(max(block - before, 0), block):
            kept[slot(c, before, lane, threads)] = load(x, start + c * n_inner, True)
        while block < end:
            total = zero
            for i in range(size):
                p = size - 1 - i
                c = block + p - before
                value = zero
                if c < block:
                    value = earlier(kept, c, before, lane, threads)
                else:
                    value = load(x, start + c * n_inner, c < n_channels)
                total += value * value
                shared[p * threads + lane] = total
            prefix = zero
            for p in range(min(size, end - block)):
                c = block + p
                if p > 0:
                    value = load(x, start + (c + after) * n_inner, c + after < n_channels)
                    prefix += value * value
                total = shared[p * threads + lane] + prefix
                value = load(x, start + c * n_inner, True)
                if total < largest and (total > tiny or k > shadow):
                    result = value * raised(k + alpha * total, beta, way)
                else:
                    scale = up if total < largest else down
                    total = careful(x, start, n_inner, n_channels, c, before, after, kept, lane, threads, scale)
                    outside = to_the(scale, beta)
                    result = (value * outside) * raised((k * scale) * scale + alpha * total, beta, way) * outside
                if before > 0:
                    kept[slot(c, before, lane, threads)] = value
                store(y, start + c * n_inner, result, True)
            block += size

    array, scalars = pointer(kind), (number, number, number, int32)
    bounds = THREADS, 6 if compute_kind(kind) == "float64" else 8
    return local_response_lanes, (array, array, int64, int64, *[int32] * 5, *scalars), bounds


@lru_cache(maxsize=1024)
def _cut(n_lanes: int, n_channels: int, size: int, before: int, itemsize: int, limit: int) -> tuple[int, int, int, int]:
    """(threads, bytes of shared memory, chunks of a lane, channels of a chunk)."""
    numbers = (size + before) * itemsize
    threads = THREADS
    while threads > 1 and numbers * threads > (_jit.DEFAULT_SHARED if threads > 32 else limit):
        threads //= 2
    wanted = max(1, min(-(-ENOUGH // n_lanes), n_channels // max(4 * size, 16)))
    per_chunk = -(-n_channels // (wanted * size)) * size
    return threads, numbers * threads, -(-n_channels // per_chunk), per_chunk


def local_response(x: Array, before: int, after: int, alpha: float, beta: float, k: float, y: Array) -> None:
    """``x / (k + alpha * sum of squares over a window of channels) ** beta``.

    Moves 2 sizes of x; the window's other visits to x are served by the caches.
    """
    n_outer, n_channels, n_inner = x.shape
    before, after = min(before, n_channels - 1), min(after, n_channels - 1)
    kind = kind_of(x.dtype)
    number = np.dtype(compute_kind(kind)).type
    size, n_lanes = before + after + 1, n_outer * n_inner
    cut = _cut(n_lanes, n_channels, size, before, number(0).itemsize, _jit.shared_limit())
    threads, shared, n_chunks, per_chunk = cut
    if x.data.ptr == y.data.ptr:
        n_chunks, per_chunk = 1, n_channels
    counts = (np.int32(v) for v in (n_channels, n_chunks, per_chunk, before, after))
    scale = number(alpha), number(beta), number(k), np.int32(POWERS.get(beta, 0))
    grid = -(-n_lanes * n_chunks // threads)
    sizes = np.int64(n_lanes), np.int64(n_inner)
    _jit.run(local_response_lanes(kind), grid, x, y, *sizes, *counts, *scale, shared=shared, threads=threads)


def local_response_backward(
    dy: Array, x: Array, before: int, after: int, alpha: float, beta: float, k: float, dx: Array
) -> None:
    """``dx = dy * s**-beta - 2 * alpha * beta * x * sum of dy * x * s**(-beta - 1) over the mirrored window``.

    Moves 3 sizes of x. A lane's channels lie in shared memory: the more there are, the fewer threads.
    """
    n_outer, n_channels, n_inner = x.shape
    before, after = min(before, n_channels - 1), min(after, n_channels - 1)
    kind = kind_of(x.dtype)
    number = np.dtype(compute_kind(kind)).type
    numbers, n_lanes = 2 * (n_channels + before + after), n_outer * n_inner
    threads = THREADS
    while threads > 1 and numbers * number(0).itemsize * threads > _jit.shared_limit():
        threads //= 2
    counts = np.int64(n_lanes), np.int64(n_inner), *(np.int32(v) for v in (n_channels, before, after))
    scale = (number(v) for v in (alpha, beta, k, 2 * alpha * beta))
    shared = numbers * number(0).itemsize * threads
    way, grid = np.int32(POWERS.get(beta, 0)), -(-n_lanes // threads)
    _jit.run(local_response_gradient(kind), grid, dy, x, dx, *counts, *scale, way, shared=shared, threads=threads)
