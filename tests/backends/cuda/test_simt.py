"""The emulator catches what it is there to catch."""

import numpy as np
import pytest
from numba import cuda, float32

from numbanorm.backends.cuda import _intrinsics, _jit
from tests.backends.cuda import compile_checks, simt

store = _intrinsics.vector_store("float32")
load = _intrinsics.vector_load("float32")


@_jit.device
def warp_sum(value):
    for bits in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, bits)
    return value


@_jit.kernel
def scaled_sums(kind, threads):
    """y = x / sum(x) for each block's 4 * threads elements."""
    ld, st = _intrinsics.vector_load(kind), _intrinsics.vector_store(kind)
    n_warps = threads // 32

    def scaled_sums(x, y, n):
        sums = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        i = (np.int64(cuda.blockIdx.x) * threads + t) * 4
        v = ld(x, i, i < n)
        total = warp_sum((v[0] + v[1]) + (v[2] + v[3]))
        if t & 31 == 0:
            sums[t >> 5] = total
        cuda.syncthreads()
        total = warp_sum(sums[t & 31] if t & 31 < n_warps else float32(0))
        st(y, i, (v[0] / total, v[1] / total, v[2] / total, v[3] / total), i < n)

    pointer = _intrinsics.pointer(kind)
    return scaled_sums, (pointer, pointer, _intrinsics.types.int64), threads


@pytest.mark.parametrize("order", simt.ORDERS)
def test_an_example(order):
    kernel = scaled_sums("float32", 64)
    x = np.arange(1, 513, dtype=np.float32)
    y = np.full_like(x, np.nan)
    simt.launch(kernel.function, 2, 64, x, y, np.int64(512), order=order)
    np.testing.assert_allclose(y.reshape(2, 256), x.reshape(2, 256) / x.reshape(2, 256).sum(1)[:, None], rtol=1e-6)


@pytest.mark.parametrize("cc", compile_checks.ARCHITECTURES)
def test_the_example_compiles(cc):
    compiled = compile_checks.check(scaled_sums("float32", 64), cc)
    assert compiled.registers <= 64
    if cc == (9, 0):
        assert compiled.count(r"LDG\.E(?:\.\w+)*\.128") == 1
        assert compiled.count(r"STG\.E(?:\.\w+)*\.128") == 1
        assert compiled.count("SHFL.*") == 10
        assert compiled.count("BAR.*") == 1


def missing_barrier(y):
    shared = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    shared[t] = float32(t)
    y[t] = shared[63 - t]


def barrier_and_vote(y):
    if cuda.threadIdx.x < 32:
        cuda.syncthreads()
    else:
        cuda.syncthreads_or(True)


def absent_lane(y):
    if cuda.threadIdx.x & 31 < 16:
        y[0] = cuda.shfl_sync(0xFFFF, y[0], 20)


def not_in_its_mask(y):
    cuda.syncwarp(0xFFFF)


def misaligned(y):
    load(y, cuda.threadIdx.x, True)


def out_of_bounds(y):
    load(y, 4 * cuda.threadIdx.x, True)


@pytest.mark.parametrize("order", simt.ORDERS)
def test_a_missing_barrier_shows_as_nan(order):
    y = np.zeros(64, np.float32)
    simt.launch(missing_barrier, 1, 64, y, order=order)
    assert np.isnan(y).any()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (barrier_and_vote, "meets"),
        (absent_lane, "takes no part"),
        (not_in_its_mask, "own mask"),
        (misaligned, "not aligned"),
    ],
)
def test_mistakes_raise(function, message):
    with pytest.raises(simt.SimulationError, match=message):
        simt.launch(function, 1, 64, np.zeros(256, np.float32))


def test_accesses_stay_within_the_array():
    with pytest.raises(IndexError, match="of 64"):
        simt.launch(out_of_bounds, 1, 64, np.zeros(64, np.float32))
