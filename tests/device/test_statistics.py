"""Statistics of device arrays, and moments that are kept."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.device.places import device_layouts
from tests.oracle import as_dtype, axis_subsets

SHAPE = (3, 1, 4, 5)
STATISTICS = [nn.mean, nn.var, nn.std]


def tolerance(dtype):
    return {"float64": 1e-12, "float32": 2.4e-7}.get(dtype, oracle.ROUNDING.get(dtype))


@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_every_axis_subset_in_every_layout(place, dtype, rng):
    x = as_dtype(rng.standard_normal(SHAPE) * 2 + 10, dtype)
    for axes in axis_subsets(len(SHAPE)):
        mean, var = oracle.mean_var(x, axes)
        for name, y in device_layouts(x):
            result = nn.mean_var(place.array(y), axes)
            assert type(result) is nn.MeanVar
            for actual, expected in zip(result, (mean, var), strict=True):
                assert actual.dtype == x.dtype, name
                assert actual.shape == expected.shape
                np.testing.assert_allclose(
                    place.numpy(actual).astype("f8"), expected, rtol=tolerance(dtype), atol=1e-15, err_msg=name
                )


@pytest.mark.parametrize("function", STATISTICS)
@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"correction": 1}, {"keepdims": True}, {"dtype": "f8"}])
def test_options(place, function, options, rng):
    if function is nn.mean:
        options = {key: value for key, value in options.items() if key in ("keepdims", "dtype")}
    x = rng.standard_normal(SHAPE).astype("f4")
    for axis in (None, 0, (0, 2), (2, 3)):
        expected = function(x, axis, **options)
        actual = place.numpy(function(place.array(x), axis, **options))
        assert actual.dtype == expected.dtype
        assert actual.shape == np.shape(expected)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8"])
def test_integers_give_float64(place, dtype, rng):
    x = rng.integers(0, 2, (4, 5)).astype(dtype)
    for y in (x, x.T, x[::-2]):
        actual = nn.var(place.array(y), 0)
        assert actual.dtype == np.float64
        np.testing.assert_allclose(place.numpy(actual), y.var(0), rtol=1e-13)
    assert nn.mean(place.array(x), dtype="i4").dtype == np.int32


def test_where(place, rng):
    x, mask = rng.standard_normal((4, 5)).astype("f4"), rng.random((4, 5)) < 0.6
    mask[:, 0] = True
    for m in (mask, mask[:1], np.asfortranarray(mask)):
        result = nn.mean_var(place.array(x), 1, where=place.array(m))
        for actual, expected in zip(place.numpy(result), nn.mean_var(x, 1, where=m), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(TypeError, match=r"x \(cupy.* is on the device, where \(numpy.ndarray\) is on the host"):
        nn.mean(place.array(x), where=mask)


def test_lengths(place, rng):
    """Of the host or of the device, for x in every order; padding may hold anything."""
    lengths = np.array([4, 0, 2])
    x = np.where(np.arange(4)[:, None] < lengths[:, None, None], rng.standard_normal((3, 4, 5)), np.nan).astype("f4")
    for axis in (0, (0, 1), (1, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sample without elements
            expected = nn.mean_var(x, axis, lengths=lengths)
        for name, y in device_layouts(x):
            for given in (lengths, lengths.tolist(), place.array(lengths)):
                result = nn.mean_var(place.array(y), axis, lengths=given)
                for actual, correct in zip(place.numpy(result), expected, strict=True):
                    np.testing.assert_allclose(actual, correct, rtol=1e-6, atol=1e-7, err_msg=name)
    taken = place.array(np.arange(5) > 1)
    beside = nn.moments(place.array(x), (0, 1), where=taken, lengths=lengths)
    np.testing.assert_array_equal(place.numpy(beside.count), [0, 0, 6, 6, 6])


def test_warnings_need_shapes_only(place):
    empty, few = np.empty((0, 3), "f4"), np.ones((1, 3), "f4")
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        assert np.isnan(place.numpy(nn.mean(place.array(empty), 0))).all()
    with pytest.warns(RuntimeWarning, match="Degrees of freedom <= 0 for slice"):
        assert np.isnan(place.numpy(nn.var(place.array(few), 0, ddof=1))).all()
    spread = np.array([[1], [2]], "f4")
    with pytest.warns(RuntimeWarning, match="Degrees of freedom <= 0 for slice"):
        assert np.isnan(place.numpy(nn.std(place.array(spread), 0, correction=3))).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nobody = place.array(np.zeros((1, 3), bool))
        assert np.isnan(place.numpy(nn.mean(place.array(few), where=nobody)))
        few_left = place.array(np.array([[True, False, False]]))
        assert np.isnan(place.numpy(nn.var(place.array(few), correction=1, where=few_left)))


def test_results_are_arrays_and_go_to_out(place, rng):
    x = rng.standard_normal((4, 5)).astype("f4")
    for value in nn.mean_var(place.array(x)):
        assert type(value).__module__.startswith("cupy")
        assert value.shape == ()
    outs = place.array(np.empty(5, "f4")), place.array(np.empty((5, 2)))[:, 1]
    result = nn.mean_var(place.array(x), 0, out=outs)
    assert result.mean is outs[0]
    assert result.var is outs[1]
    np.testing.assert_allclose(place.numpy(outs[1]), x.astype("f8").var(0), rtol=1e-6)
    with pytest.raises(ValueError, match="out should have shape"):
        nn.mean(place.array(x), 0, out=outs[0][:2])
    with pytest.raises(TypeError, match=r"out\[1\] \(numpy.ndarray\) is on the host"):
        nn.mean_var(place.array(x), 0, out=(outs[0], np.empty(5)))


def test_moments_stay_on_the_device(place, rng):
    x = rng.standard_normal((6, 5)).astype("f4") + 100
    a, b = nn.moments(place.array(x[:2]), 0), nn.moments(place.array(x[2:]), 0)
    total, expected = a + b, nn.moments(x, 0)
    for name in ("count", "mean", "m2"):
        np.testing.assert_allclose(place.numpy(getattr(total, name)), getattr(expected, name), rtol=1e-6)
        assert isinstance(total.state_dict()[name], np.ndarray)
    np.testing.assert_allclose(place.numpy(total.var(ddof=1)), x.var(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(place.numpy(total.std()), x.std(0), rtol=1e-4)
    same = nn.Moments(total.count, total.mean, total.m2)
    assert same == total
    assert pickle.loads(pickle.dumps(total)) == copy.deepcopy(total) == total
    with pytest.raises(TypeError, match=r"left .* is on the host, right .* is on the device"):
        expected + total


def test_moments_follow_the_data(place, rng):
    x = rng.standard_normal((6, 5)).astype("f4")
    m = nn.Moments.empty(5)
    for batch in (x[:1], x[1:]):
        m.update(place.array(batch), 0)
    np.testing.assert_allclose(place.numpy(m.mean), x.mean(0), rtol=1e-4, atol=1e-6)
    loaded = nn.Moments.empty(5)
    loaded.load_state_dict(m.state_dict())
    assert isinstance(loaded.count, np.ndarray)
    assert loaded == m
    assert place.numpy(nn.moments(place.array(x[:0]), 0).count).tolist() == [0] * 5


def test_nan_are_left_out_and_weights_are_real(place):
    host = np.random.default_rng(3).standard_normal((6, 40)).astype("f4")
    host[1, 3] = host[4, :5] = np.nan
    x = place.array(host)
    mean, var = nn.mean_var(x, 1, nan_policy="omit")
    np.testing.assert_allclose(place.numpy(mean), np.nanmean(host.astype("f8"), 1), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(place.numpy(var), np.nanvar(host.astype("f8"), 1), rtol=2e-6)
    with pytest.raises(ValueError, match=r"x has NaN at \(1, 3\)"):
        nn.mean(x, 1, nan_policy="raise")
    weights = np.abs(host[::-1])
    weights[np.isnan(weights)] = 0
    clean = np.where(np.isnan(host), 1e4, host)
    mean, var = nn.mean_var(place.array(clean), 1, weights=place.array(weights))
    expected = nn.mean_var(clean, 1, weights=weights)
    for actual, right in zip((mean, var), expected, strict=True):
        np.testing.assert_allclose(place.numpy(actual), right, rtol=1e-6)
    for options in ({"weights": weights}, {"weights": weights, "where": weights > 1}):
        there = {name: place.array(value) for name, value in options.items()}
        y = place.numpy(nn.standardize(place.array(clean), 1, **there))
        np.testing.assert_allclose(y, nn.standardize(clean, 1, **options), rtol=1e-5, atol=1e-5)
