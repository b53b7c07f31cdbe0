"""Lengths of padded samples in the statistics, against the formulas in float64."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from numbanorm import _reduction
from numbanorm._arrays import Host
from numbanorm._masks import Lengths
from numbanorm.backends import cpu, reference
from tests import oracle
from tests.oracle import as_dtype, axis_subsets, layouts

FUNCTIONS = [nn.mean, nn.var, nn.std]
SHAPES = [(5, 7), (4, 6, 5), (3, 5, 4, 6)]


def inside(shape, lengths, length_axis=1):
    """The mask that lengths stand for."""
    along = np.arange(shape[length_axis]).reshape([-1 if axis == length_axis else 1 for axis in range(len(shape))])
    return np.broadcast_to(along < np.reshape(lengths, [-1] + [1] * (len(shape) - 1)), shape)


def padded(rng, shape, dtype, length_axis=1, *, shortest=1, mean=10.0):
    """x whose padding is NaN and inf, lengths and mask."""
    lengths = rng.integers(shortest, shape[length_axis] + 1, shape[0])
    mask = inside(shape, lengths, length_axis)
    x = np.where(mask, rng.standard_normal(shape) * 2 + mean, rng.choice([np.nan, np.inf, -np.inf], shape))
    return as_dtype(x, dtype), lengths, mask


def expected_moments(x, mask, axes):
    """Count, mean and m2 in extended precision; the mean of nothing is NaN."""
    wide = np.where(mask, x, 0).astype(np.float64).astype(np.longdouble)
    count = mask.sum(axes)
    with np.errstate(invalid="ignore"):
        mean = wide.sum(axes) / count
    deviations = np.where(mask, wide - np.expand_dims(np.where(count, mean, 0), axes), 0)
    return count, mean.astype(np.float64), (deviations**2).sum(axes).astype(np.float64)


def assert_moments(actual, expected, message=""):
    np.testing.assert_array_equal(actual.count, expected[0], message)
    np.testing.assert_allclose(actual.mean, expected[1], rtol=1e-13, err_msg=message)
    np.testing.assert_allclose(actual.m2, expected[2], rtol=1e-11, atol=1e-11, err_msg=message)


@pytest.mark.parametrize("dtype", oracle.FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_axis_subset_in_every_layout(backend, shape, dtype, rng):
    for length_axis in range(1, len(shape)):
        x, lengths, mask = padded(rng, shape, dtype, length_axis, shortest=0)
        for axes in axis_subsets(len(shape)):
            expected = expected_moments(x, mask, axes)
            for name, y in layouts(x):
                m = nn.moments(y, axes, lengths=lengths, length_axis=length_axis)
                assert_moments(m, expected, f"{length_axis} {axes} {name}")


@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_results_have_the_dtype_of_x(backend, dtype, rng):
    x, lengths, mask = padded(rng, (6, 9, 5), dtype)
    for axis in (1, (0, 1), (1, 2), None):
        mean, var = oracle.mean_var(x, axis, where=mask)
        result = nn.mean_var(x, axis, lengths=lengths)
        for actual, expected in zip(result, (mean, var), strict=True):
            assert actual.dtype == x.dtype
            np.testing.assert_allclose(actual.astype("f8"), expected, rtol=2 * oracle.ROUNDING[dtype] + 1e-13)


@pytest.mark.parametrize(
    "shape", [(40, 3000), (3, 70_000), (9, 500, 70), (8, 70, 500), (300, 60, 3), (2, 4000, 11), (50, 2100)]
)
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
@pytest.mark.compiled
def test_long_sets_far_from_zero(backend, shape, mean, rng):
    """Blocks, tiles, folded rows, splits and threads; where lines are whole and where they are not."""
    for length_axis in range(1, len(shape)):
        x, lengths, mask = padded(rng, shape, "float32", length_axis, mean=mean)
        for axes in axis_subsets(len(shape))[1:]:
            count, mu, m2 = expected_moments(x, mask, axes)
            m = nn.moments(x, axes, lengths=lengths, length_axis=length_axis)
            np.testing.assert_array_equal(m.count, count)
            np.testing.assert_allclose(m.mean, mu, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(m.m2, m2, rtol=1e-8, atol=1e-12)


def test_huge_numbers(backend, rng):
    x, lengths, mask = padded(rng, (7, 50, 6), "float64")
    for axes in ((1,), (0, 1), (0,), None):
        result = nn.mean_var(x * 1e30, axes, lengths=lengths)
        mean, var = oracle.mean_var(x, axes, where=mask)
        np.testing.assert_allclose(result.mean, mean * 1e30, rtol=1e-13)
        np.testing.assert_allclose(result.var, var * 1e60, rtol=1e-11)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "?"])
def test_integers(backend, dtype, rng):
    x, lengths = rng.integers(0, 2, (4, 6, 5)).astype(dtype), rng.integers(1, 7, 4)
    mask = inside(x.shape, lengths)
    for axes in axis_subsets(3)[1:]:
        for y in (x, np.asfortranarray(x)):
            assert_moments(nn.moments(y, axes, lengths=lengths), expected_moments(x, mask, axes))


@pytest.mark.parametrize("shape", SHAPES)
def test_full_lengths_change_nothing(backend, shape, rng):
    x = rng.standard_normal(shape) + 1e3
    for axes in axis_subsets(len(shape)):
        m, whole = nn.moments(x, axes, lengths=[shape[1]] * shape[0]), nn.moments(x, axes)
        for name in ("count", "mean", "m2"):
            np.testing.assert_allclose(getattr(m, name), getattr(whole, name), rtol=1e-14, atol=1e-10)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lengths_are_a_mask(backend, function, rng):
    """Also with every other option."""
    x, lengths, mask = padded(rng, (6, 8, 5), "float32", shortest=2)
    for axis in (1, (0, 1), (1, 2), None):
        for options in ({}, {"keepdims": True}, {"dtype": np.float64}, {"ddof": 1}, {"correction": 1.5}):
            if function is nn.mean and ("ddof" in options or "correction" in options):
                continue
            actual = function(x, axis, lengths=lengths, **options)
            expected = function(x, axis, where=mask, **options)
            assert np.shape(actual) == np.shape(expected)
            np.testing.assert_allclose(actual, expected, rtol=3e-7)
            out = np.empty_like(actual)
            assert function(x, axis, lengths=lengths, out=out, **options) is out
            np.testing.assert_array_equal(out, actual)


@pytest.mark.parametrize("length_axis", [1, 2])
def test_beside_masks_weights_and_nan(backend, length_axis, rng):
    x, lengths, mask = padded(rng, (6, 8, 5), "float64", length_axis, shortest=2)
    where, weights = rng.random(x.shape) < 0.8, rng.random((6, 1, 5)) + 0.1
    y = np.where(rng.random(x.shape) < 0.1, np.nan, x)
    sel = {"lengths": lengths, "length_axis": length_axis - x.ndim}
    for axis in (0, (0, 1), (1, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that are empty, both times
            pairs = [
                (nn.mean_var(x, axis, where=where, **sel), nn.mean_var(x, axis, where=where & mask)),
                (nn.mean_var(x, axis, weights=weights, **sel), nn.mean_var(x, axis, where=mask, weights=weights)),
                (nn.mean_var(y, axis, nan_policy="omit", **sel), nn.mean_var(y, axis, where=mask & ~np.isnan(y))),
            ]
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_nan_in_the_padding_are_welcome(rng):
    x, lengths, mask = padded(rng, (6, 8, 5), "float32")
    expected = nn.mean(x, (1, 2), where=mask)
    np.testing.assert_allclose(nn.mean(x, (1, 2), lengths=lengths, nan_policy="raise"), expected, rtol=1e-7)
    x[2, 0, 3] = np.nan
    with pytest.raises(ValueError, match=r"x has NaN at \(2, 0, 3\)"):
        nn.mean(x, (1, 2), lengths=lengths, nan_policy="raise")
    assert np.isnan(nn.mean(x, (1, 2), lengths=lengths)[2])


def test_infinities_that_take_part(backend):
    x = np.array([[1.0, np.inf, 2.0], [1.0, 2.0, np.inf]])
    np.testing.assert_array_equal(nn.mean(x, 1, lengths=[2, 2]), [np.inf, 1.5])
    np.testing.assert_array_equal(nn.mean(x[:, :2], 0, lengths=[2, 1]), [1, np.inf])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [1, 0])
def test_empty_sets_are_nan_with_numpys_warnings(backend, function, axis):
    x, lengths = np.array([[np.nan, np.nan, np.nan], [1.0, 2.0, np.inf]]), [0, 2]
    said = []
    for options in ({"lengths": lengths}, {"where": inside(x.shape, lengths)}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(x, axis, **options)
        assert np.isnan(result).tolist() == ([True, False] if axis == 1 else [False, False, True])
        said.append({str(w.message) for w in caught})
    assert said[0] == said[1] != set()


def test_lengths_of_nothing():
    assert nn.moments(np.empty((0, 3)), 1, lengths=[]).count.shape == (0,)
    assert nn.moments(np.empty((2, 0)), 1, lengths=[0, 0]).count.tolist() == [0, 0]
    assert nn.moments(np.ones((2, 3)), lengths=[0, 0]) == nn.Moments.empty() + nn.Moments.empty()


def test_batches_of_their_own_lengths_merge(backend, rng):
    first, n, mask = padded(rng, (5, 9, 4), "float32", mean=1e4)
    second, m, other = padded(rng, (3, 6, 4), "float32", mean=1e4)
    total = nn.moments(first, (0, 1), lengths=n).update(second, (0, 1), lengths=m, length_axis=-2)
    numbers = np.concatenate([first[mask].reshape(-1, 4), second[other].reshape(-1, 4)]).astype(np.float64)
    np.testing.assert_array_equal(total.count, len(numbers))
    np.testing.assert_allclose(total.mean, numbers.mean(0), rtol=1e-13)
    np.testing.assert_allclose(total.var(), numbers.var(0), rtol=1e-9)


@pytest.mark.parametrize(("piece_bytes", "max_parts"), [(64, 4), (1, 1), (200, 1 << 15), (1 << 19, 2)])
def test_pieces_merge_to_the_whole(backend, piece_bytes, max_parts, monkeypatch, rng):
    monkeypatch.setattr(Host, "piece_bytes", piece_bytes)
    monkeypatch.setattr(Host, "max_parts", max_parts)
    for shape in ((4, 6, 5), (1, 6, 5), (3, 1, 2, 5)):
        for length_axis in range(1, len(shape)):
            x, lengths, mask = padded(rng, shape, "float32", length_axis, shortest=0)
            for axes in axis_subsets(len(shape)):
                expected = expected_moments(x, mask, axes)
                for name, y in layouts(x):
                    m = nn.moments(y, axes, lengths=lengths, length_axis=length_axis)
                    assert_moments(m, expected, f"{shape} {length_axis} {axes} {name}")


@pytest.mark.parametrize("axes", [(2,), (0, 2), (0, 1), (1,), (0,), (1, 2), (0, 1, 2)])
def test_padding_is_not_read(axes, monkeypatch, rng):
    """Launchers are handed counts, of all that a launcher takes as a line."""
    seen = []
    for name in ("moments_rows", "moments_cols"):
        launcher = getattr(reference, name)
        monkeypatch.setattr(reference, name, lambda x, w, *out, f=launcher: (seen.append(w.dtype), f(x, w, *out)))
    x, lengths, _ = padded(rng, (6, 7, 8), "float32")
    _reduction.moments(x, axes, Lengths.of(x.shape, lengths, None), reference)
    assert seen == [np.dtype(np.int64)]


@given(
    st.sampled_from([1, 2, 3, 40]),
    st.sampled_from([1, 2, 7, 9, 33, 300]),
    st.sampled_from([1, 2, 5, 17, 64, 300, 2000]),
    st.booleans(),
    st.sampled_from(oracle.FLOATS),
    st.integers(0, 1000),
)
def test_launchers_agree_on_counts(n_outer, n_reduce, n_inner, whole, dtype, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, n_inner + 1, n_outer * n_reduce)
    if whole:
        counts = np.repeat(n_inner * rng.integers(0, 2, n_outer * n_reduce), 3)[: n_outer * n_reduce]
    x, _, _ = padded(rng, (n_outer * n_reduce, n_inner), "float64")
    x = as_dtype(np.where(np.arange(n_inner) < counts[:, None], rng.standard_normal(x.shape), np.nan), dtype)
    for name, view, shape in (
        ("moments_rows", x.shape, len(counts)),
        ("moments_cols", (n_outer, n_reduce, n_inner), (n_outer, n_inner)),
    ):
        ours, theirs = np.full((2, 3, *np.atleast_1d(shape)), np.nan)
        getattr(cpu, name)(x.reshape(view), counts, *ours)
        getattr(reference, name)(x.reshape(view), counts, *theirs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"lengths": [1, 2]}, ValueError, r"lengths should have shape \(3,\), one for each sample"),
        ({"lengths": [1, 2, 5]}, ValueError, r"lengths\[2\] is 5, but should lie in \[0, 4\]"),
        ({"lengths": [-1, 2, 3]}, ValueError, r"lengths\[0\] is -1"),
        ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths must be integers, but have dtype float64"),
        ({"lengths": [1, 2, 3], "length_axis": 0}, ValueError, "must not be the axis of the samples"),
        ({"lengths": [1, 2, 3], "length_axis": 2}, np.exceptions.AxisError, "out of bounds"),
        ({"length_axis": 1}, ValueError, "lengths are None"),
    ],
)
def test_bad_lengths(options, error, text):
    for function in (nn.mean_var, nn.mean, nn.var, nn.std, nn.moments):
        with pytest.raises(error, match=text):
            function(np.ones((3, 4)), 1, **options)


def test_lengths_need_a_second_axis():
    with pytest.raises(ValueError, match="an axis along which x is padded"):
        nn.mean(np.ones(3), lengths=[1, 1, 1])
