"""Launchers of gradients: the cpu backend against the reference, on outputs that start as NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanorm._dtypes import compute_dtype
from numbanorm.backends import cpu, reference
from numbanorm.backends.cpu import _stream
from tests import oracle
from tests.oracle import as_dtype

dimension = st.sampled_from([1, 2, 3, 5, 8, 31, 33, 64, 70])
dtypes = st.sampled_from(oracle.FLOATS)
seeds = st.integers(0, 1000)
LIMIT = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 3e-6, "float64": 1e-12}


def operands(shape, axes, n_parameters, dtype, seed, offset=3.0, use_mean=True):
    """dy, x, gamma, mean, rstd; the statistics rounded as a forward saves them."""
    rng = np.random.default_rng(seed)
    x = as_dtype(rng.standard_normal(shape) * 2 + offset, dtype)
    dy = as_dtype(rng.standard_normal(shape), dtype)
    compute = compute_dtype(x.dtype)
    mean = x.astype("f8").mean(axes) * use_mean
    shaped = np.expand_dims(mean, axes)
    rstd = 1 / np.sqrt(((x.astype("f8") - shaped) ** 2).mean(axes) + 0.1)
    gamma = rng.standard_normal(n_parameters).astype(compute)
    arrays = dy, x, gamma, mean.astype(compute).astype("f8"), rstd.astype(compute).astype("f8")
    for array in arrays:
        array.flags.writeable = False
    return arrays


def assert_equal_gradients(launcher, arrays, options, n_parameters, wanted=(True, True, True)):
    _, x, gamma, _, rstd = arrays
    results = []
    for backend in (cpu, reference):
        shapes = (x.shape, x.dtype), (n_parameters, gamma.dtype), (n_parameters, gamma.dtype)
        outputs = [np.full(s if want else 0, np.nan, d) for (s, d), want in zip(shapes, wanted, strict=True)]
        getattr(backend, launcher)(*arrays, *options, *outputs)
        results.append(outputs)
    scales = float(np.abs(gamma).max() * rstd.max()), x.size / n_parameters, x.size / n_parameters
    for scale, actual, expected in zip(scales, *results, strict=True):
        limit = LIMIT[x.dtype.name] if actual is results[0][0] else max(LIMIT[gamma.dtype.name], 1e-12)
        bound = limit * max(scale, 1, np.abs(expected.astype("f8")).max(initial=0))
        np.testing.assert_allclose(actual.astype("f8"), expected.astype("f8"), rtol=limit, atol=bound)


wanting = st.tuples(st.booleans(), st.booleans(), st.booleans())


@given(dimension, dimension, dtypes, seeds, st.booleans(), st.sampled_from([0.0, 0.01]), st.booleans(), wanting)
def test_norm_rows_backward(n_rows, n_cols, dtype, seed, use_mean, std_eps, single, wanted):
    n = 1 if single else n_cols
    arrays = operands((n_rows, n_cols), (1,), n, dtype, seed, use_mean=use_mean)
    ddof = 0.5 if n_cols > 1 else 0.0
    assert_equal_gradients("norm_rows_backward", arrays, (std_eps, ddof, use_mean), n, wanted)


@given(dimension, dimension, dtypes, seeds)
def test_norm_rows_backward_of_one_gamma_for_all(n_rows, n_cols, dtype, seed):
    """A gamma of length 1 beside gradients per column, as for a beta alone."""
    arrays = operands((n_rows, n_cols), (1,), 1, dtype, seed)
    assert_equal_gradients("norm_rows_backward", arrays, (0.0, 0.0, True), n_cols)


@given(dimension, st.integers(1, 4), dimension, dtypes, seeds, st.booleans(), wanting, st.data())
def test_norm_groups_backward(n_rows, n_channels, n_inner, dtype, seed, use_mean, wanted, data):
    repeats = data.draw(st.sampled_from([r for r in range(1, n_rows + 1) if n_rows % r == 0]))
    n = data.draw(st.sampled_from([1, n_channels * n_rows // repeats]))
    arrays = operands((n_rows, n_channels, n_inner), (1, 2), n, dtype, seed, use_mean=use_mean)
    assert_equal_gradients("norm_groups_backward", arrays, (0.0, 0.0, use_mean), n, wanted)


@given(dimension, dimension, dimension, dtypes, seeds, st.booleans(), st.booleans(), wanting)
def test_norm_channels_backward(n, n_channels, n_inner, dtype, seed, fixed, single, wanted):
    arrays = operands((n, n_channels, n_inner), (0, 2), 1 if single else n_channels, dtype, seed)
    assert_equal_gradients("norm_channels_backward", arrays, (0.0, 0.0, fixed), n_channels, wanted)


def from_output(arrays, beta, use_mean):
    """The operands of a gradient from y, in x's dtype, for those of one from x."""
    dy, x, gamma, mean, rstd = arrays
    xhat = (x.astype("f8") - mean[:, None] * use_mean) * rstd[:, None]
    return dy, (xhat * gamma + beta).astype(x.dtype), gamma, beta, rstd


