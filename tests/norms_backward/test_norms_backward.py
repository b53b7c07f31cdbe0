"""Gradients of the norms: axes, layouts, dtypes, options, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests import oracle
from tests.norms_backward.checks import assert_gradient, central_differences, expected
from tests.oracle import as_dtype, axis_subsets, layouts, spread

SHAPE = (3, 4, 2, 5)


def draw(rng, shape, dtype="float64", offset=2.0):
    return as_dtype(rng.standard_normal(shape) + offset, dtype), as_dtype(rng.standard_normal(shape), dtype)


#: name: (forward(x, gamma, beta), backward(dy, x, gamma, mean, rstd), axes of statistics, axes of parameters)
NORMS = {
    "layer": (
        lambda x, g, b, **k: nn.layer_norm(x, g, b, axis=(1, 3), **k),
        lambda *a, **k: nn.layer_norm_backward(*a, axis=(1, 3), **k),
        (1, 3),
        (1, 3),
    ),
    "batch": (
        lambda x, g, b, **k: nn.batch_norm(x, g, b, training=True, **k),
        lambda *a, **k: nn.batch_norm_backward(*a, training=True, **k),
        (0, 2, 3),
        (1,),
    ),
    "batch, channels last": (
        lambda x, g, b, **k: nn.batch_norm(x, g, b, training=True, channel_axis=-1, **k),
        lambda *a, **k: nn.batch_norm_backward(*a, training=True, channel_axis=-1, **k),
        (0, 1, 2),
        (3,),
    ),
    "instance": (nn.instance_norm, nn.instance_norm_backward, (2, 3), (1,)),
    "instance, channels last": (
        lambda x, g, b, **k: nn.instance_norm(x, g, b, channel_axis=3, **k),
        lambda *a, **k: nn.instance_norm_backward(*a, channel_axis=3, **k),
        (1, 2),
        (3,),
    ),
}
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


@each_norm
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_every_layout_and_dtype(norm, dtype, backend, rng):
    forward, backward, axes, features = norm
    x, dy = draw(rng, SHAPE, dtype)
    gamma = rng.standard_normal([SHAPE[axis] for axis in features]).astype("f4")
    wanted = expected(dy, x, spread(gamma, features, 4), axes, features)
    for _, same in layouts(x):
        for _, gradient in layouts(dy) if same.flags.c_contiguous else [("C", dy)]:
            _, mean, rstd = forward(same, gamma, None, return_stats=True)
            before = same.copy(), gradient.copy()
            dx, dgamma, dbeta = backward(gradient, same, gamma, mean, rstd)
            assert dx.dtype == x.dtype.newbyteorder("=")
            assert dgamma.dtype == dbeta.dtype == mean.dtype
            for actual, right in zip((dx, dgamma, dbeta), wanted, strict=True):
                assert_gradient(actual, right)
            np.testing.assert_array_equal(same, before[0])
            np.testing.assert_array_equal(gradient, before[1])


@each_norm
def test_without_parameters_and_into_out(norm, backend, rng):
    forward, backward, axes, features = norm
    x, dy = draw(rng, SHAPE, "float32")
    wanted = expected(dy, x, None, axes, features)[0]
    _, *statistics = forward(x, None, None, return_stats=True)
    dx, dgamma, dbeta = backward(dy, x, None, *statistics)
    assert dgamma is dbeta is None
    assert_gradient(dx, wanted)
    outs = [np.full(SHAPE, np.nan, "f4"), np.full(SHAPE, np.nan), np.full((5, 2, 4, 3), np.nan, "f4").T]
    outs.append(np.full((6, 4, 2, 5), np.nan, "f4")[::2])
    for out in outs:
        assert backward(dy, x, None, *statistics, out=out)[0] is out
        assert_gradient(out, wanted, "float32")
    for which in range(2):
        pair = [dy.copy(), x.copy()]
        assert backward(*pair, None, *statistics, out=pair[which])[0] is pair[which]
        assert_gradient(pair[which], wanted)
    memory = np.concatenate([dy.ravel(), np.zeros(7, "f4")])
    shifted = memory[7:].reshape(SHAPE)
    backward(memory[:-7].reshape(SHAPE), x, None, *statistics, out=shifted)
    assert_gradient(shifted, wanted)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 2, 3)])
@pytest.mark.parametrize("eps_on", ["var", "std"])
def test_layer_and_rms_over_every_set_of_axes(shape, eps_on, backend, rng):
    x, dy = draw(rng, shape)
    for axes in axis_subsets(len(shape))[1:]:
        gamma = rng.standard_normal([shape[axis] for axis in axes])
        full = spread(gamma, axes, len(shape))
        for same in (x, np.asfortranarray(x)):
            _, *statistics = nn.layer_norm(same, gamma, axis=axes, eps=0.1, eps_on=eps_on, return_stats=True)
            actual = nn.layer_norm_backward(dy, same, gamma, *statistics, axis=axes, eps=0.1, eps_on=eps_on)
            for a, w in zip(actual, expected(dy, x, full, axes, axes, eps=0.1, eps_on=eps_on), strict=True):
                assert_gradient(a, w)
            _, *statistics = nn.rms_norm(same, gamma, axis=axes, return_stats=True)
            dx, dgamma, dbeta = nn.rms_norm_backward(dy, same, gamma, None, statistics[1], axis=axes)
            assert dbeta is None
            wanted = expected(dy, x, full, axes, axes, eps=1e-6, use_mean=False)
            assert_gradient(dx, wanted[0])
            assert_gradient(dgamma, wanted[1])


@given(st.data())
def test_standardize_with_whatever_broadcasts(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = data.draw(st.sampled_from(axis_subsets(len(shape))[1:]))
    varying = data.draw(st.sampled_from(axis_subsets(len(shape))))
    n = int(np.prod([shape[axis] for axis in axes]))
    options = {
        "eps": data.draw(st.sampled_from([0.1, 1e-3])),
        "eps_on": data.draw(st.sampled_from(["var", "std"])),
        "ddof": data.draw(st.sampled_from([0, 1])) if n > 2 else 0,
    }
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    x, dy = draw(rng, shape, dtype)
    if n == 1:
        options["eps_on"] = "var"  # 0 / 0
    gamma = rng.standard_normal([n if axis in varying else 1 for axis, n in enumerate(shape)])
    with nn.use_backend(data.draw(st.sampled_from(["cpu", "reference"]))):
        dx, dgamma, dbeta = nn.standardize_backward(dy, x, gamma, axis=axes, **options)
    wanted = expected(dy, x, gamma, axes, [axis for axis in varying if shape[axis] > 1], **options)
    scale = 1 / np.sqrt(options["eps"]) if options["eps_on"] == "var" else 1 / options["eps"]
    assert_gradient(dx, wanted[0], scale=scale * 10)
    assert_gradient(dgamma, wanted[1].reshape(gamma.shape), dtype, scale=10)
    assert_gradient(dbeta, wanted[2].reshape(gamma.shape), dtype)


def test_standardize_of_a_scalar_gamma(backend, rng):
    x, dy = draw(rng, (3, 5))
    dx, dgamma, dbeta = nn.standardize_backward(dy, x, 2.0, axis=1)
    wanted = expected(dy, x, 2.0, (1,), ())
    assert_gradient(dx, wanted[0])
    assert dgamma.shape == dbeta.shape == ()
    assert_gradient(dgamma, wanted[1])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_group_norm(groups, axis, backend, rng):
    first, dfirst = draw(rng, SHAPE)
    gamma = rng.standard_normal(4)
    split = first.reshape(3, groups, 4 // groups, 2, 5)
    dsplit = dfirst.reshape(split.shape)
    wanted = expected(dsplit, split, gamma.reshape(1, groups, -1, 1, 1), (2, 3, 4), (1, 2))
    x, dy = np.moveaxis(first, 1, axis), np.moveaxis(dfirst, 1, axis)
    for same, gradient in ((x, dy), (np.ascontiguousarray(x), np.ascontiguousarray(dy))):
        _, mean, rstd = nn.group_norm(same, groups, gamma, channel_axis=axis, return_stats=True)
        out = np.full_like(same, np.nan)
        dx, dgamma, dbeta = nn.group_norm_backward(
            gradient, same, groups, gamma, mean, rstd, channel_axis=axis, out=out
        )
        assert dx is out
        assert_gradient(np.moveaxis(dx, axis, 1), wanted[0].reshape(SHAPE))
        assert_gradient(dgamma, wanted[1].reshape(4))
        assert_gradient(dbeta, wanted[2].reshape(4))
        dx, dgamma, _ = nn.group_norm_backward(gradient, same, groups, None, mean, rstd, channel_axis=axis)
        assert dgamma is None
    per_group = split.mean((2, 3, 4)), 1 / np.sqrt(split.var((2, 3, 4)) + 1e-5)
    assert_gradient(nn.group_norm_backward(dfirst, first, groups, gamma, *per_group)[0], wanted[0].reshape(SHAPE))


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_batch_norm_in_evaluation(axis, dtype, backend, rng):
    x, dy = draw(rng, SHAPE, dtype)
    n = SHAPE[axis]
    gamma, mean, var = rng.standard_normal(n), rng.standard_normal(n), rng.random(n) + 0.5
    _, *statistics = nn.batch_norm(x, gamma, None, mean, var, training=False, channel_axis=axis, return_stats=True)
    dx, dgamma, dbeta = nn.batch_norm_backward(dy, x, gamma, *statistics, training=False, channel_axis=axis)
    shape = [n if i == axis % 4 else 1 for i in range(4)]
    rstd = 1 / np.sqrt(var + 1e-5).reshape(shape)
    gradient, rest = dy.astype("f8"), tuple(i for i in range(4) if i != axis % 4)
    assert_gradient(dx, gradient * rstd * gamma.reshape(shape))
    assert_gradient(dgamma, (gradient * (x.astype("f8") - mean.reshape(shape)) * rstd).sum(rest), scale=10)
    assert_gradient(dbeta, gradient.sum(rest))


@each_norm
def test_central_differences(norm, backend, rng):
    forward, backward, _, features = norm
    x, dy = draw(rng, (2, 3, 2, 3), offset=0.5)
    gamma, beta = rng.standard_normal((2, *(x.shape[axis] for axis in features)))
    _, *statistics = forward(x, gamma, beta, return_stats=True)
    dx, dgamma, dbeta = backward(dy, x, gamma, *statistics)
    for actual, value, function in (
        (dx, x, lambda v: forward(v, gamma, beta)),
        (dgamma, gamma, lambda v: forward(x, v, beta)),
        (dbeta, beta, lambda v: forward(x, gamma, v)),
    ):
        wanted = central_differences(function, value, dy)
        np.testing.assert_allclose(actual, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())


@pytest.mark.parametrize("eps_on", ["var", "std"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_central_differences_of_standardize(eps_on, ddof, rng):
    x, dy = draw(rng, (3, 4))
    options = {"axis": 1, "eps": 0.1, "eps_on": eps_on, "ddof": ddof}
    actual = nn.standardize_backward(dy, x, **options)[0]
    wanted = central_differences(lambda v: nn.standardize(v, **options), x, dy)
    np.testing.assert_allclose(actual, wanted, rtol=1e-7, atol=1e-7)


def test_rows_of_equal_numbers(backend):
    """0 / 0 under ``eps_on="std"``: the term is left out."""
    x, dy = np.full((2, 3), 7.0), np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    for eps_on in ("var", "std"):
        _, *statistics = nn.layer_norm(x, eps=0.5, eps_on=eps_on, return_stats=True)
        dx = nn.layer_norm_backward(dy, x, None, *statistics, eps=0.5, eps_on=eps_on)[0]
        rstd = 2 if eps_on == "std" else 2**0.5
        np.testing.assert_allclose(dx, rstd * (dy - dy.mean(1, keepdims=True)))


@pytest.mark.parametrize("shape", [(64, 300), (8, 5000)])
def test_far_from_zero(shape, backend, rng):
    x, dy = draw(rng, shape, "float32", offset=1e4)
    gamma = rng.standard_normal(shape[1]).astype("f4")
    _, *statistics = nn.layer_norm(x, gamma, return_stats=True)
    actual = nn.layer_norm_backward(dy, x, gamma, *statistics)
    for a, w in zip(actual, expected(dy, x, gamma, (1,), (1,)), strict=True):
        assert_gradient(a, w)
    _, *statistics = nn.batch_norm(x, gamma, training=True, return_stats=True)
    actual = nn.batch_norm_backward(dy, x, gamma, *statistics, training=True)
    for a, w in zip(actual, expected(dy, x, gamma, (0,), (1,)), strict=True):
        assert_gradient(a, w)


def test_empty_inputs(backend):
    x = np.empty((0, 3), "f4")
    dx, dgamma, dbeta = nn.layer_norm_backward(x, x, np.ones(3), np.empty(0), np.empty(0))
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, 3)))


def test_errors():
    x = np.ones((2, 3, 4), "f4")
    one = np.ones((2, 3, 1), "f4")
    for call, error, text in (
        (lambda: nn.layer_norm_backward(x[:1], x, None, one, one), ValueError, r"dy should have x's shape \(2, 3, 4\)"),
        (lambda: nn.layer_norm_backward(x.astype(int), x, None, one, one), TypeError, "dy has dtype int64"),
        (lambda: nn.layer_norm_backward(x, x.astype(int), None, one, one), TypeError, "x has dtype int64"),
        (lambda: nn.layer_norm_backward(x, x, None, one[:1], one), ValueError, "mean should have shape"),
        (lambda: nn.layer_norm_backward(x, x, None, one, one[0]), ValueError, "rstd should have shape"),
        (lambda: nn.layer_norm_backward(x, x, np.ones(3), one, one), ValueError, "gamma should have shape"),
        (lambda: nn.layer_norm_backward(x, x, None, one, one, out=x[:1]), ValueError, "out should have shape"),
        (lambda: nn.batch_norm_backward(x, x, None, one, one, training=True), ValueError, "mean should have shape"),
        (
            lambda: nn.batch_norm_backward(one[:1], one[:1], None, np.ones(3), np.ones(3), training=True),
            ValueError,
            "Expected more than 1 value per channel",
        ),
        (lambda: nn.group_norm_backward(x, x, 2, None, one, one), ValueError, "must be divisible"),
        (lambda: nn.group_norm_backward(x, x, 3, None, x, one), ValueError, "mean should have shape"),
        (lambda: nn.instance_norm_backward(x[..., :1], x[..., :1], None, one, one), ValueError, "spatial element"),
    ):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("axes", [(3,), (2, 3), (1,), (0, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("eps_on", ["var", "std"])
def test_from_y(axes, eps_on, backend, rng):
    """As from x: of layer and RMS norm, in any layout, with and without parameters."""
    x, dy = draw(rng, SHAPE)
    gamma, beta = rng.uniform(0.5, 2, (2, *(SHAPE[axis] for axis in axes)))
    options = {"axis": axes, "eps": 0.1, "eps_on": eps_on}
    for same in (x, np.asfortranarray(x), x[:, ::-1]):
        for g, b in ((gamma, beta), (-gamma, None), (None, beta), (None, None)):
            y, mean, rstd = nn.layer_norm(same, g, b, return_stats=True, **options)
            wanted = nn.layer_norm_backward(dy, same, g, mean, rstd, **options)
            actual = nn.layer_norm_backward(dy, y, g, None, rstd, beta=b, recompute=True, **options)
            for a, w in zip(actual, wanted, strict=True):
                assert (a is w is None) or assert_gradient(a, w) is None
        y, _, rstd = nn.rms_norm(same, gamma, axis=axes, return_stats=True)
        wanted = nn.rms_norm_backward(dy, same, gamma, None, rstd, axis=axes)
        actual = nn.rms_norm_backward(dy, y, gamma, None, rstd, axis=axes, recompute=True)
        for a, w in zip(actual[:2], wanted[:2], strict=True):
            assert_gradient(a, w)
        assert actual[2] is None
    out = y.copy()
    assert nn.rms_norm_backward(dy, out, gamma, None, rstd, axis=axes, recompute=True, out=out)[0] is out
    assert_gradient(out, wanted[0])


def test_central_differences_from_y(backend, rng):
    x, dy = draw(rng, (3, 4))
    gamma, beta = rng.uniform(0.5, 2, (2, 4))
    y, _, rstd = nn.layer_norm(x, gamma, beta, return_stats=True)
    actual = nn.layer_norm_backward(dy, y, gamma, None, rstd, beta=beta, recompute=True)
    for a, value, function in zip(
        actual,
        (x, gamma, beta),
        (
            lambda v: nn.layer_norm(v, gamma, beta),
            lambda v: nn.layer_norm(x, v, beta),
            lambda v: nn.layer_norm(x, gamma, v),
        ),
        strict=True,
    ):
        wanted = central_differences(function, value, dy)
        np.testing.assert_allclose(a, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_from_y_far_from_zero(dtype, backend, rng):
    """The mean of x is of no concern: y does not know it."""
    if dtype == "float16":
        pytest.skip("has no numbers that are far from zero and differ")
    x, dy = draw(rng, (64, 300), dtype, offset=1e4 if dtype != "bfloat16" else 10)
    gamma, beta = rng.uniform(0.5, 2, (2, 300)).astype("f4")
    y, _, rstd = nn.layer_norm(x, gamma, beta, return_stats=True)
    actual = nn.layer_norm_backward(dy, y, gamma, None, rstd, beta=beta, recompute=True)
    for a, w in zip(actual, expected(dy, x, gamma, (1,), (1,)), strict=True):
        assert_gradient(a, w, {"bfloat16": "bfloat16", "float32": "float32"}.get(dtype, "float32"), 3)


def test_what_cannot_be_recovered():
    x, gamma = np.ones((2, 4)), np.array([1.0, 0, 2, 0])
    one = np.ones((2, 1))
    for call in (
        lambda: nn.layer_norm_backward(x, x, gamma, None, one, recompute=True),
        lambda: nn.rms_norm_backward(x, x, gamma, None, one, recompute=True),
    ):
        with pytest.raises(ValueError, match="gamma is zero in 2 of 4 places"):
            call()
    with pytest.raises(ValueError, match="beta should have shape"):
        nn.layer_norm_backward(x, x, None, None, one, beta=np.ones(3), recompute=True)
