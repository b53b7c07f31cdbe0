"""Weights and NaN in the statistics, against the formulas in float64."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn

AXES = [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2)]
DTYPES = ["float16", "float32", "float64"]


def weighted(x, w, axis, ddof=0):
    """Mean, variance and sum of weights by two passes."""
    x, w = np.broadcast_arrays(x.astype(np.float64), w)
    total = w.sum(axis, keepdims=True)
    mean = (w * x).sum(axis, keepdims=True) / total
    var = (w * (x - mean) ** 2).sum(axis, keepdims=True) / (total - ddof)
    return (np.squeeze(a, axis) for a in (mean, var, total))


def sample(rng, dtype, nan=0.0):
    x = (rng.standard_normal((12, 40, 9)) * 2 + 50).astype(dtype)
    x[rng.random(x.shape) < nan] = np.nan
    return x


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_mean_and_variance(backend, dtype, axis, rng):
    x = sample(rng, dtype)
    w = 2 * rng.random(x.shape) * (rng.random(x.shape) < 0.7)
    for layout in (x, np.asfortranarray(x), x[::-1][:, ::2], x.transpose(2, 0, 1)):
        weights = np.resize(w, layout.shape)
        mean, var = nn.mean_var(layout, axis, weights=weights, ddof=0.5, dtype=np.float64)
        expected_mean, expected_var, _ = weighted(layout, weights, axis, 0.5)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-13)
        np.testing.assert_allclose(var, expected_var, rtol=1e-11)


@pytest.mark.parametrize("weights", [np.float32([1, 2, 0, 4]), [1, 2, 0, 4], np.array([True, True, False, True]), 3])
def test_weights_of_every_kind_broadcast(backend, weights, rng):
    x = rng.standard_normal((5, 4)).astype(np.float32)
    mean, var, count = weighted(x, np.asarray(weights, np.float64), 1)
    m = nn.moments(x, 1, weights=weights)
    np.testing.assert_allclose(m.count, count, rtol=1e-15)
    np.testing.assert_allclose(m.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(m.var(), var, rtol=1e-12)


@given(weights=st.lists(st.integers(0, 4), min_size=6, max_size=6).filter(any), ddof=st.sampled_from([0, 1]))
def test_whole_weights_repeat_numbers(weights, ddof):
    x = np.array([3.0, -1.0, 1e4, 7.0, 7.0, 2.0])
    repeated = np.repeat(x, weights)
    if len(repeated) > ddof:
        expected = np.var(repeated, ddof=ddof)
        np.testing.assert_allclose(nn.var(x, weights=weights, ddof=ddof), expected, rtol=1e-12, atol=1e-9)


def test_weights_of_a_part_merge(backend, rng):
    x, w = rng.standard_normal((30, 4)) + 1e6, rng.random((30, 4))
    total = nn.moments(x[:10], 0, weights=w[:10]).update(x[10:], 0, weights=w[10:])
    whole = nn.moments(x, 0, weights=w)
    np.testing.assert_allclose(total.var(), whole.var(), rtol=1e-9)
    np.testing.assert_allclose(total.count, w.sum(0), rtol=1e-14)


def test_a_mask_takes_away_weights(backend, rng):
    x, w, taken = rng.standard_normal((6, 5)), rng.random((6, 5)), rng.random((6, 5)) < 0.8
    taken[:, 0] = True
    mean, var, _ = weighted(x, w * taken, 1)
    result = nn.mean_var(x, 1, weights=w, where=taken)
    np.testing.assert_allclose(result.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(result.var, var, rtol=1e-12)


def test_what_counts_nothing_may_be_anything(backend):
    x = np.array([1.0, np.inf, np.nan, 3.0])
    assert nn.mean_var(x, weights=[1, 0, 0, 1]) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        ([1, -2], ValueError, r"between 0 and 1e\+290, but weights\[1\] is -2"),
        ([1, np.nan], ValueError, r"weights\[1\] is nan"),
        ([1, np.inf], ValueError, r"weights\[1\] is inf"),
        ([0, 0], ValueError, "zero for all elements of a set"),
        ([1, 2, 3], ValueError, r"weights with shape \(3,\) do not broadcast"),
        (["a", "b"], TypeError, "weights"),
        ([1j, 1], TypeError, "complex"),
    ],
)
def test_bad_weights(weights, error, text):
    with pytest.raises(error, match=text):
        nn.mean_var(np.ones((3, 2)), 1, weights=weights)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_omitted_nan(backend, dtype, axis, rng):
    x = sample(rng, dtype, nan=0.1)
    for layout in (x, x.T, x[::-1, ::3]):
        axes = axis
        mean, var = nn.mean_var(layout, axes, nan_policy="omit", ddof=1, dtype=np.float64)
        wide = layout.astype(np.float64)
        np.testing.assert_allclose(mean, np.nanmean(wide, axes), rtol=1e-13)
        np.testing.assert_allclose(var, np.nanvar(wide, axes, ddof=1), rtol=1e-11)


def test_omitted_nan_beside_masks_and_weights(backend, rng):
    x, w, taken = sample(rng, "float64", nan=0.2), rng.random((12, 40, 9)), rng.random((12, 40, 9)) < 0.8
    there = ~np.isnan(x)
    mean, var, _ = weighted(np.where(there, x, 0), w * there, 1)
    result = nn.mean_var(x, 1, weights=w, nan_policy="omit")
    np.testing.assert_allclose(result.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(result.var, var, rtol=1e-12)
    masked = nn.mean_var(x, 1, where=taken, nan_policy="omit")
    np.testing.assert_array_equal(masked, nn.mean_var(x, 1, where=taken & there))


def test_sets_of_nan_alone_are_nan_with_numpys_warnings(backend):
    x = np.array([[np.nan, np.nan], [1.0, np.nan]])
    for function, peer in ((nn.mean, np.nanmean), (nn.var, np.nanvar)):
        with warnings.catch_warnings(record=True) as ours:
            warnings.simplefilter("always")
            result = function(x, 1, nan_policy="omit")
        with warnings.catch_warnings(record=True) as theirs:
            warnings.simplefilter("always")
            expected = peer(x, 1)
        np.testing.assert_array_equal(result, expected)
        assert {str(w.message).rstrip(".") for w in theirs} <= {str(w.message) for w in ours}


def test_unwelcome_nan_are_named():
    x = np.ones((3, 4), np.float32)
    assert nn.mean(x, nan_policy="raise") == 1
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"x has NaN at \(2, 1\)"):
        nn.var(x, 0, nan_policy="raise")
    assert nn.mean(x, where=~np.isnan(x), nan_policy="raise") == 1
    with pytest.raises(ValueError, match="nan_policy must be one of 'propagate', 'omit', 'raise'"):
        nn.mean(x, nan_policy="skip")
    infinite = np.array([np.inf, -np.inf])
    assert np.isnan(nn.mean(infinite, nan_policy="raise"))  # NaN of infinities, not of NaN


def test_nan_that_count_nothing_are_welcome():
    x = np.array([np.nan, 1, np.nan])
    assert nn.mean(x, weights=[0, 1, 0], nan_policy="raise") == 1
    with pytest.raises(ValueError, match=r"x has NaN at \(2,\)"):
        nn.mean(x, weights=[0, 1, 1], nan_policy="raise")
    assert np.isnan(nn.mean(np.array([np.nan, np.inf, -np.inf]), weights=[0, 1, 1], nan_policy="raise"))


def test_no_weights_at_all_and_too_much_of_them():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, as without weights
        assert np.isnan(nn.mean(np.zeros((0, 3)), 0, weights=np.zeros((0, 3)))).all()
    with pytest.raises(ValueError, match=r"weights\[0\] is 1e\+308"):
        nn.mean(np.arange(4.0), weights=[1e308] * 4)
    assert nn.mean(np.arange(4.0), weights=[1e290] * 4) == 1.5


def test_whole_numbers_have_no_nan(backend):
    assert nn.mean(np.arange(5), nan_policy="omit") == 2
