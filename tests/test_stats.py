import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numbanorm as nn
from tests import oracle
from tests.oracle import as_dtype, axis_subsets, layouts

FUNCTIONS = [(nn.mean, np.mean), (nn.var, np.var), (nn.std, np.std)]
SHAPES = [(7,), (3, 5), (2, 3, 4), (3, 1, 4, 2), (2, 3, 1, 2, 3)]


def relative_error(actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.max(np.where(actual == expected, 0, np.abs(actual - expected) / np.abs(expected)), initial=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_every_axis_subset_in_every_layout(backend, shape, dtype, rng):
    x = as_dtype(rng.standard_normal(shape) * 2 + 10, dtype)
    for axes in axis_subsets(len(shape)):
        mean, var = oracle.mean_var(x, axes)
        for name, y in layouts(x):
            before = y.copy()
            result = nn.mean_var(y, axis=axes)
            assert result.mean.dtype == result.var.dtype == x.dtype, name
            assert result.mean.shape == result.var.shape == mean.shape
            bound = 1.2e-7 if dtype == "float32" else 1e-12 if dtype == "float64" else oracle.ROUNDING[dtype]
            assert relative_error(result.mean, mean) <= bound, (name, axes)
            assert relative_error(result.var, var) <= bound, (name, axes)
            np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u8"])
def test_integers_give_float64(backend, dtype, rng):
    x = rng.integers(0, 2 if dtype == "?" else 100, (4, 5, 6)).astype(dtype)
    for axes in axis_subsets(3):
        for ours, numpys in FUNCTIONS:
            actual, expected = ours(x, axis=axes), numpys(x, axis=axes)
            assert actual.dtype == expected.dtype == np.float64
            np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.float16]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        elements=st.integers(-100, 100),
    ),
    st.data(),
)
def test_shape_dtype_and_type_are_numpys(x, data):
    axes = data.draw(st.sampled_from([None, *axis_subsets(x.ndim)]))
    keepdims = data.draw(st.booleans())
    ddof = data.draw(st.sampled_from([0, 1, 0.5]))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        for ours, numpys, options in (
            (nn.mean, np.mean, {}),
            (nn.var, np.var, {"ddof": ddof}),
            (nn.std, np.std, {"ddof": ddof}),
        ):
            actual = ours(x, axis=axes, keepdims=keepdims, **options)
            expected = numpys(x.astype(np.float64), axis=axes, keepdims=keepdims, **options)
            like = numpys(x, axis=axes, keepdims=keepdims, **options)
            assert type(actual) is type(like)
            assert actual.dtype == like.dtype
            assert actual.shape == like.shape
            np.testing.assert_allclose(actual, expected.astype(like.dtype), rtol=1e-3 if x.dtype == "f2" else 1e-6)


@given(st.data())
def test_sliced_views_of_any_stride(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    base = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32) + 100
    steps = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, -1, -2]) for _ in shape]))
    x = base[tuple(slice(None, None, step) for step in steps)].transpose(data.draw(st.permutations(range(len(shape)))))
    axes = data.draw(st.sampled_from(axis_subsets(x.ndim)))
    mean, var = oracle.mean_var(x, axes)
    result = nn.mean_var(x, axis=axes)
    assert relative_error(result.mean, mean) <= 1.2e-7
    assert relative_error(result.var, var) <= 1.2e-7


@pytest.mark.parametrize("shape", [(6,), (4, 5), (3, 4, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "bfloat16"])
def test_where(backend, shape, dtype, rng):
    x = as_dtype(rng.integers(-20, 20, shape), dtype)
    full = rng.random(shape) < 0.6
    full.reshape(-1)[0] = True
    for mask in (full, full[:1], full[..., :1] | True, np.asfortranarray(full), np.True_):
        for axes in axis_subsets(len(shape)):
            count = np.broadcast_to(mask, shape).sum(axes)
            if not np.all(count):
                continue
            mean, var = oracle.mean_var(x, axes, where=mask)
            for name, y in layouts(x):
                result = nn.mean_var(y, axis=axes, where=mask, dtype=np.float64)
                np.testing.assert_allclose(result.mean, mean, rtol=1e-12, atol=1e-14, err_msg=name)
                np.testing.assert_allclose(result.var, var, rtol=1e-12, atol=1e-14, err_msg=name)


def test_where_hides_nan_and_infinity(backend):
    x = np.array([[np.nan, 1, 3], [np.inf, 5, -np.inf]], np.float32)
    mean, var = nn.mean_var(x, axis=1, where=np.isfinite(x))
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(var, [1, 0])
    mean, var = nn.mean_var(x.T, axis=0, where=np.isfinite(x.T))
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(var, [1, 0])


@pytest.mark.parametrize(
    "values", [[np.inf, 1], [1, np.inf], [np.inf, np.inf], [-np.inf, np.inf], [np.nan, 1], [1, np.nan]]
)
def test_nan_and_infinity_propagate_as_in_numpy(backend, values):
    x = np.array(values * 3, np.float32)
    with np.errstate(invalid="ignore"):
        expected = np.mean(x)
    for y, axis in ((x, None), (np.stack([x, x]), 1), (np.stack([x, x], 1), 0)):
        mean, var = nn.mean_var(y, axis=axis)
        np.testing.assert_array_equal(mean, np.full(np.shape(mean), expected))
        assert np.isnan(var).all()


CASES_THAT_WARN = [
    (np.empty(0), {}),
    (np.empty((0, 3)), {"axis": 0}),
    (np.empty((2, 0), np.float32), {"axis": 1, "keepdims": True}),
    (np.empty(0, np.int8), {}),
    (np.ones((2, 3)), {"where": np.zeros((2, 3), bool)}),
    (np.ones((2, 3)), {"where": np.array([True, False, True]), "axis": 0}),
]


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize(("x", "options"), CASES_THAT_WARN)
@pytest.mark.parametrize(("ours", "numpys"), FUNCTIONS)
def test_empty_sets_warn_as_numpy_warns(x, options, ours, numpys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        actual = ours(x, **options)
        our_messages = {str(w.message) for w in caught}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = numpys(x, **options)
        leading = str(caught[0].message)
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == expected.dtype
    assert leading in our_messages


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (0, 0)])
def test_nothing_to_keep_warns_of_nothing(shape):
    assert nn.mean(np.empty((*shape, 4)), axis=-1).shape == shape


