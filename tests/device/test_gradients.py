"""Gradients of device arrays, through a stand-in for launchers that a backend may not have yet."""

import numpy as np
import pytest

import numbanorm as nn
from tests.norms_backward.checks import assert_gradient

RNG = np.random.default_rng(5)
X, DY = RNG.standard_normal((2, 3, 4, 2, 5)).astype("f4")
GAMMA = RNG.standard_normal(4).astype("f4")

NORMS = {
    "layer": (nn.layer_norm, nn.layer_norm_backward, RNG.standard_normal(5).astype("f4"), {}),
    "layer, channels first": (nn.layer_norm, nn.layer_norm_backward, GAMMA, {"axis": 1}),
    "rms": (nn.rms_norm, nn.rms_norm_backward, RNG.standard_normal(5).astype("f4"), {}),
    "batch": (nn.batch_norm, nn.batch_norm_backward, GAMMA, {"training": True}),
    "instance": (nn.instance_norm, nn.instance_norm_backward, GAMMA, {}),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_both_places_agree(place, norm):
    forward, backward, gamma, options = norm
    operands = {"gamma": gamma, **options}
    _, *statistics = forward(X, return_stats=True, **operands)
    expected = backward(DY, X, gamma, *statistics, **options)
    for order in ("C", "F"):
        x, dy = (place.array(np.asarray(a, order=order)) for a in (X, DY))
        _, *statistics = forward(x, return_stats=True, gamma=place.array(gamma), **options)
        actual = backward(dy, x, place.array(gamma), *statistics, **options)
        for ours, theirs in zip(actual, expected, strict=True):
            if theirs is not None:
                assert_gradient(place.numpy(ours), theirs.astype("f8"))


def test_group_norm_and_standardize(place):
    x, dy, gamma = map(place.array, (X, DY, GAMMA))
    _, *host = nn.group_norm(X, 2, GAMMA, return_stats=True)
    _, *device = nn.group_norm(x, 2, gamma, return_stats=True)
    actual = nn.group_norm_backward(dy, x, 2, gamma, *device)
    for ours, theirs in zip(actual, nn.group_norm_backward(DY, X, 2, GAMMA, *host), strict=True):
        assert_gradient(place.numpy(ours), theirs.astype("f8"))
    ours = nn.standardize_backward(dy, x, axis=(0, 2))[0]
    assert_gradient(place.numpy(ours), nn.standardize_backward(DY, X, axis=(0, 2))[0].astype("f8"))


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: nn.BatchNorm2d(4, **k),
        lambda **k: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **k),
        lambda **k: nn.GroupNorm(2, 4, **k),
        lambda **k: nn.LayerNorm((2, 5), **k),
        lambda **k: nn.RMSNorm(5, **k),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_layers(place, make, training):
    host, layer = make().train(training), make(device="cuda").train(training)
    host.requires_grad = layer.requires_grad = True
    host(X), layer(place.array(X))
    assert_gradient(place.numpy(layer.backward(place.array(DY))), host.backward(DY).astype("f8"))
    assert list(layer.grad) == list(host.grad)
    for name, gradient in layer.grad.items():
        assert_gradient(place.numpy(gradient), host.grad[name].astype("f8"))


def test_from_y_is_the_hosts(place):
    x, dy = place.array(X), place.array(DY)
    y, _, rstd = nn.rms_norm(x, return_stats=True)
    with pytest.raises(NotImplementedError, match="gradients from x only"):
        nn.rms_norm_backward(dy, y, None, None, rstd, recompute=True)
