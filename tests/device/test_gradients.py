"""Gradients of device arrays: through stand-ins for launchers, through the real ones emulated, or on a device."""

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.norms_backward.checks import assert_gradient
from tests.oracle import as_dtype

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


@pytest.mark.parametrize("axis", [-1, (1, 2, 3), 1])
@pytest.mark.parametrize("affine", [True, False])
def test_from_y_as_from_x(place, axis, affine):
    host = RNG.uniform(0.5, 2, X.shape[1:] if isinstance(axis, tuple) else X.shape[axis]).astype("f4")
    host.reshape(-1)[::2] *= -1
    gamma, beta = (place.array(host), place.array(host * 2)) if affine else (None, None)
    x, dy = place.array(X), place.array(DY)
    y, mean, rstd = nn.layer_norm(x, gamma, beta, axis=axis, return_stats=True)
    expected = nn.layer_norm_backward(dy, x, gamma, mean, rstd, axis=axis)
    actual = nn.layer_norm_backward(dy, y, gamma, None, rstd, axis=axis, beta=beta, recompute=True)
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs is not None:
            assert_gradient(place.numpy(ours), place.numpy(theirs).astype("f8"))
    y, _, rstd = nn.rms_norm(x, gamma, axis=axis, return_stats=True)
    expected = nn.rms_norm_backward(dy, x, gamma, None, rstd, axis=axis)[0]
    actual = nn.rms_norm_backward(dy, y, gamma, None, rstd, axis=axis, recompute=True)[0]
    assert_gradient(place.numpy(actual), place.numpy(expected).astype("f8"))


DENSE = {
    "layer": (nn.layer_norm, nn.layer_norm_backward, 5, {}, ["norm_rows_backward"]),
    "rms": (nn.rms_norm, nn.rms_norm_backward, 5, {}, ["norm_rows_backward"]),
    "batch": (nn.batch_norm, nn.batch_norm_backward, 4, {"training": True}, ["norm_channels_backward"]),
    "instance": (nn.instance_norm, nn.instance_norm_backward, 4, {}, ["norm_groups_backward"]),
}


@pytest.mark.parametrize(("forward", "backward", "n", "options", "launches"), DENSE.values(), ids=DENSE)
def test_dense_operands_meet_nothing_but_launchers(place, forward, backward, n, options, launches):
    """No copy, fill or cast of CuPy's on the way, each of which would be a launch."""
    if place.name != "stand-in":
        pytest.skip("counts what stands in for a device")
    from tests.device import stand_in

    x, dy, gamma = map(place.array, (X, DY, GAMMA[:1].repeat(n)))
    _, *statistics = forward(x, return_stats=True, gamma=gamma, **options)
    backward(dy, x, gamma, *statistics, **options)  # the first call makes constants
    place.device.calls.clear()
    stand_in.launches.clear()
    backward(dy, x, gamma, *statistics, **options)
    assert place.device.calls == []
    assert stand_in.launches == launches


def test_group_norm_meets_nothing_but_launchers(place):
    """With statistics per group; those that a forward repeats for each channel are gathered first."""
    if place.name != "stand-in":
        pytest.skip("counts what stands in for a device")
    from tests.device import stand_in

    x, dy, gamma = map(place.array, (X, DY, GAMMA))
    mean, rstd = map(place.array, (np.zeros((3, 2), "f4"), np.ones((3, 2), "f4")))
    nn.group_norm_backward(dy, x, 2, gamma, mean, rstd)
    place.device.calls.clear()
    stand_in.launches.clear()
    nn.group_norm_backward(dy, x, 2, gamma, mean, rstd)
    assert place.device.calls == []
    assert stand_in.launches == ["norm_groups_backward"]


@pytest.mark.compiled
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_emulated(emulated, norm):
    """The real launchers, both layouts, far from zero, in every dtype."""
    forward, backward, gamma, options = norm
    for dtype in oracle.FLOATS:
        x, dy = (
            as_dtype(X + (1e4 if dtype == "float32" and forward is not nn.rms_norm else 1), dtype),
            as_dtype(DY, dtype),
        )
        for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
            back = np.argsort(order)
            values, slopes = (np.ascontiguousarray(a.transpose(order)).transpose(back) for a in (x, dy))
            operands = [emulated.array(a) for a in (slopes, values, gamma)]
            _, *statistics = forward(operands[1], return_stats=True, gamma=operands[2], **options)
            actual = backward(*operands, *statistics, **options)
            with nn.use_backend("reference"):
                wide = dy.astype("f8"), x.astype("f8"), gamma.astype("f8")
                _, *exact = forward(wide[1], return_stats=True, gamma=wide[2], **options)
                expected = backward(*wide, *exact, **options)
            for ours, theirs in zip(actual, expected, strict=True):
                if theirs is not None:
                    assert_gradient(emulated.numpy(ours), theirs)


@pytest.mark.compiled
def test_emulated_groups_and_layers(emulated):
    x, dy, gamma = map(emulated.array, (X, DY, GAMMA))
    _, *statistics = nn.group_norm(x, 2, gamma, return_stats=True)
    _, *host = nn.group_norm(X, 2, GAMMA, return_stats=True)
    expected = nn.group_norm_backward(DY, X, 2, GAMMA, *host)
    for ours, theirs in zip(nn.group_norm_backward(dy, x, 2, gamma, *statistics), expected, strict=True):
        assert_gradient(emulated.numpy(ours), theirs.astype("f8"))
    for training in (True, False):
        host, layer = nn.BatchNorm2d(4).train(training), nn.BatchNorm2d(4, device="cuda").train(training)
        host.requires_grad = layer.requires_grad = True
        host(X), layer(x)
        assert_gradient(emulated.numpy(layer.backward(dy)), host.backward(DY).astype("f8"))
        for name, gradient in layer.grad.items():
            assert_gradient(emulated.numpy(gradient), host.grad[name].astype("f8"))