@given(dimension, dimension, dtypes, seeds, st.booleans(), st.sampled_from([0.0, 0.01]), st.booleans(), wanting)
def test_norm_rows_backward_from_output(n_rows, n_cols, dtype, seed, use_mean, std_eps, single, wanted):
    """The same y for both backends: what its rounding leaves out is out for both."""
    n = 1 if single else n_cols
    arrays = operands((n_rows, n_cols), (1,), n, dtype, seed, use_mean=use_mean)
    gamma = arrays[2] + np.copysign(np.float32(0.5), arrays[2]).astype(arrays[2].dtype)
    beta = np.random.default_rng(seed).standard_normal(n).astype(gamma.dtype)
    operands_ = from_output((*arrays[:2], gamma, *arrays[3:]), beta, use_mean)
    wanted = wanted if n == n_cols else (True, False, False)
    assert_equal_gradients("norm_rows_backward_from_output", operands_, (std_eps, use_mean), n, wanted)


@pytest.mark.compiled
@pytest.mark.parametrize("shape", [(700, 300), (40, 3000), (2, 70_000), (20, 33_000)])
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_from_output_of_large_shapes_is_as_from_x(shape, dtype):
    """In the dtype of sums; and into the memory of y or dy."""
    dy, x, gamma, mean, rstd = operands(shape, (1,), shape[1], dtype, 0)
    gamma = np.abs(gamma) + 0.5
    beta = np.random.default_rng(1).standard_normal(shape[1]).astype(gamma.dtype)
    arrays = from_output((dy, x, gamma, mean, rstd), beta, True)
    assert_equal_gradients("norm_rows_backward_from_output", arrays, (0.0, True), shape[1])
    results = []
    for launcher, inputs, options in (
        ("norm_rows_backward", (dy, x, gamma, mean, rstd), (0.0, 0.0, True)),
        ("norm_rows_backward_from_output", arrays, (0.0, True)),
    ):
        outputs = [np.full(s, np.nan, gamma.dtype) for s in (shape[1], shape[1])]
        dx = np.full(shape, np.nan, x.dtype)
        getattr(cpu, launcher)(*inputs, *options, dx, *outputs)
        results.append((dx, *outputs))
    limit = {"float64": 1e-11, "float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}[dtype]
    for expected, actual in zip(*results, strict=True):
        largest = np.abs(expected.astype("f8")).max()
        np.testing.assert_allclose(actual.astype("f8"), expected.astype("f8"), rtol=limit, atol=limit * largest)
    for which in range(2):
        inputs = [arrays[0].copy(), arrays[1].copy()]
        nothing = np.empty(0, gamma.dtype)
        cpu.norm_rows_backward_from_output(*inputs, *arrays[2:], 0.0, True, inputs[which], nothing, nothing)
        np.testing.assert_array_equal(inputs[which], results[1][0])


#: Each takes another way through the launchers: tiles, pieces of rows, few rows, joined rows, ...
LARGE = [
    ("norm_rows_backward", (700, 300), (1,), 300),
    ("norm_rows_backward", (40, 3000), (1,), 3000),
    ("norm_rows_backward", (2, 70_000), (1,), 70_000),
    ("norm_rows_backward", (20, 33_000), (1,), 33_000),
    ("norm_rows_backward", (2, 70_000), (1,), 1),
    ("norm_groups_backward", (8, 2, 6000), (1, 2), 4),
    ("norm_groups_backward", (2, 2, 70_000), (1, 2), 2),
    ("norm_groups_backward", (300, 1, 700), (1, 2), 30),
    ("norm_channels_backward", (8, 70, 100), (0, 2), 70),
    ("norm_channels_backward", (5000, 5, 1), (0, 2), 5),
    ("norm_channels_backward", (3, 2, 70_000), (0, 2), 2),
    ("norm_channels_backward", (90, 1300, 1), (0, 2), 1300),
    ("norm_channels_backward", (700, 1300, 1), (0, 2), 1300),
    ("norm_channels_backward", (20, 70, 49), (0, 2), 70),
    ("norm_channels_backward", (2000, 3, 4), (0, 2), 3),
]


@pytest.mark.compiled
@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), LARGE)
@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_shapes_far_from_zero(launcher, shape, axes, n, flag, dtype):
    """At mean 1e4 a float32 mean is off by 5e-4 standard deviations; no gradient may be."""
    use_mean = flag or launcher == "norm_channels_backward"
    arrays = operands(shape, axes, n, dtype, 0, 1e4 if use_mean else 0.0, use_mean)
    assert_equal_gradients(launcher, arrays, (0.0, 0.0, flag), n)


