"""Masks and lengths in the norms: what has no part changes nothing, whatever it holds."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import numbanorm as nn
from tests.oracle import FLOATS, as_dtype, assert_normalized, layouts, normalized, spread

SHAPE = (4, 6, 5, 3)
EPS = 1e-5
GROUPS = 3


class Case(NamedTuple):
    """A norm as a function of x, gamma and beta, and what its oracle needs."""

    norm: Callable
    gradient: Callable
    reduced: tuple
    features: tuple
    channel_axis: int | None = None
    use_mean: bool = True
    groups: int = 1


def layer(axes):
    return Case(
        lambda x, g, b, **k: nn.layer_norm(x, g, b, axis=axes, **k),
        lambda *a, **k: nn.layer_norm_backward(*a, axis=axes, **k),
        axes,
        axes,
    )


def rms(axes):
    return Case(
        lambda x, g, b, **k: nn.rms_norm(x, g, axis=axes, eps=EPS, **k),
        lambda *a, **k: nn.rms_norm_backward(*a, axis=axes, **k),
        axes,
        axes,
        use_mean=False,
    )


def channels(norm, gradient, axis, reduced, **options):
    groups = options.pop("groups", 1)
    return Case(
        lambda x, g, b, **k: norm(x, g, b, channel_axis=axis, **options, **k),
        lambda *a, **k: gradient(*a, channel_axis=axis, **options, **k),
        reduced,
        (axis % 4,),
        axis % 4,
        groups=groups,
    )


def group_norm(x, g, b, **k):
    return nn.group_norm(x, GROUPS, g, b, **k)


def group_norm_backward(dy, x, *a, **k):
    return nn.group_norm_backward(dy, x, GROUPS, *a, **k)


CASES = {
    "layer_norm": layer((3,)),
    "layer_norm_last_two": layer((2, 3)),
    "layer_norm_sample": layer((1, 2, 3)),
    "layer_norm_channels": layer((1,)),
    "layer_norm_first": layer((0, 2)),
    "rms_norm": rms((3,)),
    "rms_norm_sample": rms((1, 2, 3)),
    "batch_norm": channels(nn.batch_norm, nn.batch_norm_backward, 1, (0, 2, 3), training=True),
    "batch_norm_last": channels(nn.batch_norm, nn.batch_norm_backward, -1, (0, 1, 2), training=True),
    "instance_norm": channels(nn.instance_norm, nn.instance_norm_backward, 1, (2, 3)),
    "instance_norm_last": channels(nn.instance_norm, nn.instance_norm_backward, -1, (1, 2)),
    "group_norm": channels(group_norm, group_norm_backward, 1, (2, 3), groups=GROUPS),
    "group_norm_last": channels(group_norm, group_norm_backward, -1, (1, 2), groups=GROUPS),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    with nn.use_backend(request.param):
        yield request.param


def over_sets(x, axes, mask, use_mean=True):
    """xhat, mean and rstd, in silence where a set has no elements."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return normalized(x, axes, EPS, use_mean=use_mean, where=mask)