def test_degrees_of_freedom():
    x = np.array([1.0, 2.0])
    with pytest.warns(RuntimeWarning, match="Degrees of freedom <= 0 for slice"), np.errstate(divide="ignore"):
        assert nn.var(x, ddof=2) == np.inf
    with pytest.warns(RuntimeWarning, match="Degrees of freedom <= 0 for slice"):
        assert np.isnan(nn.var(x, correction=2))
    with pytest.warns(RuntimeWarning, match="Degrees of freedom <= 0 for slice"), np.errstate(invalid="ignore"):
        assert np.isnan(nn.var(np.ones(1), ddof=1))
    assert nn.var(x, ddof=1) == nn.var(x, correction=1) == 0.5
    assert nn.std(x, ddof=-2) == np.std(x, ddof=-2)
    with pytest.raises(ValueError, match=r"^ddof and correction can't be provided simultaneously\.$"):
        nn.var(x, ddof=1, correction=1)


def test_lists_scalars_and_zero_dimensions(backend):
    assert nn.mean([1, 2, 4]) == pytest.approx(7 / 3, rel=1e-15)
    assert nn.mean_var(3.5) == (3.5, 0)
    assert isinstance(nn.mean(np.float32(2)), np.float32)
    assert nn.var([[1, 2], [3, 6]], axis=[0, 1]) == 3.5


def test_no_axes_keeps_x(backend):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    mean, var = nn.mean_var(x, axis=())
    np.testing.assert_array_equal(mean, x)
    np.testing.assert_array_equal(var, np.zeros_like(x))


def test_dtype_and_out():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert nn.mean(x, dtype=np.float64).dtype == np.float64
    assert nn.mean(x, dtype="f2").dtype == np.float16
    assert nn.var(x, dtype=ml_dtypes.bfloat16).dtype.name == "bfloat16"
    out = np.empty(4, np.float32)
    assert nn.mean(x, axis=0, out=out) is out
    np.testing.assert_array_equal(out, x.mean(0))
    outs = np.empty(3, np.float32), np.empty(3, np.float64)
    result = nn.mean_var(x, axis=1, out=outs)
    assert result.mean is outs[0]
    assert result.var is outs[1]
    np.testing.assert_array_equal(outs[1], x.var(1))
    strided = np.zeros((4, 2), np.float32)
    nn.var(x, axis=0, out=strided[:, 1])
    np.testing.assert_array_equal(strided[:, 1], x.var(0))


def test_bad_arguments_change_nothing():
    x = np.arange(6.0).reshape(2, 3)
    out = np.full(3, 7.0)
    locked = out.copy()
    locked.flags.writeable = False
    for options, error, message in (
        ({"axis": 2}, np.exceptions.AxisError, "out of bounds"),
        ({"axis": (0, 0)}, ValueError, "duplicate value in 'axis'"),
        ({"axis": 1}, ValueError, r"out should have shape \(2,\), but has \(3,\)"),
        ({"axis": 0, "where": np.ones((2, 3))}, TypeError, "where must be boolean"),
        ({"axis": 0, "where": np.ones((4, 3), bool)}, ValueError, "does not broadcast"),
        ({"axis": 0, "dtype": complex}, TypeError, "dtype must be real"),
    ):
        with pytest.raises(error, match=message):
            nn.mean(x, out=out, **options)
        np.testing.assert_array_equal(out, 7)
    with pytest.raises(ValueError, match="read-only"):
        nn.mean(x, axis=0, out=locked)
    with pytest.raises(TypeError, match="out must be an array"):
        nn.mean(x, axis=0, out=[0, 0, 0])
    with pytest.raises(TypeError, match="tuple of two"):
        nn.mean_var(x, out=(out,))
    integers = np.zeros(3, int)
    with pytest.raises(TypeError, match="cannot write a float64 result"):
        nn.mean(x, axis=0, out=integers)


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_variance_is_never_negative(x):
    with np.errstate(over="ignore"):
        assert nn.var(x) >= 0
        assert (nn.var(np.stack([x, x], 1), axis=0) >= 0).all()


@given(st.integers(1, 3000), st.floats(-1e6, 1e6, width=32))
def test_equal_numbers_have_no_variance(n, value):
    assert nn.mean_var(np.full(n, value, np.float32)) == (np.float32(value), 0)


@given(hnp.arrays(np.float64, st.integers(2, 50), elements=st.floats(-1e3, 1e3)), st.floats(0.1, 10))
def test_scaling_and_shifting(x, factor):
    assume(np.ptp(x) > 1e-3)
    np.testing.assert_allclose(nn.var(x * factor + 5), nn.var(x) * factor**2, rtol=1e-6, atol=1e-9)
