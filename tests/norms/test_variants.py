"""Norms beyond the five, against their articles' formulas in float64."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests import oracle
from tests.oracle import as_dtype, assert_normalized, layouts, spread

SHAPE = (4, 3, 5, 2)


@pytest.fixture(params=oracle.FLOATS)
def dtype(request):
    return request.param


def draw(rng, shape=SHAPE, dtype="float64", offset=4.0):
    return as_dtype(rng.standard_normal(shape) + offset, dtype)


def moved(x, axis):
    """The same array with its channels elsewhere."""
    return np.ascontiguousarray(np.moveaxis(x, 1, axis))


def wide(x):
    return np.asarray(x).astype("f8")


def over(x, axes):
    return oracle.mean_var(x, axes, keepdims=True)


def adaptive(content, style, eps=1e-5):
    normal = oracle.normalized(content, (2, 3), eps)[0]
    mean, var = over(style, (2, 3))
    return normal * np.sqrt(var + eps) + mean


@pytest.mark.parametrize("axis", [1, -1, 0])
@pytest.mark.parametrize("one_style", [False, True])
def test_adaptive_instance_norm(backend, dtype, axis, one_style, rng):
    content, style = draw(rng, dtype=dtype), draw(rng, (1 if one_style else 4, 3, 7, 4), "float32", -3.0)
    expected = np.moveaxis(adaptive(content, style), 1, axis)
    for _, same in layouts(moved(content, axis)):
        y, mean, _ = nn.adaptive_instance_norm(same, moved(style, axis), channel_axis=axis, return_stats=True)
        assert y.dtype == content.dtype
        assert_normalized(y, expected)
        assert mean.shape == tuple(n if n in (4, 3) else 1 for n in same.shape)
    for _, other in layouts(moved(style, axis)):
        assert_normalized(nn.adain(moved(content, axis), other, channel_axis=axis), expected)


def test_adaptive_instance_norm_of_a_style_far_from_zero(backend, rng):
    content, style = draw(rng, dtype="float32", offset=1e4), draw(rng, dtype="float32", offset=-1e4)
    assert_normalized(nn.adain(content, style), adaptive(content, style))
    np.testing.assert_array_equal(nn.adain(content, np.zeros(SHAPE, "f4"), eps=0), 0)
    expected = nn.adain(content, style)
    assert nn.adain(content, style, out=style) is style
    np.testing.assert_array_equal(style, expected)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((4, 2, 5, 2), "3 channels along axis 1"), ((2, 3, 5, 2), "4 samples"), ((4, 3, 10), "rank")],
)
def test_a_style_that_does_not_fit(shape, text):
    with pytest.raises(ValueError, match=text):
        nn.adain(np.ones(SHAPE), np.ones(shape))
    with pytest.raises(TypeError, match="style has dtype int64"):
        nn.adain(np.ones(SHAPE), np.ones(SHAPE, int))
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        nn.adain(np.ones(SHAPE), np.ones((4, 3, 1, 1)))


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_conditional_instance_norm(backend, dtype, axis, rng):
    x, labels = draw(rng, dtype=dtype), np.array([5, 0, 5, 2])
    gammas, betas = rng.standard_normal((2, 6, 3)).astype("f4")
    normal = oracle.normalized(x, (2, 3), 1e-5)[0]
    expected = np.moveaxis(normal * gammas[labels, :, None, None] + betas[labels, :, None, None], 1, axis)
    for _, same in layouts(moved(x, axis)):
        y = nn.conditional_instance_norm(same, gammas, betas, labels, channel_axis=axis)
        assert y.dtype == x.dtype
        assert_normalized(y, expected)
    plain = nn.conditional_instance_norm(moved(x, axis), None, betas, labels.tolist(), channel_axis=axis)
    assert_normalized(plain, np.moveaxis(normal + betas[labels, :, None, None], 1, axis))


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0, 1, 6, -1], ValueError, r"labels\[2\] is 6, but should lie in \[0, 6\)"),
        ([0, -1, 0, 0], ValueError, r"labels\[1\] is -1"),
        ([0, 1, 2], ValueError, r"labels should have shape \(4,\).*have \(3,\)"),
        ([0.0, 1.0, 2.0, 3.0], TypeError, "labels must be integers, but have dtype float64"),
    ],
)
def test_bad_labels(labels, error, text):
    table = np.ones((6, 3))
    with pytest.raises(error, match=text):
        nn.conditional_instance_norm(np.ones(SHAPE), table, table, labels)


def test_tables_that_do_not_fit():
    x, labels = np.ones(SHAPE), [0] * 4
    with pytest.raises(ValueError, match=r"gammas should have shape \(n_styles, 3\), but has \(6, 4\)"):
        nn.conditional_instance_norm(x, np.ones((6, 4)), None, labels)
    with pytest.raises(ValueError, match="but have 6 and 5"):
        nn.conditional_instance_norm(x, np.ones((6, 3)), np.ones((5, 3)), labels)


def switchable(x, w, u, running=None, eps=1e-5):
    """xhat by the article's formula, on variances written out."""
    sets = [over(x, axes) for axes in ((2, 3), (1, 2, 3), (0, 2, 3))]
    if running is not None:
        sets[2] = tuple(spread(r, (1,), 4) for r in running)
    shares = [np.exp(v) / np.exp(v).sum() for v in (wide(w), wide(u))]
    mean, var = (sum(share * s[k] for share, s in zip(shares[k], sets, strict=True)) for k in range(2))
    return (wide(x) - mean) / np.sqrt(var + eps)


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_switchable_norm(backend, dtype, axis, rng):
    x = draw(rng, dtype=dtype) * np.arange(1, 4)[:, None, None].astype("f4").astype(as_dtype(0, dtype).dtype)
    w, u = rng.standard_normal((2, 3))
    gamma, beta = rng.standard_normal((2, 3)).astype("f4")
    g, b = (spread(p, (1,), 4) for p in (gamma, beta))
    expected = np.moveaxis(switchable(x, w, u) * g + b, 1, axis)
    for _, same in layouts(moved(x, axis)):
        running = np.full(3, 2.0), np.full(3, 3.0)
        y = nn.switchable_norm(same, gamma, beta, w, u, *running, training=True, channel_axis=axis)
        assert y.dtype == x.dtype
        assert_normalized(y, expected)
        mean, var = oracle.mean_var(x, (0, 2, 3))
        np.testing.assert_allclose(running[0], 0.9 * 2 + 0.1 * mean, rtol=1e-6)
        np.testing.assert_allclose(running[1], 0.9 * 3 + 0.1 * var, rtol=1e-6)
    frozen = [r.copy() for r in running]
    y = nn.switchable_norm(moved(x, axis), gamma, beta, w, u, *running, training=False, channel_axis=axis)
    assert_normalized(y, np.moveaxis(switchable(x, w, u, running) * g + b, 1, axis))
    np.testing.assert_array_equal(running, frozen)


