"""Local response norm thread by thread, through the launcher, against float64; and what the compiler makes of it."""

import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import _jit, response
from tests.backends.cuda import compile_checks, host_arrays
from tests.backends.cuda.test_normalize import sample
from tests.norms_backward.checks import assert_gradient
from tests.oracle import FLOATS, assert_normalized


def check(x, before, after, alpha=0.3, beta=0.75, k=1.5, in_place=False, rtol=None):
    given = host_arrays.array(x)
    y = given if in_place else host_arrays.empty(x.shape, x.dtype)
    response.local_response(given, before, after, alpha, beta, k, y)
    expected = np.empty(x.shape)
    reference.local_response(x.astype("f8"), before, after, alpha, beta, k, expected)
    actual = host_arrays.as_numpy(y)
    if rtol is None:
        assert_normalized(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, rtol=rtol)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 7, 5), (3, 1, 4), (40, 20, 1), (1, 33, 3)])
@pytest.mark.parametrize("in_place", [False, True])
def test_windows(every_order, shape, dtype, in_place):
    x, _ = sample(shape, dtype)
    for before, after in ((2, 2), (0, 0), (1, 0), (0, 3), (50, 60)):
        check(x, before, after, in_place=in_place)


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0, 0.6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers(simulator, beta, dtype):
    check(sample((2, 7, 5), dtype)[0], 2, 2, beta=beta)


@pytest.mark.parametrize("size", [1e-30, 1e4, 1e25])
@pytest.mark.parametrize("in_place", [False, True])
def test_numbers_of_any_size(simulator, size, in_place, rng):
    """Squares of 1e25 are beyond float32, and those of 1e-30 below it."""
    x = (rng.standard_normal((2, 40, 3)) * size).astype("f4")
    for beta in (0.5, 0.75, 1.0):
        check(x, 2, 2, 1e-4, beta, 0.0, in_place, rtol=2e-6)
    check(x, 2, 2, 1e-4, 0.75, 1.0, in_place, rtol=2e-6)


def test_a_large_number_leaves_no_trace_in_later_windows(simulator, rng):
    x = rng.standard_normal((2, 30, 3)).astype("f4")
    x[:, 7] = 1e15
    check(x, 2, 2, 1.0, 0.75, 0.0, rtol=2e-6)


def gradient(dy, x, before, after, alpha=0.3, beta=0.75, k=1.5, into=None):
    given = [host_arrays.array(a) for a in (dy, x)]
    dx = host_arrays.empty(x.shape, x.dtype) if into is None else given[into]
    response.local_response_backward(*given, before, after, alpha, beta, k, dx)
    expected = np.empty(x.shape)
    reference.local_response_backward(dy.astype("f8"), x.astype("f8"), before, after, alpha, beta, k, expected)
    assert_gradient(host_arrays.as_numpy(dx), expected, scale=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 7, 5), (3, 1, 4), (40, 20, 1), (1, 33, 3)])
@pytest.mark.parametrize("into", [None, 0, 1])
def test_gradients(every_order, shape, dtype, into):
    dy, x = (sample(shape, dtype, seed)[0] for seed in (0, 1))
    for before, after in ((2, 2), (0, 0), (1, 0), (0, 3), (50, 60)):
        gradient(dy, x, before, after, into=into)


def test_gradients_of_large_numbers_and_other_powers(simulator, rng):
    dy, x = rng.standard_normal((2, 2, 40, 3)).astype("f4")
    for beta in (0.5, 0.75, 1.0, 0.6):
        gradient(dy, x, 2, 1, beta=beta)
        gradient(dy, x * np.float32(1e22 if beta < 1 else 1e20), 2, 1, 1e-4, beta, 1.0)
        gradient(dy, x * np.float32(1e-17), 2, 1, 1e-4, beta, 1e-22)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("make", [response.local_response_lanes, response.local_response_gradient])
def test_compiles(kind, make):
    kernel = make(kind)
    compiled = compile_checks.check_everywhere(kernel, double=kind == "float64")
    assert max(c.registers for c in compiled.values()) <= (96 if kind == "float64" else 64)


def test_threads_share_what_memory_there_is():
    for n_channels, size, before in ((64, 5, 2), (1000, 1999, 999), (600, 200, 100)):
        threads, shared, n_chunks, per_chunk = response._cut(10**4, n_channels, size, before, 4, 227 << 10)
        assert shared == (size + before) * 4 * threads <= 227 << 10
        assert threads <= 32 or shared <= _jit.DEFAULT_SHARED
        assert (n_chunks - 1) * per_chunk < n_channels <= n_chunks * per_chunk
        assert per_chunk % size == 0