def expected(case, x, mask, gamma, beta, keep=False):
    """y, mean and rstd in float64, the statistics shaped to broadcast."""
    axis, reduced = case.channel_axis, case.reduced
    clean = np.where(mask, x.astype("f8"), 0)
    if case.groups > 1:
        shape = (*x.shape[:axis], case.groups, x.shape[axis] // case.groups, *x.shape[axis + 1 :])
        axes = (axis + 1, *(a + (a > axis) for a in reduced))
        parts = over_sets(clean.reshape(shape), axes, mask.reshape(shape))
        mean, rstd = (np.repeat(s.squeeze(axis + 1), shape[axis + 1], axis) for s in parts[1:])
        xhat = parts[0].reshape(x.shape)
    else:
        xhat, mean, rstd = over_sets(clean, reduced, mask, case.use_mean)
    y = xhat * spread(gamma, case.features, 4)
    if case.use_mean:
        y = y + spread(beta, case.features, 4)
    return np.where(mask, y, x.astype("f8") if keep else 0), mean, rstd


def operands(case, rng, shape=SHAPE):
    parameter = tuple(shape[a] for a in case.features)
    return rng.standard_normal(parameter), rng.standard_normal(parameter)


def hidden(x, mask, values=(np.nan, np.inf, -np.inf, 3e4)):
    """x with nonsense where it has no part."""
    bad = np.resize(np.array(values), x.shape)
    return np.where(mask, x.astype("f8"), bad).astype(x.dtype)


@cases
@pytest.mark.parametrize("dtype", FLOATS)
def test_where(case, backend, dtype, rng):
    gamma, beta = operands(case, rng)
    for offset, shape in ((3, SHAPE), (0, (4, 1, 5, 1)), (0, (5, 3))):
        x = as_dtype(rng.standard_normal(SHAPE) * 2 + offset, dtype)
        where = rng.random(shape) < 0.7
        mask = np.broadcast_to(where, SHAPE)
        right, mean, rstd = expected(case, x, mask, gamma, beta)
        for name, given in layouts(hidden(x, mask)):
            y, *saved = case.norm(given, gamma, beta, where=where, return_stats=True)
            assert y.dtype == given.dtype.newbyteorder("="), name
            assert_normalized(y, right)
            for actual, statistic in zip(saved, (mean, rstd), strict=True):
                np.testing.assert_allclose(actual, np.broadcast_to(statistic, actual.shape), rtol=2e-5, atol=2e-6)


@cases
@pytest.mark.parametrize("axis", [None, 1, 2, 3])
def test_lengths(case, backend, axis, rng):
    sample = 1 if case.channel_axis == 0 else 0
    along = (2 if case.channel_axis == 1 else 1) if axis is None else axis
    lengths = rng.integers(1, SHAPE[along] + 1, SHAPE[sample])
    lengths[1] = 0
    inside = np.arange(SHAPE[along]) < lengths[:, None]
    mask = np.broadcast_to(inside.reshape([SHAPE[i] if i in (0, along) else 1 for i in range(4)]), SHAPE)
    gamma, beta = operands(case, rng)
    x = rng.standard_normal(SHAPE).astype("f4") + 2
    right, mean, rstd = expected(case, x, mask, gamma, beta)
    for _, given in layouts(hidden(x, mask)):
        y, *saved = case.norm(given, gamma, beta, lengths=lengths, length_axis=axis, return_stats=True)
        assert_normalized(y, right)
        for actual, statistic in zip(saved, (mean, rstd), strict=True):
            np.testing.assert_allclose(actual, np.broadcast_to(statistic, actual.shape), rtol=2e-5, atol=2e-6)
    both = case.norm(x, gamma, beta, lengths=lengths, length_axis=axis, where=x > 1)
    assert_normalized(both, expected(case, x, mask & (x > 1), gamma, beta)[0])


@cases
def test_padding_and_out(case, backend, rng):
    gamma, beta = operands(case, rng)
    x = rng.standard_normal(SHAPE).astype("f4")
    where = rng.random(SHAPE) < 0.6
    for padding in ("zero", "keep"):
        right = expected(case, x, where, gamma, beta, padding == "keep")[0]
        for target in (np.full(SHAPE, np.nan, "f4"), np.full((*SHAPE, 2), np.nan, "f4")[..., 1], np.full(SHAPE, 1.0)):
            assert case.norm(x, gamma, beta, where=where, padding=padding, out=target) is target
            assert_normalized(target, right, "float32")
        given = x.copy()
        assert case.norm(given, gamma, beta, where=where, padding=padding, out=given) is given
        assert_normalized(given, right)
    kept = case.norm(x, gamma, beta, where=where, padding="keep")
    np.testing.assert_array_equal(kept[~where], x[~where])


@cases
def test_everything_takes_part(case, backend, rng):
    gamma, beta = operands(case, rng)
    x = rng.standard_normal(SHAPE) + 1e3
    plain = case.norm(x, gamma, beta)
    for chosen in ({"where": np.ones(SHAPE, bool)}, {"lengths": [SHAPE[1]] * 4, "length_axis": 1}):
        np.testing.assert_allclose(case.norm(x, gamma, beta, **chosen), plain, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(case.norm(x, gamma, beta, where=True), plain)


@cases
def test_nothing_takes_part(case, backend, rng):
    gamma, beta = operands(case, rng)
    x = np.full(SHAPE, np.nan, "f4")
    y, mean, rstd = case.norm(x, gamma, beta, where=np.zeros(SHAPE, bool), return_stats=True)
    assert not y.any()
    assert np.isnan(rstd).all()
    assert np.isnan(mean).all() or not case.use_mean
    empty = case.norm(np.empty((0, *SHAPE[1:]), "f4"), gamma if 0 not in case.features else None, None, where=False)
    assert empty.shape == (0, *SHAPE[1:])


@cases
@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_far_from_zero(case, backend, offset, rng):
    x = (rng.standard_normal((4, 6, 40, 3)) + offset).astype("f4")
    where = rng.random(x.shape) < 0.5
    gamma, beta = operands(case, rng, x.shape)
    if case.use_mean:
        right = expected(case, x, where, gamma, beta)[0]
        assert_normalized(case.norm(hidden(x, where), gamma, beta, where=where), right)


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_huge_and_tiny(backend, factor, rng):
    x = rng.standard_normal((3, 50)).astype("f4")
    where = rng.random(x.shape) < 0.7
    y = nn.layer_norm(x * np.float32(factor), eps=0, where=where)
    assert_normalized(y, np.where(where, normalized(x, 1, 0, where=where)[0], 0))


def numeric_gradient(function, x, dy, h=1e-6):
    """Of ``sum(dy * function(x))``, by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        ends = []
        for step in (h, -h):
            moved = x.copy()
            moved[i] += step
            ends.append(float((dy * function(moved)).sum()))
        gradient[i] = (ends[0] - ends[1]) / (2 * h)
    return gradient


@cases
@pytest.mark.parametrize("padding", ["zero", "keep"])
def test_gradients_by_differences(case, backend, padding, rng):
    gamma, beta = operands(case, rng)
    x, dy = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    chosen = {"where": rng.random(SHAPE) < 0.7, "padding": padding}
    _, mean, rstd = case.norm(x, gamma, beta, return_stats=True, **chosen)
    dx, dgamma, dbeta = case.gradient(dy, x, gamma, mean, rstd, **chosen)
    with nn.use_backend("reference"):
        right = numeric_gradient(lambda a: case.norm(a, gamma, beta, **chosen), x, dy)
        of_gamma = numeric_gradient(lambda g: case.norm(x, g, beta, **chosen), gamma, dy)
    np.testing.assert_allclose(dx, right, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dgamma, of_gamma, rtol=1e-6, atol=1e-6)
    if case.use_mean:
        of_beta = numeric_gradient(lambda b: case.norm(x, gamma, b, **chosen), beta, dy)
        np.testing.assert_allclose(dbeta, of_beta, rtol=1e-6, atol=1e-6)


@cases
def test_gradients_in_every_layout(case, backend, rng):
    """And with nonsense in what has no part, of x and of dy."""
    gamma, beta = operands(case, rng)
    x, dy = (rng.standard_normal(SHAPE).astype("f4") for _ in range(2))
    lengths = np.array([3, 0, 5, 1])
    for chosen in ({"where": rng.random(SHAPE) < 0.7}, {"lengths": lengths, "length_axis": 2}):
        mask = chosen.get("where")
        if mask is None:
            mask = np.broadcast_to((np.arange(SHAPE[2]) < lengths[:, None])[:, None, :, None], SHAPE)
        _, mean, rstd = case.norm(x, gamma, beta, return_stats=True, **chosen)
        with nn.use_backend("reference"):
            right = case.gradient(dy.astype("f8"), x.astype("f8"), gamma, mean, rstd, **chosen)
        for (_, given), (_, upstream) in zip(layouts(hidden(x, mask)), layouts(hidden(dy, mask)), strict=True):
            actual = case.gradient(upstream, given, gamma, mean, rstd, **chosen)
            assert not actual[0][~mask].any()
            for a, b in zip(actual, right, strict=True):
                if b is not None:
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_running_statistics_count_what_takes_part(backend, rng):
    x = rng.standard_normal((8, 3, 10)).astype("f4") * 3 + 5
    where = rng.random(x.shape) < 0.6
    where[:, 1] = False
    where[:, 2] = False
    where[2, 2, 4] = True
    mean, var = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    nn.batch_norm(x, None, None, mean, var, training=True, where=where)
    taken = x[:, 0][where[:, 0]].astype("f8")
    np.testing.assert_allclose(mean, [0.9 + 0.1 * taken.mean(), 2, 2.7 + 0.1 * x[2, 2, 4]], rtol=1e-6)
    np.testing.assert_allclose(var, [3.6 + 0.1 * taken.var(ddof=1), 5, 6], rtol=1e-6)
    assert mean[1] == 2
    assert list(var[1:]) == [5, 6]


def test_evaluation_leaves_padding_alone(backend, rng):
    x = rng.standard_normal((4, 3, 6)).astype("f4")
    mean, var = rng.standard_normal(3).astype("f4"), rng.random(3).astype("f4")
    plain = nn.batch_norm(x, None, None, mean, var, training=False)
    y = nn.batch_norm(x, None, None, mean, var, training=False, lengths=[6, 2, 0, 1])
    inside = np.broadcast_to(np.arange(6) < np.array([6, 2, 0, 1])[:, None, None], x.shape)
    np.testing.assert_allclose(y, np.where(inside, plain, 0), rtol=1e-6, atol=1e-6)
    dy = rng.standard_normal(x.shape).astype("f4")
    rstd = (1 / np.sqrt(var + 1e-5)).astype("f4")
    dx, *_ = nn.batch_norm_backward(dy, x, None, mean, rstd, training=False, lengths=[6, 2, 0, 1], padding="keep")
    np.testing.assert_allclose(dx, np.where(inside, dy * rstd[:, None], dy), rtol=1e-5, atol=1e-6)


LAYERS = {
    "BatchNorm1d": lambda **k: nn.BatchNorm1d(6, **k),
    "InstanceNorm1d": lambda **k: nn.InstanceNorm1d(6, affine=True, **k),
    "tracked": lambda **k: nn.InstanceNorm1d(6, affine=True, track_running_stats=True, **k),
    "GroupNorm": lambda **k: nn.GroupNorm(2, 6, **k),
    "LayerNorm": lambda **k: nn.LayerNorm(7, **k),
    "RMSNorm": lambda **k: nn.RMSNorm((6, 7), **k),
    "kept y": lambda **k: nn.LayerNorm((6, 7), keep="y", **k),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers(make, rng):
    """A padded batch gives what its samples give that need no padding, gradients and running statistics included."""
    lengths = [7, 4, 1, 5]
    along = None if make(dtype="f8").__class__.__name__ not in ("LayerNorm", "RMSNorm") else 2
    inside = np.broadcast_to(np.arange(7) < np.array(lengths)[:, None, None], (4, 6, 7))
    x = np.where(inside, rng.standard_normal((4, 6, 7)), np.nan)
    dy = np.where(inside, rng.standard_normal((4, 6, 7)), np.inf)
    padded, masked = make(dtype="f8"), make(dtype="f8")
    y = padded(x, lengths=lengths, length_axis=along)
    dx = padded.backward(dy)
    np.testing.assert_allclose(y, masked(x, where=inside), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, masked.backward(dy), rtol=1e-12, atol=1e-12)
    assert not y[~inside].any()
    assert not dx[~inside].any()
    for name, gradient in padded.grad.items():
        np.testing.assert_allclose(gradient, masked.grad[name], rtol=1e-12, atol=1e-12)
    for name, value in padded.state_dict().items():
        np.testing.assert_allclose(value, masked.state_dict()[name], rtol=1e-12)
    padded.eval()
    assert not padded(x, lengths=lengths, length_axis=along)[~inside].any()


def test_bad_arguments(rng):
    x = rng.standard_normal((4, 6, 5)).astype("f4")
    with pytest.raises(TypeError, match="where must be boolean"):
        nn.layer_norm(x, where=np.ones(x.shape))
    with pytest.raises(ValueError, match="does not broadcast"):
        nn.layer_norm(x, where=np.ones((4, 6), bool))
    with pytest.raises(ValueError, match=r"lengths should have shape \(4,\)"):
        nn.batch_norm(x, training=True, lengths=[1, 2])
    with pytest.raises(ValueError, match=r"lengths\[2\] is 6, but should lie in \[0, 5\]"):
        nn.batch_norm(x, training=True, lengths=[1, 2, 6, 0])
    with pytest.raises(ValueError, match=r"lengths\[1\] is -1"):
        nn.instance_norm(x, lengths=[1, -1, 0, 0])
    with pytest.raises(TypeError, match="lengths must be integers"):
        nn.layer_norm(x, lengths=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="length_axis must not be the axis of the samples"):
        nn.layer_norm(x, lengths=[1, 2, 3, 4], length_axis=0)
    with pytest.raises(ValueError, match="lengths are None"):
        nn.layer_norm(x, length_axis=1)
    with pytest.raises(ValueError, match="padding must be one of 'zero', 'keep'"):
        nn.layer_norm(x, padding="drop")
    with pytest.raises(ValueError, match="lengths need an axis along which x is padded"):
        nn.batch_norm(x[:, :, 0], training=True, lengths=[1, 2, 3, 4])
    y, mean, rstd = nn.layer_norm(x, return_stats=True)
    with pytest.raises(ValueError, match="recompute"):
        nn.layer_norm_backward(x, y, None, mean, rstd, recompute=True, where=x > 0)


@pytest.mark.parametrize("ddof", [0, 1])
def test_weights_in_standardize(backend, ddof, rng):
    """Whole weights are repetitions; real ones are those of np.average."""
    x = rng.standard_normal((5, 4, 3)) + 100
    counts = rng.integers(0, 4, (5, 1, 3))
    counts[0] = 2
    gamma, beta = rng.standard_normal(3), rng.standard_normal((4, 1))
    y = nn.standardize(x, (0, 1), gamma=gamma, beta=beta, ddof=ddof, weights=counts, eps=EPS)
    for k in range(3):
        repeated = np.repeat(x[..., k], counts[:, 0, k], axis=0)
        right = (x[..., k] - repeated.mean()) / np.sqrt(repeated.var(ddof=ddof) + EPS) * gamma[k] + beta.T
        np.testing.assert_allclose(y[..., k], right, rtol=1e-9, atol=1e-9)
    weights, where = rng.random(x.shape), rng.random(x.shape) < 0.7
    where[:, :2] = True
    y = nn.standardize(np.where(where, x, np.nan), 1, weights=weights, where=where, eps=0)
    mean = np.average(x, 1, weights * where, keepdims=True)
    var = np.average((x - mean) ** 2, 1, weights * where, keepdims=True)
    np.testing.assert_allclose(y, np.where(where, (x - mean) / np.sqrt(var), 0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"ddof": 1.0}, {"eps_on": "std", "eps": 0.1}, {"where": True}])
def test_gradient_of_weights_in_standardize(backend, options, rng):
    x, dy, weights = (rng.standard_normal((4, 5)) for _ in range(3))
    weights, gamma = np.abs(weights) * 3, rng.standard_normal(5)
    weights[:, 1] = 0
    options = {"axis": 1, "weights": weights, **options}
    if "where" in options:
        options["where"] = rng.random(x.shape) < 0.8
    dx, dgamma, dbeta = nn.standardize_backward(dy, x, gamma, **options)
    right = numeric_gradient(lambda a: nn.standardize(a, gamma=gamma, **options), x, dy)
    of_gamma = numeric_gradient(lambda g: nn.standardize(x, gamma=g, **options), gamma, dy)
    np.testing.assert_allclose(dx, right, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dgamma, of_gamma, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dbeta, (dy * options.get("where", True)).sum(0), rtol=1e-12)


def test_bad_weights_in_standardize():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"weights must lie between 0 .* weights\[1\] is -1"):
        nn.standardize(x, weights=np.array([1.0, -1.0, 2.0]))
    with pytest.raises(ValueError, match="weights are zero for all elements of a set"):
        nn.standardize(x, 1, weights=np.array([[1.0], [0.0]]))


@pytest.mark.parametrize("chosen", [{"lengths": [3, 0, 7, 1]}, {"where": np.arange(7)[:, None] % 3 > 0}])
def test_whole_rows(backend, chosen, rng):
    """As of padded sequences: a row takes part, or does not."""
    x = rng.standard_normal((4, 7, 33)).astype("f4") * 2 + 50
    mask = chosen.get("where", np.arange(7)[:, None] < np.reshape(chosen.get("lengths", 0), (-1, 1, 1)))
    mask = np.broadcast_to(mask, x.shape)
    gamma, beta = rng.standard_normal((2, 33)).astype("f4")
    for ddof in (0, 1):
        right = over_sets(x.astype("f8"), 2, mask)[0] * gamma + beta
        if ddof:
            variances = x.astype("f8").var(2, ddof=1, keepdims=True)
            right = (x - x.astype("f8").mean(2, keepdims=True)) / np.sqrt(variances + EPS) * gamma + beta
        y = nn.standardize(hidden(x, mask), 2, gamma=gamma, beta=beta, eps=EPS, ddof=ddof, **chosen)
        assert_normalized(y, np.where(mask, right, 0))
    y, _, rstd = nn.rms_norm(hidden(x, mask), gamma, return_stats=True, **chosen)
    assert_normalized(y, np.where(mask, x / np.sqrt(np.square(x, dtype="f8").mean(2, keepdims=True) + 1e-6) * gamma, 0))
    assert np.array_equal(np.isnan(rstd), ~mask[..., :1])


@cases
def test_out_that_lies_otherwise_than_x(case, backend, rng):
    gamma, beta = operands(case, rng)
    x = rng.standard_normal(SHAPE).astype("f4")
    where = rng.random(SHAPE) < 0.6
    right = case.norm(x, gamma, beta, where=where)
    orders = [(3, 2, 1, 0), (1, 0, 2, 3), (0, 2, 3, 1), (2, 0, 3, 1)]
    for source in (x, np.asfortranarray(x)):
        for order in orders:
            out = np.full([SHAPE[i] for i in order], np.nan, "f4").transpose(np.argsort(order))
            y, mean, rstd = case.norm(source, gamma, beta, where=where, out=out, return_stats=True)
            assert y is out
            np.testing.assert_allclose(y, right, rtol=2e-5, atol=2e-5)
            dx = np.full([SHAPE[i] for i in order], np.nan, "f4").transpose(np.argsort(order))
            case.gradient(x, source, gamma, mean, rstd, where=where, out=dx)
            expected = case.gradient(x, x, gamma, mean, rstd, where=where)[0]
            np.testing.assert_allclose(dx, expected, rtol=2e-4, atol=2e-5)
    y = nn.standardize(
        np.asfortranarray(x[0, 0]), 0, gamma=np.ones((1, 3), "f4"), where=where[0, 0], out=np.empty((5, 3))
    )
    np.testing.assert_allclose(y, nn.standardize(x[0, 0], 0, where=where[0, 0]), rtol=1e-5, atol=1e-5)


def test_out_over_the_mask(backend):
    memory = np.zeros(24, np.uint8)
    memory[:6] = [1, 0, 1, 1, 1, 0]
    where = memory[:6].view(bool).reshape(2, 3)
    x = np.arange(6, dtype="f4").reshape(2, 3)
    right = nn.layer_norm(x, where=where.copy())
    np.testing.assert_array_equal(nn.layer_norm(x, where=where, out=memory.view("f4").reshape(2, 3)), right)


def test_empty_arrays_are_checked_too(backend):
    x = np.ones((0, 3), "f4")
    with pytest.raises(ValueError, match="padding must be one of"):
        nn.min_max_scale(x, 1, padding="bogus")
    with pytest.raises(ValueError, match="weights must lie between"):
        nn.standardize(x, 1, weights=-1.0)
    mean, var = np.zeros(0), np.ones(0)
    y = nn.batch_norm(np.zeros((4, 0)), None, None, mean, var, training=True, where=np.ones((4, 1), bool))
    assert y.shape == (4, 0)
    assert nn.standardize(np.zeros((3, 0)), 1, gamma=np.ones((1, 0))).shape == (3, 0)


@pytest.mark.parametrize("chosen", [{"where": np.ones(3, bool)}, {"lengths": [3, 3]}])
def test_weights_of_nothing(backend, chosen):
    x = np.ones((2, 3))
    for function in (nn.standardize, nn.mean, nn.moments):
        with pytest.raises(ValueError, match="weights are zero for all elements of a set"):
            function(x, 1, weights=np.zeros(3), **chosen)
    # A set without elements has none that weigh nothing.
    count = nn.moments(x, 1, weights=np.ones(3), where=np.array([[True], [False]])).count
    assert count.tolist() == [3, 0]