def test_switchable_norm_is_each_of_its_parts_at_the_corners(backend, rng):
    x = draw(rng, dtype="float32", offset=1e4)
    for k, axes in enumerate(((2, 3), (1, 2, 3), (0, 2, 3))):
        weights = 80.0 * np.eye(3)[k]
        y = nn.switchable_norm(x, None, None, weights, weights, training=True)
        assert_normalized(y, oracle.normalized(x, axes, 1e-5)[0])


def test_switchable_norm_says_what_it_lacks():
    x, w = np.ones(SHAPE), np.ones(3)
    with pytest.raises(ValueError, match=r"mean_weights should have shape \(3,\).*got \(2,\)"):
        nn.switchable_norm(x, None, None, np.ones(2), w, training=True)
    with pytest.raises(ValueError, match="in evaluation needs running_mean and running_var"):
        nn.switchable_norm(x, None, None, w, w, training=False)


def renorm(x, mean, var, r_max, d_max, eps=1e-5):
    mu, spread_ = over(x, (0, 2, 3))
    std, sigma = np.sqrt(spread_ + eps), np.sqrt(spread(var, (1,), 4) + eps)
    r = np.clip(std / sigma, 1 / r_max, r_max)
    d = np.clip((mu - spread(mean, (1,), 4)) / sigma, -d_max, d_max)
    return (wide(x) - mu) / std * r + d, r, d


