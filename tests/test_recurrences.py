import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanorm._recurrences import block_moments, centred, reciprocal_std, welford_combine

numbers = st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=20)


def moments(values):
    values = np.array(values, np.float64)
    if not values.size:
        return np.float64(0), np.float64(0), np.float64(0)
    return np.float64(values.size), values.mean(), np.square(values - values.mean()).sum()


@given(numbers, numbers)
def test_combining_is_the_moments_of_both(a, b):
    merged = welford_combine(*moments(a), *moments(b))
    np.testing.assert_allclose(merged, moments(a + b), rtol=1e-9, atol=1e-3)


@given(numbers, numbers, numbers)
def test_combining_is_associative(a, b, c):
    left = welford_combine(*welford_combine(*moments(a), *moments(b)), *moments(c))
    right = welford_combine(*moments(a), *welford_combine(*moments(b), *moments(c)))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-3)


def test_an_empty_set_changes_nothing():
    full = (np.float64(3), np.float64(1e30), np.float64(7))
    assert welford_combine(*full, *moments([])) == full
    assert welford_combine(*moments([]), *full) == full


@pytest.mark.parametrize(
    ("a", "b", "mean"), [(np.inf, 1, np.inf), (-np.inf, -np.inf, -np.inf), (np.inf, -np.inf, np.nan)]
)
def test_infinite_means(a, b, mean):
    with np.errstate(invalid="ignore"):
        count, merged, m2 = welford_combine(*map(np.float64, (2, a, np.nan, 2, b, 0)))
    np.testing.assert_equal([count, merged], [4, mean])
    assert np.isnan(m2)


def test_m2_is_never_negative_and_keeps_nan():
    assert block_moments(*map(np.float64, (2, 5, 2, 2 - 1e-16)))[2] == 0
    assert np.isnan(block_moments(*map(np.float64, (2, 5, 2, np.nan)))[2])


def test_reciprocal_std():
    assert reciprocal_std(4.0, 5.0, False) == pytest.approx(1 / 3)
    assert reciprocal_std(4.0, 5.0, True) == pytest.approx(1 / 7)
    np.testing.assert_allclose(reciprocal_std(np.array([1.0, 4.0]), 0.0, False), [1, 0.5])


def test_a_mean_in_two_parts_loses_nothing():
    mean = 123456.789
    high = np.float32(mean)
    low = np.float32(mean - np.float64(high))
    assert centred(np.float32(123457.0), high, low) == np.float32(123457.0 - mean)


@pytest.mark.compiled
def test_float32_stays_float32():
    """Compiled for float32, no formula may fall back to float64."""
    from numba import njit, types

    for function, n in ((block_moments, 4), (welford_combine, 6), (centred, 3)):
        compiled = njit(function)
        compiled(*(np.float32(1),) * n)
        (signature,) = compiled.nopython_signatures
        assert "float64" not in str(signature), function.__name__
        assert "double" not in compiled.inspect_llvm(signature.args).split("define", 2)[1], function.__name__
    compiled = njit(reciprocal_std)
    compiled(np.float32(1), np.float32(1), True)
    assert compiled.nopython_signatures[0].return_type == types.float32
