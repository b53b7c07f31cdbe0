"""The small kernels of float64 moments: merging parts, finishing, running statistics."""

from __future__ import annotations

from typing import Any

from numba import cuda, float64, int32, int64

from numbanorm import _recurrences
from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._arithmetic import finite_or_zero, load_sums
from numbanorm.backends.cuda._intrinsics import KEEP, pointer, power_of_two, real, scalar_load, scalar_store
from numbanorm.backends.cuda._jit import libdevice, types

#: Threads of a block.
THREADS = 128
#: Numbers of shared memory that hold a count, a mean and an m2 for each thread.
STATES = 3 * THREADS

welford_combine = _jit.device(_recurrences.welford_combine)


@_jit.kernel
def combine(source: str, width: int) -> Any:
    """A kernel that merges parts (n_outer, n_reduce, n_inner) over the middle, in a fixed order.

    `source` is "moments" (three float64 arrays) or the kind of the sums that other kernels
    left in scratch; `width` neighbouring threads of a block have neighbouring columns.
    """
    height = THREADS // width
    sums = source != "moments"

    @_jit.device
    def sums_part(count, mean, m2, at, stride):
        n, c, k, a, al, b, bl = load_sums(count, at, stride)
        if n == float64(0):
            return float64(0), float64(0), float64(0)
        total, unit = float64(a) + float64(finite_or_zero(al)), float64(power_of_two(int32(-k)))
        offset = total / n
        spread = (float64(b) + float64(bl)) - total * offset
        # An infinite sum has NaN where the two cancel, as its spread shall be.
        spread = float64(0) if spread < float64(0) else spread
        return float64(n), float64(c) + offset * unit, spread * unit * unit

    @_jit.device
    def moments_part(count, mean, m2, at, stride):
        return count[at], mean[at], m2[at]

    part = sums_part if sums else moments_part

    def combine(count, mean, m2, n_outer, n_reduce, n_inner, n_tiles, out_count, out_mean, out_m2):
        shared = cuda.shared.array(STATES, float64)
        t = cuda.threadIdx.x
        outer = int64(cuda.blockIdx.x) // n_tiles
        col = (int64(cuda.blockIdx.x) - outer * n_tiles) * width + t % width
        n, mu, m = float64(0), float64(0), float64(0)
        if col < n_inner:
            for i in range(t // width, n_reduce, height):
                n2, mu2, m2_ = part(
                    count, mean, m2, (outer * n_reduce + i) * n_inner + col, n_outer * n_reduce * n_inner
                )
                n, mu, m = welford_combine(n, mu, m, n2, mu2, m2_)
        rows = height
        while rows > 1:
            shared[t], shared[t + THREADS], shared[t + 2 * THREADS] = n, mu, m
            cuda.syncthreads()
            rows //= 2
            other = t + rows * width
            if t // width < rows:
                n, mu, m = welford_combine(
                    n, mu, m, shared[other], shared[other + THREADS], shared[other + 2 * THREADS]
                )
            cuda.syncthreads()
        if t < width and col < n_inner:
            out = outer * n_inner + col
            out_count[out], out_mean[out], out_m2[out] = n, mu, m

    array, index = pointer("float64"), types.int64
    inputs = [pointer(source)] * 3 if sums else [array] * 3
    return combine, (*inputs, *[index] * 4, *[array] * 3), THREADS


@_jit.kernel
def finish(mean_kind: str, var_kind: str) -> Any:
    """A kernel for ``finish_moments``, one thread for each set; a kind "none" is not wanted."""
    wants_mean, wants_var = mean_kind != "none", var_kind != "none"
    mean_kind, var_kind = mean_kind if wants_mean else "float64", var_kind if wants_var else "float64"
    store_mean, store_var = scalar_store(mean_kind), scalar_store(var_kind)
    mean_real, var_real = real(mean_kind), real(var_kind)

    def finish(count, mean, m2, n_sets, ddof, use_mean, root, out_mean, out_var):
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i >= n_sets:
            return
        n, mu = count[i], mean[i]
        if wants_var:
            divisor = max(n - ddof, float64(0))
            var = m2[i] / divisor
            if use_mean == int32(0):
                var += mu * mu
            store_var(out_var, i, var_real(libdevice.sqrt(var) if root != int32(0) else var), True)
        if wants_mean:
            if use_mean == int32(0):
                mu = float64(0)
            if not n > float64(0):
                mu = n / n
            store_mean(out_mean, i, mean_real(mu), True)

    array, flag = pointer("float64"), types.int32
    inputs = (array, array, array, types.int64, types.float64, flag, flag)
    return finish, (*inputs, pointer(mean_kind), pointer(var_kind)), THREADS


@_jit.kernel
def update(kind: str, running_kind: str) -> Any:
    """A kernel for ``update_running``: one of the two statistics."""
    load, load_running = scalar_load(kind, KEEP), scalar_load(running_kind, KEEP)
    store, number = scalar_store(running_kind), real(running_kind)

    def update(new, running, n, factor, momentum):
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < n:
            old = float64(load_running(running, i, True))
            value = float64(load(new, i, True)) * factor
            store(running, i, number((float64(1) - momentum) * old + momentum * value), True)

    return update, (pointer(kind), pointer(running_kind), types.int64, types.float64, types.float64), THREADS