@pytest.mark.parametrize("axis", [1, -1, 0])
@pytest.mark.parametrize("limits", [(1.0, 0.0), (1.2, 0.3), (1e9, 1e9)])
def test_batch_renorm(backend, dtype, axis, limits, rng):
    x = draw(rng, dtype=dtype)
    gamma, beta = rng.standard_normal((2, 3)).astype("f4")
    g, b = (spread(p, (1,), 4) for p in (gamma, beta))
    mean, var = np.array([3.5, 4, 6]), np.array([0.3, 1, 4])
    normal, r, d = renorm(x, mean, var, *limits)
    for _, same in layouts(moved(x, axis)):
        running = mean.copy(), var.copy()
        options = {"channel_axis": axis, "r_max": limits[0], "d_max": limits[1]}
        y, *_, r_, d_ = nn.batch_renorm(same, gamma, beta, *running, training=True, return_stats=True, **options)
        assert y.dtype == x.dtype
        assert_normalized(y, np.moveaxis(normal * g + b, 1, axis))
        np.testing.assert_allclose(r_.ravel(), r.ravel(), rtol=1e-6)
        np.testing.assert_allclose(d_.ravel(), d.ravel(), rtol=1e-5, atol=1e-6)
        batch_mean, batch_var = oracle.mean_var(x, (0, 2, 3))
        np.testing.assert_allclose(running[0], 0.9 * mean + 0.1 * batch_mean, rtol=1e-6)
        std = 0.9 * np.sqrt(var + 1e-5) + 0.1 * np.sqrt(batch_var + 1e-5)
        np.testing.assert_allclose(running[1], std**2 - 1e-5, rtol=1e-6)
    y = nn.batch_renorm(moved(x, axis), gamma, beta, mean, var, training=False, channel_axis=axis)
    evaluated = (wide(x) - spread(mean, (1,), 4)) / np.sqrt(spread(var, (1,), 4) + 1e-5) * g + b
    assert_normalized(y, np.moveaxis(evaluated, 1, axis))
    if limits[0] == 1e9:
        assert_normalized(y, np.moveaxis(normal * g + b, 1, axis))


def test_batch_renorm_far_from_zero(backend, rng):
    x = draw(rng, dtype="float32", offset=1e4)
    running = np.full(3, 1e4, "f4"), np.ones(3, "f4")
    assert_normalized(
        nn.batch_renorm(x, None, None, *running, training=True, r_max=3, d_max=5),
        renorm(x, np.full(3, 1e4), np.ones(3), 3, 5)[0],
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"r_max": 0.9}, "r_max must be at least 1, but got 0.9"),
        ({"d_max": -1}, "d_max must be at least 0, but got -1"),
        ({"running_var": None}, "needs running_mean and running_var, in training too"),
    ],
)
def test_batch_renorm_options(options, text):
    given = {"running_mean": np.zeros(3), "running_var": np.ones(3), "training": True}
    with pytest.raises(ValueError, match=text):
        nn.batch_renorm(np.ones(SHAPE), **{**given, **options})
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.batch_renorm(np.ones((1, 3)), **given)


@pytest.mark.parametrize("axis", [1, -1, 0])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_ghost_batch_norm_is_batch_norm_of_every_piece(backend, dtype, axis, size, rng):
    x = draw(rng, dtype=dtype)
    gamma, beta = rng.standard_normal((2, 3)).astype("f4")
    bounds = {1: [0, 1, 2, 3, 4], 2: [0, 2, 4], 3: [0, 2, 4]}.get(size, [0, 4])
    wanted = np.zeros(3), np.ones(3)
    parts = [nn.batch_norm(x[a:b], gamma, beta, *wanted, training=True) for a, b in pairwise(bounds)]
    expected = np.moveaxis(np.concatenate(parts), 1, axis)
    for name, same in layouts(moved(x, axis)):
        running = np.zeros(3), np.ones(3)
        given = same, gamma, beta, *running
        y, mean, _ = nn.ghost_batch_norm(
            *given, virtual_batch_size=size, training=True, channel_axis=axis, return_stats=True
        )
        assert y.dtype == x.dtype
        assert mean.shape == (len(parts), 3)
        assert_normalized(y, wide(expected))
        np.testing.assert_allclose(running, wanted, rtol=1e-6)
        if name == "C":
            y = nn.ghost_batch_norm(*given[:3], virtual_batch_size=size, training=True, channel_axis=axis, out=same)
            assert y is same
            assert_normalized(y, wide(expected))
    y = nn.ghost_batch_norm(moved(x, axis), *given[1:], virtual_batch_size=size, training=False, channel_axis=axis)
    np.testing.assert_array_equal(y, nn.batch_norm(moved(x, axis), *given[1:], training=False, channel_axis=axis))


