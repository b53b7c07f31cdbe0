import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests import oracle


def test_fields(backend, rng):
    x = rng.standard_normal((4, 5, 6)).astype(np.float32) + 1000
    m = nn.moments(x, axis=(0, 2))
    mean, var = oracle.mean_var(x, (0, 2))
    for field in (m.count, m.mean, m.m2):
        assert field.dtype == np.float64
        assert field.shape == m.shape == (5,)
    np.testing.assert_array_equal(m.count, 24)
    np.testing.assert_allclose(m.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(m.var(), var, rtol=1e-12)
    np.testing.assert_allclose(m.std(ddof=1), np.sqrt(var * 24 / 23), rtol=1e-12)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.randoms())
def test_batches_merge_to_the_whole_in_any_order(sizes, random):
    x = np.random.default_rng(sum(sizes)).standard_normal((sum(sizes), 3)) + 1e5
    batches = np.split(x, np.cumsum(sizes)[:-1])
    random.shuffle(batches)
    total = nn.Moments.empty(3)
    for batch in batches:
        assert total.update(batch, axis=0) is total
    whole = nn.moments(x, axis=0)
    np.testing.assert_array_equal(total.count, whole.count)
    if len(x):
        np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
        np.testing.assert_allclose(total.m2, whole.m2, rtol=1e-9)


def test_addition_leaves_its_operands_alone(rng):
    x, y = rng.standard_normal((2, 10))
    a, b = nn.moments(x), nn.moments(y)
    before = copy.deepcopy(a), copy.deepcopy(b)
    merged = a + b
    assert (a, b) == before
    assert merged == nn.moments(x) + nn.moments(y)
    assert merged != a
    assert a != 1
    np.testing.assert_allclose(merged.var(), np.var(np.concatenate([x, y])))


def test_where_counts_what_takes_part():
    x = np.array([[1.0, np.nan], [3.0, 4.0]])
    m = nn.moments(x, axis=0, where=~np.isnan(x))
    np.testing.assert_array_equal(m.count, [2, 1])
    np.testing.assert_array_equal(m.mean, [2, 4])


def test_empty_sets_are_nan_and_silent():
    m = nn.Moments.empty((2,))
    assert np.isnan(m.mean).all()
    assert np.isnan(m.var()).all()
    assert np.isnan(nn.moments(np.ones(1)).var(ddof=1))


def test_state_and_pickle_round_trip(rng):
    m = nn.moments(rng.standard_normal((5, 3)), axis=0)
    assert pickle.loads(pickle.dumps(m)) == m
    other = nn.Moments.empty()
    other.load_state_dict(m.state_dict())
    assert other == m
    m.state_dict()["mean"][:] = 0
    assert other == m
    assert nn.Moments(m.count, m.mean, m.m2) == m
    assert "Moments(count=" in repr(m)


def test_what_does_not_fit_changes_nothing():
    m = nn.moments(np.ones((4, 3)), axis=0)
    before = copy.deepcopy(m)
    with pytest.raises(ValueError, match="cannot merge moments with shapes"):
        m.update(np.ones((4, 2)), axis=0)
    with pytest.raises(KeyError, match="expected the keys"):
        m.load_state_dict({"count": 1})
    with pytest.raises(ValueError, match="should have one shape"):
        m.load_state_dict({"count": 1, "mean": np.zeros(2), "m2": 0})
    with pytest.raises(TypeError):
        m + 1
    assert m == before
