"""Every norm against its formula in float64: all layouts, dtypes, axes; outputs poisoned with NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numbanorm as nn
from tests import oracle
from tests.oracle import as_dtype, assert_normalized, axis_subsets, layouts, spread

SHAPES = [(6, 8, 5, 4), (3, 4, 40, 3), (1, 4, 3, 2), (5, 2, 1, 1), (2, 6, 1, 70)]


@pytest.fixture(params=oracle.FLOATS)
def dtype(request):
    return request.param


def sample(rng, shape, dtype):
    return as_dtype(rng.standard_normal(shape) + 4, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_over_every_axis_subset_in_every_layout(backend, shape, dtype, rng):
    x = sample(rng, shape, dtype)
    for axes in axis_subsets(4)[1:]:
        gamma, beta = rng.standard_normal((2, *(shape[a] for a in axes)))
        normal, mean, rstd = oracle.normalized(x, axes, 1e-5)
        expected = normal * spread(gamma.astype("f4"), axes, 4) + spread(beta.astype("f4"), axes, 4)
        for name, y in layouts(x):
            before = y.copy()
            result, mu, r = nn.layer_norm(y, gamma.astype("f4"), beta.astype("f4"), axis=axes, return_stats=True)
            assert result.dtype == x.dtype, name
            assert_normalized(result, expected)
            assert mu.shape == r.shape == mean.shape
            assert mu.dtype == r.dtype == (np.float64 if dtype == "float64" else np.float32)
            np.testing.assert_allclose(mu, mean, rtol=1e-7)
            np.testing.assert_allclose(r, rstd, rtol=2e-7)
            np.testing.assert_array_equal(y, before)
        assert_normalized(nn.layer_norm(x, axis=axes), normal)


@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_over_every_axis_subset(backend, shape, dtype, rng):
    x = sample(rng, shape, dtype)
    for axes in axis_subsets(4)[1:]:
        gamma = rng.standard_normal([shape[a] for a in axes]).astype("f4")
        normal, _, rstd = oracle.normalized(x, axes, 1e-6, use_mean=False)
        for _, y in layouts(x):
            assert_normalized(nn.rms_norm(y, gamma, axis=axes), normal * spread(gamma, axes, 4))
        result, mean, r = nn.rms_norm(x, axis=axes, return_stats=True)
        assert_normalized(result, normal)
        assert not mean.any()
        np.testing.assert_allclose(r, rstd, rtol=2e-7)


@pytest.mark.parametrize("shape", [*SHAPES, (40, 7), (9, 5, 33), (2, 3, 2, 3, 2)])
def test_batch_norm_with_channels_anywhere(backend, shape, dtype, rng):
    x = sample(rng, shape, dtype)
    for channel in range(-1, x.ndim):
        axis = channel % x.ndim
        axes = tuple(i for i in range(x.ndim) if i != axis)
        channels = shape[axis]
        if x.size == channels:
            continue
        gamma, beta = rng.standard_normal((2, channels)).astype("f4")
        normal, mean, rstd = oracle.normalized(x, axes, 1e-5)
        expected = normal * spread(gamma, (axis,), x.ndim) + spread(beta, (axis,), x.ndim)
        mean64, unbiased = oracle.mean_var(x, axes, ddof=1)
        for _, y in layouts(x):
            running_mean, running_var = np.full(channels, 2.0), np.full(channels, 3.0)
            result, mu, r = nn.batch_norm(
                y, gamma, beta, running_mean, running_var, training=True, channel_axis=channel, return_stats=True
            )
            assert result.dtype == x.dtype
            assert_normalized(result, expected)
            np.testing.assert_allclose(mu, mean, rtol=1e-7)
            np.testing.assert_allclose(r, rstd, rtol=2e-7)
            exact = backend != "cuda" or dtype == "float64"  # there a batch's statistics have the compute dtype
            np.testing.assert_allclose(running_mean, 0.9 * 2 + 0.1 * mean64, rtol=1e-12 if exact else 1e-7)
            np.testing.assert_allclose(running_var, 0.9 * 3 + 0.1 * unbiased, rtol=1e-9 if exact else 1e-7)
        assert_normalized(nn.batch_norm(x, training=True, channel_axis=channel), normal)


@pytest.mark.parametrize("shape", [(6, 8, 5, 4), (40, 7), (2, 3, 2, 3, 2), (1, 5)])
def test_batch_norm_in_evaluation_changes_nothing(backend, shape, dtype, rng):
    x = sample(rng, shape, dtype)
    for axis in range(x.ndim):
        channels = shape[axis]
        gamma, beta, mean = rng.standard_normal((3, channels)).astype("f4")
        var = rng.random(channels).astype("f4") + 0.5
        frozen = [a.copy() for a in (gamma, beta, mean, var)]
        for _, y in layouts(x):
            result, mu, r = nn.batch_norm(
                y, gamma, beta, mean, var, training=False, channel_axis=axis, return_stats=True
            )
            g, b, m, v = (spread(a, (axis,), x.ndim) for a in (gamma, beta, mean, var))
            assert_normalized(result, (x.astype(np.float64) - m) / np.sqrt(v + 1e-5) * g + b)
            np.testing.assert_allclose(mu, m, rtol=1e-7)
            np.testing.assert_allclose(r, 1 / np.sqrt(v + 1e-5), rtol=2e-7)
            assert mu.dtype == r.dtype == (np.float64 if dtype == "float64" else np.float32)
            assert not np.shares_memory(mu, mean)
        for before, after in zip(frozen, (gamma, beta, mean, var), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("shape", [(6, 8, 5, 4), (3, 4, 40), (2, 3, 2, 3, 2), (1, 4, 50)])
@pytest.mark.parametrize("channel", [1, -1])
def test_instance_norm(backend, shape, dtype, channel, rng):
    x = sample(rng, shape, dtype)
    axis = channel % x.ndim
    axes = tuple(i for i in range(1, x.ndim) if i != axis)
    gamma, beta = rng.standard_normal((2, shape[axis])).astype("f4")
    normal, mean, rstd = oracle.normalized(x, axes, 1e-5)
    expected = normal * spread(gamma, (axis,), x.ndim) + spread(beta, (axis,), x.ndim)
    for _, y in layouts(x):
        result, mu, r = nn.instance_norm(y, gamma, beta, channel_axis=channel, return_stats=True)
        assert_normalized(result, expected)
        np.testing.assert_allclose(mu, mean, rtol=1e-7)
        np.testing.assert_allclose(r, rstd, rtol=2e-7)
    assert_normalized(nn.instance_norm(x, channel_axis=channel), normal)


@pytest.mark.parametrize("shape", [(6, 8, 5, 4), (3, 4, 40), (2, 6, 2, 3, 2), (7, 12), (1, 4, 50)])
@pytest.mark.parametrize("channel", [1, -1])
def test_group_norm(backend, shape, dtype, channel, rng):
    x = sample(rng, shape, dtype)
    axis = channel % x.ndim
    channels = shape[axis]
    gamma, beta = rng.standard_normal((2, channels)).astype("f4")
    for groups in (g for g in range(1, channels + 1) if channels % g == 0 and g != x.size):
        first = np.moveaxis(x.astype(np.float64), axis, 1)
        normal, mean, _ = oracle.normalized(first.reshape(shape[0], groups, -1), 2, 1e-5)
        normal = np.moveaxis(normal.reshape(first.shape), 1, axis)
        expected = normal * spread(gamma, (axis,), x.ndim) + spread(beta, (axis,), x.ndim)
        for _, y in layouts(x):
            result, mu, r = nn.group_norm(y, groups, gamma, beta, channel_axis=channel, return_stats=True)
            assert_normalized(result, expected)
            per_channel = [n if i in (0, axis) else 1 for i, n in enumerate(shape)]
            assert mu.shape == r.shape == tuple(per_channel)
            repeated = np.repeat(mean[:, :, 0], channels // groups, axis=1).reshape(per_channel)
            np.testing.assert_allclose(mu, repeated, rtol=1e-7)
        assert_normalized(nn.group_norm(x, groups, channel_axis=channel), normal)


@given(st.data())
def test_standardize_with_parameters_that_broadcast(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=5, max_side=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal(shape).astype(np.float32) * 3 + 10
    axes = data.draw(st.sampled_from(axis_subsets(len(shape))))
    gamma, beta = (
        rng.standard_normal(
            [n if data.draw(st.booleans()) else 1 for n in shape[data.draw(st.integers(0, len(shape))) :]]
        )
        for _ in range(2)
    )
    gamma, beta = (data.draw(st.sampled_from([p, None])) for p in (gamma, beta))
    eps_on = data.draw(st.sampled_from(["var", "std"]))
    normal = oracle.normalized(x, axes, 0.1, eps_on=eps_on)[0]
    expected = normal * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    assert_normalized(nn.standardize(x, axes, gamma=gamma, beta=beta, eps=0.1, eps_on=eps_on), expected)


@pytest.mark.parametrize("ddof", [1, 0.5])
def test_standardize_with_degrees_of_freedom(backend, ddof, rng):
    x = rng.standard_normal((5, 6, 7)).astype(np.float32)
    for axes in axis_subsets(3)[1:]:
        assert_normalized(nn.standardize(x, axes, ddof=ddof, eps=0), oracle.normalized(x, axes, 0, ddof=ddof)[0])


def test_z_score_of_equal_numbers_is_nan_only_without_eps(backend):
    x = np.full((2, 3), 5, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(nn.standardize(x, 1, eps=0)).all()
    assert not nn.standardize(x, 1).any()


@pytest.mark.parametrize("eps_on", ["var", "std"])
def test_eps_on(backend, eps_on, rng):
    x = rng.standard_normal((4, 50)).astype(np.float32)
    assert_normalized(nn.layer_norm(x, eps=0.5, eps_on=eps_on), oracle.normalized(x, 1, 0.5, eps_on=eps_on)[0])


NORMS = [
    lambda x, **o: nn.layer_norm(x, **o),
    lambda x, **o: nn.layer_norm(x, axis=1, **o),
    lambda x, **o: nn.rms_norm(x, **o),
    lambda x, **o: nn.batch_norm(x, training=True, **o),
    lambda x, **o: nn.batch_norm(x, None, None, np.zeros(4), np.ones(4), training=False, **o),
    lambda x, **o: nn.instance_norm(x, **o),
    lambda x, **o: nn.group_norm(x, 2, **o),
    lambda x, **o: nn.standardize(x, (0, 2), **o),
]


def assert_same(backend, actual, expected):
    """Bit for bit; on a device another layout may meet another kernel, and so another order of sums."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-7 if backend == "cuda" else 0)


