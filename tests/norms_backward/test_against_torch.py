"""torch's autograd as a second oracle, where it is installed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests.norms_backward.checks import assert_gradient

torch = pytest.importorskip("torch")
functional = torch.nn.functional
dimension = st.sampled_from([1, 2, 3, 5, 8, 33])
dtypes = st.sampled_from(["float32", "float64"])


def operands(seed, dtype, shape, *parameters):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (shape, shape, *parameters)]
    return arrays, [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]


def assert_same(actual, y, dy, *leaves):
    y.backward(dy.detach())
    for ours, leaf in zip(actual, leaves, strict=True):
        # torch sums in float32, and small variances make large gradients.
        assert_gradient(ours, leaf.grad.numpy(), np.float64 if ours.dtype == "f8" else np.float32, 30)


@given(st.integers(0, 99), dtypes, dimension, dimension, dimension, st.booleans())
def test_layer_norm(seed, dtype, n, m, k, affine):
    shape, normalized = (n, m, k), (m, k)
    (dy, x, gamma, beta), (tdy, tx, tg, tb) = operands(seed, dtype, shape, normalized, normalized)
    options = {"axis": (1, 2), "eps": 0.1}
    if affine:
        _, *saved = nn.layer_norm(x, gamma, beta, return_stats=True, **options)
        actual = nn.layer_norm_backward(dy, x, gamma, *saved, axis=(1, 2))
        assert_same(actual, functional.layer_norm(tx, normalized, tg, tb, 0.1), tdy, tx, tg, tb)
    else:
        _, *saved = nn.layer_norm(x, return_stats=True, **options)
        actual = nn.layer_norm_backward(dy, x, None, *saved, axis=(1, 2))[:1]
        assert_same(actual, functional.layer_norm(tx, normalized, eps=0.1), tdy, tx)


@given(st.integers(0, 99), dtypes, dimension, dimension)
def test_rms_norm(seed, dtype, n, m):
    (dy, x, gamma), (tdy, tx, tg) = operands(seed, dtype, (n, m), (m,))
    _, *saved = nn.rms_norm(x, gamma, eps=0.1, return_stats=True)
    actual = nn.rms_norm_backward(dy, x, gamma, *saved)[:2]
    assert_same(actual, functional.rms_norm(tx, (m,), tg, 0.1), tdy, tx, tg)


@given(st.integers(0, 99), dtypes, st.integers(2, 9), dimension, dimension, st.booleans(), st.booleans())
def test_batch_norm(seed, dtype, n, c, s, training, last):
    (dy, x, gamma, beta), (tdy, tx, tg, tb) = operands(seed, dtype, (n, c, s), (c,), (c,))
    mean, var = np.full(c, 0.3, dtype), np.full(c, 2.0, dtype)
    expected = functional.batch_norm(
        tx, torch.from_numpy(mean.copy()), torch.from_numpy(var.copy()), tg, tb, training, eps=0.1
    )
    axis = -1 if last else 1
    x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, axis)) for a in (x, dy))
    options = {"training": training, "channel_axis": axis}
    _, *saved = nn.batch_norm(x, gamma, beta, mean, var, eps=0.1, return_stats=True, **options)
    dx, *rest = nn.batch_norm_backward(dy, x, gamma, *saved, **options)
    assert_same((np.moveaxis(dx, axis, 1), *rest), expected, tdy, tx, tg, tb)


@given(st.integers(0, 99), dtypes, st.integers(2, 4), st.sampled_from([1, 2, 3, 6]), dimension)
def test_group_norm(seed, dtype, n, groups, s):
    (dy, x, gamma, beta), (tdy, tx, tg, tb) = operands(seed, dtype, (n, 6, s), (6,), (6,))
    _, *saved = nn.group_norm(x, groups, gamma, beta, eps=0.1, return_stats=True)
    actual = nn.group_norm_backward(dy, x, groups, gamma, *saved)
    assert_same(actual, functional.group_norm(tx, groups, tg, tb, 0.1), tdy, tx, tg, tb)


@given(st.integers(0, 99), dtypes, st.integers(1, 4), dimension, st.integers(2, 40))
def test_instance_norm(seed, dtype, n, c, s):
    (dy, x, gamma, beta), (tdy, tx, tg, tb) = operands(seed, dtype, (n, c, s), (c,), (c,))
    _, *saved = nn.instance_norm(x, gamma, beta, eps=0.1, return_stats=True)
    actual = nn.instance_norm_backward(dy, x, gamma, *saved)
    assert_same(actual, functional.instance_norm(tx, weight=tg, bias=tb, eps=0.1), tdy, tx, tg, tb)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "InstanceNorm2d", "LayerNorm", "RMSNorm", "GroupNorm"])
def test_layers(name, training, rng):
    arguments, shape, options = {
        "BatchNorm1d": ((6,), (9, 6), {}),
        "BatchNorm2d": ((6,), (3, 6, 4, 4), {}),
        "InstanceNorm2d": ((6,), (3, 6, 4, 4), {"affine": True, "track_running_stats": True}),
        "LayerNorm": (((4, 5),), (3, 4, 5), {}),
        "RMSNorm": ((5, 1e-6), (3, 4, 5), {}),
        "GroupNorm": ((2, 6), (3, 6, 4, 4), {}),
    }[name]
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    ours.train(training), theirs.train(training)
    ours.requires_grad = True
    x, dy = rng.standard_normal((2, *shape)).astype("f4")
    t = torch.from_numpy(x.copy()).requires_grad_()
    ours(x)
    theirs(t).backward(torch.from_numpy(dy))
    assert_gradient(ours.backward(dy), t.grad.numpy())
    assert_gradient(ours.grad["gamma"], theirs.weight.grad.numpy())
    if "beta" in ours.grad:
        assert_gradient(ours.grad["beta"], theirs.bias.grad.numpy())