def test_dx_may_be_the_memory_of_dy_or_x():
    for launcher, shape, axes in (
        ("norm_rows_backward", (70, 33), (1,)),
        ("norm_groups_backward", (6, 2, 33), (1, 2)),
        ("norm_channels_backward", (6, 2, 33), (0, 2)),
        ("norm_channels_backward", (60, 5, 1), (0, 2)),
    ):
        n = shape[1]
        dy, x, *rest = operands(shape, axes, n, "float32", 0)
        for flag in (True, False):
            expected = [np.empty(shape, "f4"), np.empty(n, "f4"), np.empty(n, "f4")]
            getattr(cpu, launcher)(dy, x, *rest, 0.0, 0.0, flag, *expected)
            for which in range(2):
                inputs = [dy.copy(), x.copy()]
                outputs = [inputs[which], np.empty(n, "f4"), np.empty(n, "f4")]
                getattr(cpu, launcher)(*inputs, *rest, 0.0, 0.0, flag, *outputs)
                for actual, wanted in zip(outputs, expected, strict=True):
                    np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("launcher", "shape", "axes"),
    [
        ("norm_rows_backward", (64, 1001), (1,)),
        ("norm_rows_backward", (2, 70_001), (1,)),
        ("norm_groups_backward", (40, 3, 501), (1, 2)),
        ("norm_channels_backward", (3, 70, 501), (0, 2)),
    ],
)
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_streaming_gives_the_same_bits(launcher, shape, axes, dtype, monkeypatch):
    n = shape[1] if launcher != "norm_groups_backward" else 3
    arrays = operands(shape, axes, n, dtype, 0)
    results = []
    for bytes_of in (1 << 60, 1):
        monkeypatch.setattr(_stream, "STREAM_BYTES", bytes_of)
        memory = np.full(arrays[1].size + 1, np.nan, arrays[1].dtype)
        dx = memory[1:].reshape(shape)  # lines do not begin where rows do
        outputs = dx, np.empty(n, arrays[2].dtype), np.empty(n, arrays[2].dtype)
        getattr(cpu, launcher)(*arrays, 0.0, 0.0, True, *outputs)
        results.append(outputs)
        assert np.isnan(memory[0])
    for plain, streamed in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, streamed)


def test_an_infinite_x_in_evaluation_leaves_dx_finite():
    for shape in ((6, 3, 40), (6, 3, 1), (3000, 70, 1)):
        dy, x, *rest = operands(shape, (0, 2), shape[1], "float32", 0)
        x = x.copy()
        x[0, 0, 0] = np.inf
        dx = np.empty(shape, "f4")
        cpu.norm_channels_backward(dy, x, *rest, 0.0, 0.0, True, dx, np.empty(0, "f4"), np.empty(0, "f4"))
        assert np.isfinite(dx).all()