NORMS_OF_ROWS = [nn.layer_norm, nn.rms_norm, NORMS[3], lambda x, **o: nn.group_norm(x, 2, **o), nn.standardize]


@pytest.mark.parametrize("norm", NORMS)
def test_out(backend, norm, rng):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    expected = norm(x)
    for name, target in layouts(np.full(x.shape, np.nan, np.float32)):
        if name == "read-only":
            with pytest.raises(ValueError, match="out is read-only"):
                norm(x, out=target)
            continue
        assert norm(x, out=target) is target
        assert_same(backend, target, expected)
    wider = np.empty(x.shape, np.float64)
    assert_same(backend, norm(x, out=wider), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_out_may_be_x_or_overlap_it(backend, norm, rng):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    expected = norm(x)
    for _, y in layouts(x):
        if y.flags.writeable:
            assert norm(y, out=y) is y
            assert_same(backend, y, expected)
    raw = np.empty(x.size + 7, np.float32)
    source, target = raw[: x.size].reshape(x.shape), raw[7:].reshape(x.shape)
    source[...] = x
    norm(source, out=target)
    assert_same(backend, target, expected)
    square = rng.standard_normal((4, 4, 4, 4)).astype(np.float32)
    expected = norm(square)
    assert_same(backend, norm(square, out=square.T), expected)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("norm", NORMS_OF_ROWS)
def test_out_may_be_a_subclass_and_is_returned(backend, norm, tmp_path, rng):
    class Mine(np.ndarray):
        pass

    x = rng.standard_normal((4, 6)).astype(np.float32)
    expected = norm(x)
    for out in (
        np.matrix(np.zeros((4, 6), np.float32)),
        np.zeros((4, 6), np.float32).view(Mine),
        np.memmap(tmp_path / "out", np.float32, "w+", shape=(4, 6)),
    ):
        assert norm(x, out=out) is out
        np.testing.assert_array_equal(np.asarray(out), expected)
        np.testing.assert_array_equal(norm(out.copy()), norm(np.asarray(out)))
    with pytest.raises(TypeError, match=r"MaskedArray.*where="):
        norm(x, out=np.ma.zeros((4, 6), np.float32))


def test_out_may_overlap_statistics_and_parameters(backend, rng):
    for dtype in (np.float32, np.float64):
        x = np.abs(rng.standard_normal((4, 4))).astype(dtype) + 1
        expected = nn.batch_norm(x, x[2], x[3], x[0].copy(), x[1].copy(), training=False)
        np.testing.assert_array_equal(nn.batch_norm(x, x[2], x[3], x[0], x[1], training=False, out=x), expected)


@pytest.mark.parametrize(("size", "factor"), [(1e-30, 1e10), (1e30, 1e-14), (1e30, 1e10)])
def test_parameters_of_any_size_meet_numbers_of_any_size(size, factor, rng):
    """rstd * gamma may leave float32's range where the result does not."""
    x = (rng.standard_normal((3, 4, 7, 8)) * size).astype(np.float32)
    gamma = np.full(4, factor, np.float32)
    for norm, axes in (
        (lambda: nn.batch_norm(x, gamma, training=True, eps=1e-70), (0, 2, 3)),
        (lambda: nn.batch_norm(x, gamma, training=True, eps=1e-70, channel_axis=-3), (0, 2, 3)),
        (lambda: nn.instance_norm(x, gamma, eps=0), (2, 3)),
        (lambda: nn.layer_norm(x, gamma, axis=1, eps=0), (1,)),
        (lambda: nn.group_norm(x, 4, gamma, eps=0), (2, 3)),
    ):
        assert_normalized(norm() / np.float32(factor), oracle.normalized(x, axes, 0)[0])


@pytest.mark.parametrize("norm", NORMS)
def test_results_keep_the_layout_of_x(norm, rng):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    assert norm(x).flags.c_contiguous
    assert norm(np.asfortranarray(x)).flags.f_contiguous
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert norm(channels_last).strides == channels_last.strides


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (3, 4, 0, 6)])
@pytest.mark.parametrize("norm", NORMS)
def test_empty_arrays(backend, norm, shape):
    result = norm(np.empty(shape, np.float32))
    assert result.shape == shape
    assert result.dtype == np.float32


