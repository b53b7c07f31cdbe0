"""Layers of the newer norms on device arrays: calls, gradients and running statistics are the host's."""

import numpy as np
import pytest

import numbanorm as nn
from tests.norms_backward.checks import assert_gradient
from tests.oracle import assert_normalized

SHAPE = (4, 3, 5, 2)

#: name -> (layer, what a call takes beside x)
LAYERS = {
    "AdaptiveInstanceNorm": (nn.AdaptiveInstanceNorm, "style"),
    "ConditionalInstanceNorm": (lambda: nn.ConditionalInstanceNorm(6, 3), "labels"),
    "ConditionalInstanceNorm, channels first of all": (
        lambda: nn.ConditionalInstanceNorm(6, 4, channel_axis=0),
        "labels",
    ),
    "SwitchableNorm": (lambda: nn.SwitchableNorm(3), None),
    "SwitchableNorm, channels last": (lambda: nn.SwitchableNorm(2, channel_axis=-1, affine=False), None),
    "BatchRenorm": (lambda: nn.BatchRenorm(3, r_max=1.1, d_max=0.2), None),
    "GhostBatchNorm": (lambda: nn.GhostBatchNorm(3, 2), None),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3, alpha=2.0), None),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_layers_are_the_same_everywhere(place, name, training, rng):
    make, other = LAYERS[name]
    x, style, dy = rng.standard_normal((3, *SHAPE)).astype("f4")
    layers = make().train(training), make().train(training)
    labels = np.arange(SHAPE[1] if layers[0].__dict__.get("channel_axis") == 0 else SHAPE[0]) % 3
    beside = {"style": style, "labels": labels, None: None}[other]
    states = [layers[0].state_dict()]
    for key, value in states[0].items():
        if value.ndim:
            states[0][key] = (rng.random(value.shape) + 0.5).astype("f4")
    for layer in layers:
        layer.load_state_dict(states[0])
        layer.requires_grad = True
    host, device = layers[0], layers[1].to("cuda")
    given = () if beside is None else (beside,)
    expected = host(x, *given)
    on_device = tuple(place.array(a) if other == "style" else a for a in given)
    assert_normalized(place.numpy(device(place.array(x), *on_device)), expected.astype("f8"))
    for key, value in host.state_dict().items():
        np.testing.assert_allclose(device.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    wanted, actual = host.backward(dy), device.backward(place.array(dy))
    if not isinstance(wanted, tuple):
        wanted, actual = (wanted,), (actual,)
    for ours, theirs in zip(place.numpy(actual), wanted, strict=True):
        assert_gradient(ours, theirs.astype("f8"))
    assert host.grad.keys() == device.grad.keys()
    for key, gradient in host.grad.items():
        assert_gradient(place.numpy(device.grad[key]), gradient.astype("f8"), scale=10)
