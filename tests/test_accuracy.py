"""The numbers that the library promises, on hard data and at size."""

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.oracle import as_dtype

pytestmark = pytest.mark.compiled

#: Relative error of mean and variance: one rounding to float32 is 6e-8.
PROMISE = 1.2e-7


def worst(actual, expected):
    """Largest relative error; a zero must be a zero."""
    error = np.abs(np.asarray(actual, np.float64) - expected)
    return np.max(error / np.where(error == 0, 1, np.abs(expected)))


@pytest.mark.parametrize("mean", [0, 1, 1e4, 1e6])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((10_000_000,), 0),
        ((1_000_000, 4), 0),
        ((4, 1_000_000), 1),
        ((1000, 3, 1000), (0, 2)),
        ((1000, 3, 1000), 1),
        ((70, 300, 70), (0, 1)),
        ((64, 4096), -1),
        ((3, 1_000_003), 1),
    ],
)
def test_float32_statistics(shape, axis, mean, rng):
    x = rng.standard_normal(shape, np.float32) + np.float32(mean)
    result = nn.mean_var(x, axis=axis)
    wide = x.astype(np.float64)
    expected = wide.mean(axis)
    assert worst(result.var, wide.var(axis)) <= PROMISE
    # The mean of n numbers around 0 may itself be near 0; its error is measured against their size.
    error = np.abs(result.mean.astype(np.float64) - expected)
    assert np.all(error <= PROMISE * np.maximum(np.abs(expected), 1e-3 if mean == 0 else 0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mean", [0, 100])
def test_sixteen_bit_statistics_before_their_last_rounding(dtype, mean, rng):
    x = as_dtype(rng.standard_normal((1_000_000, 3)) * 10 + mean, dtype)
    result = nn.mean_var(x, axis=0, dtype=np.float32)
    expected = oracle.mean_var(x, 0)
    assert worst(result.var, expected[1]) <= PROMISE
    assert worst(result.mean, expected[0]) <= PROMISE


def test_where_numpy_overflows():
    assert nn.var(np.ones(70_000, np.float16)) == 0
    assert nn.mean(np.full(1 << 25, 1, np.float32)) == 1


@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_two_values_far_from_zero(offset):
    """Equal rounding errors in every element do not average out: the worst case for shortcuts."""
    x = np.where(np.arange(99_999) % 3 == 0, offset, offset + 0.75).astype(np.float32)
    expected = oracle.mean_var(x)
    for y, axis in ((x, None), (np.stack([x, x], 1), 0), (np.stack([x, x]), 1)):
        result = nn.mean_var(y, axis=axis)
        assert worst(result.var, expected[1]) <= PROMISE
        assert worst(result.mean, expected[0]) <= PROMISE


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_an_outlier_as_the_first_number(position, rng):
    x = rng.standard_normal(1_000_000).astype(np.float32)
    x[position] = 1e6
    for y, axis in ((x, None), (x.reshape(-1, 4), 0)):
        assert worst(nn.var(y, axis=axis), oracle.mean_var(y, axis)[1]) <= PROMISE


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1, 1e15, 1e30])
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_every_norm_is_finite_from_1e_minus_30_to_1e30(size, eps, rng):
    x = (rng.standard_normal((4, 6, 5, 5)) * size).astype(np.float32)
    gamma = np.ones(6, np.float32)
    for y, expected in (
        (nn.layer_norm(x, eps=eps), oracle.normalized(x, -1, eps)[0]),
        (nn.layer_norm(x, axis=1, eps=eps), oracle.normalized(x, 1, eps)[0]),
        (nn.rms_norm(x, eps=eps), oracle.normalized(x, -1, eps, use_mean=False)[0]),
        (nn.instance_norm(x, gamma, eps=eps), oracle.normalized(x, (2, 3), eps)[0]),
        (nn.standardize(x, (0, 1), eps=eps), oracle.normalized(x, (0, 1), eps)[0]),
    ):
        assert np.isfinite(y).all()
        oracle.assert_normalized(y, expected)
    y = nn.batch_norm(x, training=True, eps=max(eps, 1e-12))
    oracle.assert_normalized(y, oracle.normalized(x, (0, 2, 3), max(eps, 1e-12))[0])


def test_values_where_torch_gives_nan():
    x = np.array([[1e20, 2e20, 3e20, 4e20]], np.float32)
    np.testing.assert_allclose(nn.layer_norm(x)[0], [-1.3416, -0.4472, 0.4472, 1.3416], atol=1e-4)
    np.testing.assert_allclose(nn.rms_norm(x)[0], np.array([1, 2, 3, 4]) / np.sqrt(7.5), atol=1e-6)


@pytest.mark.parametrize("std", [1, 0.01])
@pytest.mark.parametrize(
    ("norm", "axes"),
    [
        (nn.layer_norm, (3,)),
        (lambda x, eps: nn.layer_norm(x, axis=1, eps=eps), (1,)),
        (lambda x, eps: nn.batch_norm(x, training=True, eps=eps), (0, 2, 3)),
        (lambda x, eps: nn.batch_norm(x, training=True, channel_axis=-1, eps=eps), (0, 1, 2)),
        (nn.instance_norm, (2, 3)),
        (lambda x, eps: nn.standardize(x, (0, 2), eps=eps), (0, 2)),
    ],
)
def test_norms_far_from_zero(norm, axes, std, rng):
    """Output within 2e-6 of float64's at mean 1e4; torch is off by 1e-2 at std 0.01."""
    x = (rng.standard_normal((16, 24, 20, 40)) * std + 1e4).astype(np.float32)
    oracle.assert_normalized(norm(x, eps=1e-12), oracle.normalized(x, axes, 1e-12)[0])


def test_running_variance_where_torch_is_off_by_hundreds(rng):
    x = rng.standard_normal((1_000_000, 4), np.float32) + np.float32(1e4)
    running_mean, running_var = np.zeros(4, np.float32), np.zeros(4, np.float32)
    nn.batch_norm(x, None, None, running_mean, running_var, training=True, momentum=1.0)
    wide = x.astype(np.float64)
    assert worst(running_var, wide.var(0, ddof=1)) <= PROMISE
    assert worst(running_mean, wide.mean(0)) <= PROMISE


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("mean", [0.5, 1e3, 1e6])
def test_float64_loses_no_more_than_its_condition_number(axis, mean, rng):
    """Means in float64 carry a rounding of mean * 1e-16, which is what is left in the variance."""
    x = rng.standard_normal((3000, 300)) + mean
    expected = oracle.mean_var(x, axis)
    result = nn.mean_var(x, axis=axis)
    assert worst(result.mean, expected[0]) <= 1e-12 / mean + 1e-15
    assert worst(result.var, expected[1]) <= max(1e-13, 1e-16 * mean)