def test_an_empty_batch_leaves_running_statistics_alone():
    mean, var = np.full(4, 2.0), np.full(4, 3.0)
    nn.batch_norm(np.empty((0, 4, 5)), None, None, mean, var, training=True)
    np.testing.assert_array_equal(mean, 2)
    np.testing.assert_array_equal(var, 3)


def test_statistics_of_an_empty_array_are_nan():
    _, mean, rstd = nn.layer_norm(np.empty((3, 0), np.float32), return_stats=True)
    assert mean.shape == rstd.shape == (3, 1)
    assert np.isnan(mean).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_spoils_its_own_set_only(backend, bad, rng):
    x = rng.standard_normal((4, 6)).astype(np.float32)
    x[1, 2] = bad
    with np.errstate(invalid="ignore"):
        result = nn.layer_norm(x)
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[[0, 2, 3]]).all()
    with np.errstate(invalid="ignore"):
        result = nn.batch_norm(x, training=True)
    assert np.isnan(result[:, 2]).all()
    assert np.isfinite(result[:, [0, 1, 3, 4, 5]]).all()


@pytest.mark.parametrize("parameter_dtype", [np.float16, np.float64, np.int32])
def test_parameters_of_another_dtype(backend, parameter_dtype, rng):
    x = rng.standard_normal((4, 6)).astype(np.float32)
    gamma = np.arange(1, 7).astype(parameter_dtype)
    result = nn.layer_norm(x, gamma, list(range(6)))
    assert result.dtype == np.float32
    assert_normalized(result, oracle.normalized(x, 1, 1e-5)[0] * gamma + np.arange(6))