def test_ghost_batch_norm_into_memory_that_overlaps(backend, rng):
    raw = rng.standard_normal(4 * 30 + 7).astype("f4")
    source, target = raw[:-7].reshape(SHAPE), raw[7:].reshape(SHAPE)
    expected = nn.ghost_batch_norm(source.copy(), virtual_batch_size=2, training=True)
    assert nn.ghost_batch_norm(source, virtual_batch_size=2, training=True, out=target) is target
    np.testing.assert_array_equal(target, expected)


def test_a_bad_virtual_batch_changes_nothing():
    running = np.zeros(3), np.ones(3)
    for size, text in ((2, "more than 1 value per channel"), (0, "virtual_batch_size must be positive, but got 0")):
        with pytest.raises(ValueError, match=text):
            nn.ghost_batch_norm(np.ones((3, 3)), None, None, *running, virtual_batch_size=size, training=True)
    np.testing.assert_array_equal(running, [[0] * 3, [1] * 3])


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: nn.adain(x, np.ones((1, 3, 2))),
        lambda x: nn.conditional_instance_norm(x, None, None, [0] * len(x)),
        lambda x: nn.switchable_norm(x, None, None, np.ones(3), np.ones(3), np.zeros(3), np.ones(3), training=True),
        lambda x: nn.batch_renorm(x, None, None, np.zeros(3), np.ones(3), training=True),
        lambda x: nn.ghost_batch_norm(x, virtual_batch_size=2, training=True),
        nn.z_score,
        nn.min_max_scale,
        nn.l2_normalize,
        nn.weight_standardize,
    ],
)
@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 3, 0)])
def test_empty_arrays(norm, shape):
    with np.errstate(all="ignore"):
        assert norm(np.empty(shape, "f4")).shape == shape
    with pytest.raises(TypeError, match="has dtype int64"):
        norm(np.ones((2, 3, 5), int))


@given(st.integers(0, 999), st.sampled_from([0, 1, None, (0, 1)]), st.sampled_from([1.0, 1e-20, 1e20]))
def test_scaling(seed, axis, size):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((5, 4)) * size + size * rng.choice([0, 1e4])).astype("f4")
    x[:, 1] = x[0, 1]
    mean, var = over(x, axis)
    with np.errstate(invalid="ignore"):
        expected = np.where(var == 0, 0, (wide(x) - mean) / np.sqrt(np.where(var == 0, 1, var)))
    assert_normalized(nn.z_score(x, axis), expected)
    low, high = (f(wide(x), axis=axis, keepdims=True) for f in (np.min, np.max))
    share = (wide(x) - low) / np.where(high == low, 1, high - low)
    assert_normalized(nn.min_max_scale(x, axis, feature_range=(-1, 2)), share * 3 - 1)
    length = np.sqrt(np.square(wide(x)).sum(axis, keepdims=True))
    assert_normalized(nn.l2_normalize(x, axis, eps=0), wide(x) / length)


def test_scaling_as_scikit_learn(dtype, rng):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = draw(rng, (50, 4), dtype)
    x[:, 2] = 3
    assert_normalized(nn.z_score(x), preprocessing.StandardScaler().fit_transform(wide(x)))
    scaler = preprocessing.MinMaxScaler((2, 5))
    assert_normalized(nn.min_max_scale(x, feature_range=(2, 5)), scaler.fit_transform(wide(x)))
    with pytest.raises(ValueError, match="lower < upper"):
        nn.min_max_scale(x, feature_range=(1, 1))
    assert_normalized(nn.z_score(x, ddof=1), nn.z_score(wide(x)) * np.sqrt(49 / 50))


def test_weights_and_lengths_as_torch(rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((6, 3, 2, 2)).astype("f4")
    theirs = torch.nn.functional.normalize(torch.from_numpy(x), dim=1).numpy()
    assert_normalized(nn.l2_normalize(x, 1), wide(theirs))
    gamma = rng.standard_normal(6)
    expected = oracle.normalized(x, (1, 2, 3), 1e-5)[0] * spread(gamma, (0,), 4)
    assert_normalized(nn.weight_standardize(x, gamma=gamma), expected)
    assert_normalized(
        nn.weight_standardize(moved(x.swapaxes(0, 1), -1), gamma=gamma, channel_axis=-1),
        np.moveaxis(expected.swapaxes(0, 1), 1, -1),
    )
