"""What only compiled code shows of masked launchers: lines that bypass the caches, and vector registers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features

from numbanorm._dtypes import compute_dtype
from numbanorm.backends import cpu
from numbanorm.backends.cpu import _masked_kernels, _masked_write, _sums
from tests.backends.cpu.test_stream import DTYPES, dimension, streaming

pytestmark = pytest.mark.compiled


def calls(x, taken, keep, y):
    """Each masked launcher on x (n, n_channels, n_inner), with y and without it filled before."""
    dtype = compute_dtype(x.dtype)
    n, n_channels, n_inner = x.shape
    nothing = np.empty(0, dtype)
    options = 1e-5, False, True, 0.0, keep
    gamma, columns = np.arange(1, n_channels + 1, dtype=dtype), np.arange(n_inner, dtype=dtype)
    rows = n * n_channels, n_inner
    in_rows = taken.reshape(rows) if taken.dtype == np.bool_ else taken
    statistics = np.ones(n_channels), np.full(n_channels, 2.0)
    cpu.masked_norm_groups(x, taken, gamma, gamma, *options, y, nothing, nothing)
    yield y
    cpu.masked_norm_rows(x.reshape(rows), in_rows, columns, columns, *options, y.reshape(rows), nothing, nothing)
    yield y
    cpu.masked_affine(x, taken, *statistics, 1e-5, False, gamma, gamma, keep, y)
    yield y
    if n_inner > 1:
        # Channels last; a line is now a row of them.
        shape, statistics = (*rows, 1), (np.ones(n_inner), np.full(n_inner, 2.0))
        channels_last = x.reshape(n * n_channels, n_inner, 1), taken.reshape(shape) if taken.ndim > 1 else taken
        cpu.masked_affine(*channels_last, *statistics, 1e-5, False, columns, columns, keep, y.reshape(shape))
        yield y


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), dimension),
    dtype=st.sampled_from(DTYPES),
    shift=st.integers(0, 9),
    seed=st.integers(0, 99),
    masked=st.booleans(),
    keep=st.booleans(),
)
def test_the_same_bits_and_nothing_beyond(shape, dtype, shift, seed, masked, keep):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    taken = rng.random(shape) < 0.7 if masked else rng.integers(0, shape[2] + 1, shape[0] * shape[1])
    with streaming(False):
        expected = [y.copy() for y in calls(x, taken, keep, np.full_like(x, 5))]
    memory = np.full(x.size + 40, 7, dtype)
    with streaming(True):
        y = memory[shift : shift + x.size].reshape(shape)
        for actual, wanted in zip(calls(x, taken, keep, y), expected, strict=True):
            np.testing.assert_array_equal(actual.view(np.uint8), wanted.view(np.uint8))
            y[...] = 5
    assert (memory[:shift] == 7).all()
    assert (memory[shift + x.size :] == 7).all()


@pytest.mark.skipif(not get_host_cpu_features().get("avx2"), reason="the names of other machines' registers differ")
def test_main_loops_use_vector_registers():
    x = np.ones((2, 3, 70), np.float32)
    for taken in (x > 0, np.full(6, 30)):
        list(calls(x, taken, False, np.empty_like(x)))
    _masked_kernels.masked_norm_kernel.run.recompile()  # code from the cache cannot be inspected
    _masked_kernels.masked_columns_kernel.run.recompile()
    for function in (_sums.weighted_segment_moments, _masked_write.write_runs, _masked_write.write_padding):
        for code in function.inspect_asm().values():
            assert "ymm" in code or "zmm" in code, function.__name__
            assert "gather" not in code, function.__name__
