"""The gradient of local response norm: a thread for each lane, whose window sums lie in shared memory."""

from __future__ import annotations

from numba import cuda
from numba.cuda import types

from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._intrinsics import KEEP, pointer, real, scalar_load, scalar_store
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import RANGES, compute_kind
from numbanorm.backends.cuda._response_power import LARGEST, power, to_the_power

int32, int64 = types.int32, types.int64

THREADS = 128


@_jit.kernel
def local_response_gradient(kind):
    """dx may be the memory of dy or x: a channel is read again just before it is written.

    Windows that overflow, or vanish beside a k that is no larger, are summed again, scaled.
    """
    number, load, store = real(kind), scalar_load(kind, KEEP), scalar_store(kind)
    raised, to_the = power(kind), to_the_power(kind)
    limits = RANGES[compute_kind(kind)]
    down, up, tiny, shadow = (number(v) for v in (limits.down, limits.up, limits.tiny, limits.shadow))
    largest, zero, one = number(LARGEST[compute_kind(kind)]), number(0), number(1)

    @device
    def slide(tile, n_windows, size, first, threads):
        """Element i of a column becomes the sum of those from i to i + size - 1; nothing is ever subtracted."""
        for block in range(0, n_windows, size):
            length = min(size, n_windows + size - 1 - block)
            total = zero
            for j in range(length):
                at = first + (block + length - 1 - j) * threads
                total += tile[at]
                tile[at] = total
            prefix = zero
            for i in range(block + 1, min(block + size, n_windows)):
                prefix += tile[first + (i + size - 1) * threads]
                tile[first + i * threads] += prefix

    @device
    def careful(x, start, step, n_channels, first, last, scale):
        """The sum of squares of scaled numbers over the channels from first to last."""
        total = zero
        for i in range(max(first, 0), min(last + 1, n_channels)):
            value = load(x, start + i * step, True) * scale
            total += value * value
        return total

    def local_response_gradient(dy, x, dx, n_lanes, n_inner, n_channels, before, after, alpha, beta, k, slope, way):
        shared = cuda.shared.array(0, number)
        threads, lane = int32(cuda.blockDim.x), int32(cuda.threadIdx.x)
        position = int64(cuda.blockIdx.x) * threads + lane
        if position >= n_lanes:
            return
        outer = position // n_inner
        start = outer * n_inner * n_channels + (position - outer * n_inner)
        size = before + after + 1
        n_rows = n_channels + size - 1
        other = n_rows * threads + lane  # the second of two columns
        for i in range(n_rows):
            c = i - before
            value = load(x, start + c * n_inner, c >= 0 and c < n_channels)
            shared[lane + i * threads] = value * value
            shared[other + i * threads] = zero
        slide(shared, n_channels, size, lane, threads)
        lift, drop = one, one  # products of a lane with numbers so large may be too small
        for c in range(n_channels):
            if not shared[lane + c * threads] < largest:
                lift, drop = one / down, down
        for c in range(n_channels):
            total = shared[lane + c * threads]
            value = load(x, start + c * n_inner, True)
            gradient = load(dy, start + c * n_inner, True)
            if total < largest and (total > tiny or k > shadow):
                s = k + alpha * total
                direct = gradient * raised(s, beta, way)
                share = value / s
            else:
                scale = up if total < largest else down
                s = (k * scale) * scale + alpha * careful(x, start, n_inner, n_channels, c - before, c + after, scale)
                outside = to_the(scale, beta)
                direct = (gradient * outside) * raised(s, beta, way) * outside
                share = (value * scale) / s * scale
            shared[lane + c * threads] = direct
            shared[other + (after + c) * threads] = direct * (share * lift)
        slide(shared, n_channels, size, other, threads)
        for c in range(n_channels):
            value = load(x, start + c * n_inner, True)
            result = shared[lane + c * threads] - ((slope * value) * shared[other + c * threads]) * drop
            store(dx, start + c * n_inner, result, True)

    array = pointer(kind)
    return local_response_gradient, (array, array, array, int64, int64, *[int32] * 3, *[number] * 4, int32), THREADS
