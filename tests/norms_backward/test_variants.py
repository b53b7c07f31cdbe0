"""Gradients of the newer norms: central differences, layouts, dtypes, data far from zero."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests import oracle
from tests.norms_backward.checks import assert_gradient, central_differences
from tests.oracle import as_dtype, layouts

SHAPE = (3, 4, 2, 5)
LABELS = np.array([2, 0, 2])
CLIPPED = {"r_max": 1.01, "d_max": 0.01}
RUNNING = np.array([3.0, -3, 9, 0]), np.array([4.0, 0.1, 9, 0.2])


def moved(x, axis):
    return np.ascontiguousarray(np.moveaxis(x, 1, axis))


def adaptive(x, p, axis):
    y, *saved = nn.adaptive_instance_norm(x, p["style"], channel_axis=axis, return_stats=True)

    def backward(dy, x, **out):
        dx, dstyle = nn.adaptive_instance_norm_backward(dy, x, p["style"], *saved, channel_axis=axis, **out)
        return dx, {"style": dstyle}

    return y, backward


def conditional(x, p, axis):
    given = p["gammas"], p["betas"], LABELS
    y, *saved = nn.conditional_instance_norm(x, *given, channel_axis=axis, return_stats=True)

    def backward(dy, x, **out):
        gradients = nn.conditional_instance_norm_backward(dy, x, p["gammas"], LABELS, *saved, channel_axis=axis, **out)
        return gradients[0], dict(zip(("gammas", "betas"), gradients[1:], strict=True))

    return y, backward


def renorm(x, p, axis):
    options = {"training": True, "channel_axis": axis}
    running = [r.copy() for r in RUNNING]
    y, *saved = nn.batch_renorm(x, p["gamma"], p["beta"], *running, return_stats=True, **CLIPPED, **options)

    def backward(dy, x, **out):
        gradients = nn.batch_renorm_backward(dy, x, p["gamma"], *saved, **options, **out)
        return gradients[0], dict(zip(("gamma", "beta"), gradients[1:], strict=True))

    return y, backward


def ghost(x, p, axis):
    options = {"training": True, "channel_axis": axis, "virtual_batch_size": 2}
    y, *saved = nn.ghost_batch_norm(x, p["gamma"], p["beta"], return_stats=True, **options)

    def backward(dy, x, **out):
        gradients = nn.ghost_batch_norm_backward(dy, x, p["gamma"], *saved, **options, **out)
        return gradients[0], dict(zip(("gamma", "beta"), gradients[1:], strict=True))

    return y, backward


def switchable(training):
    def forward(x, p, axis):
        options = {"training": training, "channel_axis": axis}
        weights = p["mean_weights"], p["var_weights"]
        running = [r.copy() for r in RUNNING]
        given = p["gamma"], p["beta"], *weights, *running
        y, *saved = nn.switchable_norm(x, *given, return_stats=True, **options)

        def backward(dy, x, **out):
            gradients = nn.switchable_norm_backward(
                dy, x, p["gamma"], *weights, *saved, *([] if training else running), **options, **out
            )
            return gradients[0], dict(zip(("gamma", "beta", "mean_weights", "var_weights"), gradients[1:], strict=True))

        return y, backward

    return forward


SWITCHED = {"gamma": (4,), "beta": (4,), "mean_weights": (3,), "var_weights": (3,)}

#: name -> (forward(x, parameters, axis) giving y and backward(dy, x), shapes of parameters)
NORMS = {
    "adaptive": (adaptive, {"style": (3, 4, 3, 3)}),
    "adaptive, one style": (adaptive, {"style": (1, 4, 3, 3)}),
    "conditional": (conditional, {"gammas": (4, 4), "betas": (4, 4)}),
    "renorm": (renorm, {"gamma": (4,), "beta": (4,)}),
    "ghost": (ghost, {"gamma": (4,), "beta": (4,)}),
    "switchable": (switchable(True), SWITCHED),
    "switchable, evaluation": (switchable(False), SWITCHED),
}
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def draw(norm, rng, axis=1, dtype="float64", offset=2.0):
    x, dy = rng.standard_normal((2, *SHAPE))
    parameters = {name: rng.standard_normal(shape) for name, shape in norm[1].items()}
    if "style" in parameters:
        parameters["style"] = moved(parameters["style"] + offset, axis)
    return as_dtype(moved(x + offset, axis), dtype), as_dtype(moved(dy, axis), dtype), parameters


@each_norm
@pytest.mark.parametrize("axis", [1, -1, 0])
def test_central_differences(norm, axis, backend, rng):
    x, dy, parameters = draw(norm, rng, axis)
    dx, rest = norm[0](x, parameters, axis)[1](dy, x)
    wanted = central_differences(lambda value: norm[0](value, parameters, axis)[0], x, dy)
    np.testing.assert_allclose(dx, wanted, rtol=1e-6, atol=1e-7)
    assert rest.keys() == parameters.keys()
    for name, value in parameters.items():

        def of(changed, name=name):
            return norm[0](x, {**parameters, name: changed}, axis)[0]

        np.testing.assert_allclose(rest[name], central_differences(of, value, dy), rtol=1e-6, atol=1e-7)


def exact(norm, x, dy, parameters, axis=1):
    """In float64 on the reference, from x as it was rounded."""
    wide = {name: np.asarray(p).astype("f8") for name, p in parameters.items()}
    x, dy = x.astype("f8"), dy.astype("f8")
    with nn.use_backend("reference"):
        return norm[0](x, wide, axis)[1](dy, x)


@each_norm
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_every_layout_and_dtype(norm, dtype, backend, rng):
    x, dy, parameters = draw(norm, rng, dtype=dtype)
    parameters = {name: p.astype("f4") for name, p in parameters.items()}
    wanted = exact(norm, x, dy, parameters)
    for _, same in layouts(x):
        backward = norm[0](same, parameters, 1)[1]
        for _, gradient in layouts(dy) if same.flags.c_contiguous else [("C", dy)]:
            before = same.copy(), gradient.copy()
            dx, rest = backward(gradient, same)
            assert dx.dtype == x.dtype.newbyteorder("=")
            assert_gradient(dx, wanted[0])
            for name, value in rest.items():
                assert_gradient(value, wanted[1][name], "float32", 10)
            np.testing.assert_array_equal(same, before[0])
            np.testing.assert_array_equal(gradient, before[1])


#: In evaluation running statistics count, which are near zero.
TRAINING = [name for name in NORMS if name != "switchable, evaluation"]


@pytest.mark.parametrize("norm", [NORMS[name] for name in TRAINING], ids=TRAINING)
def test_far_from_zero(norm, backend, rng):
    """A float32 mean of 1e4 is off by 5e-4 standard deviations; no gradient may be."""
    x, dy, parameters = draw(norm, rng, dtype="float32", offset=1e4)
    parameters = {name: p.astype("f4") for name, p in parameters.items()}
    wanted = exact(norm, x, dy, parameters)
    dx, rest = norm[0](x, parameters, 1)[1](dy, x)
    assert_gradient(dx, wanted[0])
    for name, value in rest.items():
        assert_gradient(value, wanted[1][name], "float32", 10)


@each_norm
def test_out(norm, backend, rng):
    x, dy, parameters = draw(norm, rng, dtype="float32")
    backward = norm[0](x, parameters, 1)[1]
    wanted = backward(dy, x)[0]
    for name, target in layouts(np.full(SHAPE, np.nan, "f4")):
        if name != "read-only":
            assert backward(dy, x, out=target)[0] is target
            np.testing.assert_allclose(target, wanted, rtol=1e-6, atol=1e-6)
    for which in range(2):
        pair = [dy.copy(), x.copy()]
        assert backward(*pair, out=pair[which])[0] is pair[which]
        np.testing.assert_allclose(pair[which], wanted, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 999), st.integers(1, 9), st.sampled_from([1, 2, 5]), st.integers(2, 40), st.integers(1, 9))
def test_ghost_batch_norm_of_any_batch(seed, n, channels, inner, size):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, n, channels, inner))
    count = -(-n // size)
    bounds = [n * i // count for i in range(count + 1)]
    options = {"training": True, "virtual_batch_size": size}
    gamma = rng.standard_normal(channels)
    y, *saved = nn.ghost_batch_norm(x, gamma, return_stats=True, **options)
    dx, dgamma, dbeta = nn.ghost_batch_norm_backward(dy, x, gamma, *saved, **options)
    total = 0
    for first, last in pairwise(bounds):
        piece = slice(first, last)
        expected, *statistics = nn.batch_norm(x[piece], gamma, training=True, return_stats=True)
        np.testing.assert_allclose(y[piece], expected, rtol=1e-12, atol=1e-12)
        gradients = nn.batch_norm_backward(dy[piece], x[piece], gamma, *statistics, training=True)
        assert_gradient(dx[piece], gradients[0])
        total = total + np.array(gradients[1:])
    np.testing.assert_allclose([dgamma, dbeta], total, rtol=1e-9, atol=1e-9)


def test_without_parameters(backend, rng):
    x, dy = rng.standard_normal((2, *SHAPE))
    one, w = np.ones(4), np.ones(3)
    running = [r.copy() for r in RUNNING]
    _, *saved = nn.batch_renorm(x, None, None, *running, training=True, return_stats=True)
    bare = nn.batch_renorm_backward(dy, x, None, *saved, training=True)
    assert bare[1:] == (None, None)
    assert_gradient(bare[0], nn.batch_renorm_backward(dy, x, one, *saved, training=True)[0])
    _, *saved = nn.switchable_norm(x, None, None, w, w, training=True, return_stats=True)
    bare = nn.switchable_norm_backward(dy, x, None, w, w, *saved, training=True)
    assert bare[1:3] == (None, None)
    assert_gradient(bare[0], nn.switchable_norm_backward(dy, x, one, w, w, *saved, training=True)[0])
    _, *saved = nn.ghost_batch_norm(x, virtual_batch_size=2, training=True, return_stats=True)
    assert nn.ghost_batch_norm_backward(dy, x, None, *saved, virtual_batch_size=2, training=True)[1:] == (None, None)
    with pytest.raises(ValueError, match=r"mean should have shape \(3, 4\), a row per virtual batch"):
        nn.ghost_batch_norm_backward(dy, x, None, *saved, virtual_batch_size=1, training=True)
    with pytest.raises(TypeError, match="take instance_norm_backward"):
        nn.conditional_instance_norm_backward(dy, x, None, LABELS, np.ones((3, 4)), np.ones((3, 4)))


@pytest.mark.parametrize("training", [True, False])
def test_layers_that_take_more_than_x(training, rng):
    x, style, dy = rng.standard_normal((3, *SHAPE))
    layer = nn.AdaptiveInstanceNorm().train(training)
    layer.requires_grad = True
    layer(x, style)
    both = layer.backward(dy)
    for gradient, of, value in zip(both, (lambda v: layer(v, style), lambda v: layer(x, v)), (x, style), strict=True):
        np.testing.assert_allclose(gradient, central_differences(of, value, dy), rtol=1e-6, atol=1e-7)
    assert layer.grad == {}
    layer(x, style, out=style)
    with pytest.raises(RuntimeError, match="overwritten"):
        layer.backward(dy)
    layer = nn.ConditionalInstanceNorm(4, 4, dtype="f8").train(training)
    layer.gamma[:], layer.beta[:] = rng.standard_normal((2, 4, 4))
    layer.requires_grad = True
    labels = LABELS.copy()
    twin = copy.deepcopy(layer)
    layer(x, labels)
    labels[:] = 1  # the layer remembers those of its call
    wanted = central_differences(lambda v: twin(v, LABELS), x, dy)
    np.testing.assert_allclose(layer.backward(dy), wanted, rtol=1e-6, atol=1e-7)
    assert list(layer.grad) == ["gamma", "beta"]
    assert not layer.grad["gamma"][[1, 3]].any()
    assert list(layer.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match=r"labels\[1\] is 4"):
        layer(x, [0, 4, 0])
    with pytest.raises(ValueError, match="gamma should contain"):
        layer(x[:, :3], LABELS)


def test_a_schedule_of_limits_and_a_cumulative_average(rng):
    x = rng.standard_normal((8, 3)) + 2
    layer = nn.BatchRenorm(3, r_max=1, d_max=0, momentum=None, dtype="f8")
    np.testing.assert_allclose(layer(x), nn.batch_norm(x, training=True), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, x.var(0), rtol=1e-12)
    layer.r_max = layer.d_max = 1e9
    again = copy.deepcopy(layer).eval()(x * 3)
    np.testing.assert_allclose(layer(x * 3), again, rtol=1e-9, atol=1e-9)
    ghost = nn.GhostBatchNorm(3, 4, momentum=None, dtype="f8")
    ghost(x)
    np.testing.assert_allclose(ghost.running_mean, x.mean(0), rtol=1e-12)
    assert ghost.num_batches_tracked == 2
    with pytest.raises(ValueError, match="r_max must be at least 1"):
        nn.BatchRenorm(3, r_max=0.5)
    with pytest.raises(ValueError, match="virtual_batch_size must be positive"):
        nn.GhostBatchNorm(3, 0)