def test_equal_for_layouts_bit_by_bit(rng):
    """A transposed array is reduced in its own storage order, so C and its copy agree exactly."""
    x = rng.standard_normal((30, 40)).astype(np.float32)
    np.testing.assert_array_equal(nn.layer_norm(x), nn.layer_norm(x[:, :].copy()))
    np.testing.assert_array_equal(nn.layer_norm(x.T, axis=0), nn.layer_norm(x).T)


def test_special_cases_agree_with_each_other(rng):
    x = rng.standard_normal((4, 6, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(nn.group_norm(x, 6), nn.instance_norm(x))
    np.testing.assert_allclose(nn.group_norm(x, 1), nn.layer_norm(x, axis=(1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(nn.batch_norm(x[:1], training=True), nn.instance_norm(x[:1]), atol=1e-6)
    np.testing.assert_array_equal(nn.standardize(x, -1), nn.layer_norm(x))


@pytest.mark.compiled
@pytest.mark.parametrize("shape", [(2, 3, 200_000), (1, 1, 400_000), (3, 130_000, 2)])
def test_a_few_huge_sets_are_shared_by_all_threads(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32) + 50
    gamma, beta = rng.standard_normal((2, shape[1])).astype("f4")
    g, b = spread(gamma, (1,), 3), spread(beta, (1,), 3)
    normal = oracle.normalized(x, 2, 1e-5)[0]
    if shape[2] > 2:
        assert_normalized(nn.instance_norm(x, gamma, beta), normal * g + b)
        y, mean, rstd = nn.layer_norm(x, return_stats=True)
        assert_normalized(y, normal)
        assert mean.shape == rstd.shape == (*shape[:2], 1)
        assert_normalized(nn.rms_norm(x), oracle.normalized(x, 2, 1e-6, use_mean=False)[0])
    assert_normalized(nn.batch_norm(x, gamma, beta, training=True), oracle.normalized(x, (0, 2), 1e-5)[0] * g + b)
    grouped = oracle.normalized(x.reshape(shape[0], 1, -1), 2, 1e-5)[0].reshape(shape)
    assert_normalized(nn.group_norm(x, 1, gamma, beta), grouped * g + b)


@pytest.mark.compiled
@pytest.mark.parametrize("shape", [(64, 256, 7, 7), (32, 80, 30, 30), (3, 600, 40), (5000, 130), (300, 40, 3, 3)])
def test_larger_batches(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32) + 50
    axes = tuple(i for i in range(x.ndim) if i != 1)
    gamma, beta = rng.standard_normal((2, shape[1])).astype("f4")
    normal = oracle.normalized(x, axes, 1e-5)[0]
    expected = normal * spread(gamma, (1,), x.ndim) + spread(beta, (1,), x.ndim)
    assert_normalized(nn.batch_norm(x, gamma, beta, training=True), expected)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    result = nn.batch_norm(last, gamma, beta, training=True, channel_axis=-1)
    assert_normalized(np.moveaxis(result, -1, 1), expected)
    first = oracle.normalized(x, 1, 1e-5)[0]
    assert_normalized(nn.layer_norm(x, gamma, axis=1), first * spread(gamma, (1,), x.ndim))
