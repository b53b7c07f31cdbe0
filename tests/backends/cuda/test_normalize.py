"""Norms thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import normalize
from tests.backends.cuda import host_arrays
from tests.oracle import FLOATS, as_dtype, assert_normalized

LENGTHS = (1, 7, 8, 31, 32, 33, 1000, 1024, 1025, 2056)


def compute(x):
    return np.float64 if x.dtype == np.float64 else np.float32


def sample(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return as_dtype(rng.standard_normal(shape) * 2 + 3, dtype), rng


def parameters(x, rng, *lengths):
    return [rng.standard_normal(length).astype(compute(x)) for length in lengths]


def on_cuda(launcher, x, gamma, beta, *options, n_statistics=0, offset=0, in_place=False):
    """Outputs of a launcher of the CUDA backend."""
    device_x = host_arrays.array(x, offset)
    y = device_x if in_place else host_arrays.empty(x.shape, x.dtype, offset)
    saved = [host_arrays.empty((n_statistics,), compute(x)) for _ in range(2)]
    launcher(device_x, host_arrays.array(gamma), host_arrays.array(beta), *options, y, *saved)
    return [host_arrays.as_numpy(a).copy() for a in (y, *saved)]


def on_reference(launcher, x, gamma, beta, *options, n_statistics=0):
    """The same in float64, y not rounded."""
    y = np.empty(x.shape)
    saved = [np.empty(n_statistics) for _ in range(2)]
    with np.errstate(all="ignore"):
        launcher(x.astype(np.float64), gamma, beta, *options, y, *saved)
    return y, *saved


def assert_rows(x, gamma, beta, *options, n_statistics=0, **how):
    ours = on_cuda(normalize.norm_rows, x, gamma, beta, *options, n_statistics=n_statistics, **how)
    theirs = on_reference(reference.norm_rows, x, gamma, beta, *options, n_statistics=n_statistics)
    assert_normalized(ours[0], theirs[0])
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1.2e-7, atol=1e-7)
    return ours


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_cols", LENGTHS)
def test_rows(simulator, n_cols, dtype):
    x, rng = sample((3, n_cols), dtype)
    assert_rows(x, *parameters(x, rng, n_cols, n_cols), 0.1, False, True, n_statistics=3)


@pytest.mark.parametrize("n_cols", [32, 100, 1040])
def test_rows_in_any_order(every_order, n_cols):
    x, rng = sample((5, n_cols), "float32")
    assert_rows(x, *parameters(x, rng, n_cols, 1), 0.1, True, True, n_statistics=5)
    assert_rows(x, *parameters(x, rng, 1, n_cols), 0.1, False, False)
