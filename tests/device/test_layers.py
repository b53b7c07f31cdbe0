"""Layers that move between the host and a device."""

import copy

import numpy as np
import pytest

import numbanorm as nn
from tests.oracle import assert_normalized

LAYERS = {
    "BatchNorm2d": lambda **k: nn.BatchNorm2d(4, **k),
    "BatchNorm": lambda **k: nn.BatchNorm(5, -1, momentum=None, **k),
    "InstanceNorm2d": lambda **k: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **k),
    "GroupNorm": lambda **k: nn.GroupNorm(2, 4, **k),
    "LayerNorm": lambda **k: nn.LayerNorm((3, 5), **k),
    "RMSNorm": lambda **k: nn.RMSNorm(5, **k),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
X = np.random.default_rng(7).standard_normal((2, 4, 3, 5)).astype("f4") * 3 + 2


def is_there(layer):
    arrays = [layer.gamma, layer.beta, layer.running_mean, layer.running_var]
    return {type(array).__module__.partition(".")[0] for array in arrays if array is not None}


@each_layer
def test_both_places_agree(place, make):
    host, layer = make(), make().to("cuda")
    assert layer.device == "cuda"
    assert is_there(layer) == {"cupy"}
    for mode in (True, True, False):
        host.train(mode), layer.train(mode)
        assert_normalized(place.numpy(layer(place.array(X))), host(X).astype("f8"))
    for key, value in layer.state_dict().items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_allclose(value, host.state_dict()[key], rtol=1e-5, err_msg=key)
    back = layer.to("cpu")
    assert back is layer
    assert is_there(layer) == {"numpy"}
    assert_normalized(layer(X), host(X).astype("f8"))


@each_layer
def test_made_on_the_device(place, make):
    layer = make(device="cuda")
    assert is_there(layer) == {"cupy"}
    state = make().state_dict()
    layer(place.array(X))
    layer.load_state_dict(state)
    assert is_there(layer) == {"cupy"}
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[key])
    twin = copy.deepcopy(make())
    twin.load_state_dict({key: place.array(np.asarray(value)) for key, value in state.items()})
    assert is_there(twin) == {"numpy"}


@each_layer
def test_out_on_the_device(place, make):
    x = place.array(X)
    layer = make(device="cuda")
    assert layer(x, out=x) is x
    assert_normalized(place.numpy(x), make()(X).astype("f8"))


@each_layer
def test_in_the_wrong_place(place, make):
    host, layer = make(), make(device="cuda")
    with pytest.raises(TypeError, match=r"x \(cupy.ndarray\) is on the device, gamma \(numpy.ndarray\) is on the host"):
        host(place.array(X))
    with pytest.raises(TypeError, match=r"x \(numpy.ndarray\) is on the host, gamma \(cupy.ndarray\) is on the device"):
        layer(X)


def test_the_count_of_batches_stays_on_the_host(place):
    layer = nn.BatchNorm2d(4, device="cuda")
    layer(place.array(X))
    assert isinstance(layer.num_batches_tracked, np.ndarray)
    assert layer.num_batches_tracked == 1
    layer.reset_running_stats()
    assert is_there(layer) == {"cupy"}


@pytest.mark.parametrize("mode", ["zero", "running"])
def test_one_value_per_channel(place, mode):
    x = np.array([[3, 1, 4, 1]], "f4")
    host = nn.BatchNorm(4, on_degenerate=mode)
    layer = nn.BatchNorm(4, on_degenerate=mode, device="cuda")
    np.testing.assert_array_equal(place.numpy(layer(place.array(x))), host(x))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        nn.BatchNorm(4, device="cuda")(place.array(x))


def test_folding(place, rng):
    host, layer = nn.BatchNorm(4), nn.BatchNorm(4, device="cuda")
    host(X), layer(place.array(X))
    for actual, expected in zip(place.numpy(layer.folded()), host.folded(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    weight, bias = rng.standard_normal((4, 3)).astype("f4"), rng.standard_normal(4).astype("f4")
    expected = nn.fold_batch_norm(weight, bias, host)
    folded = nn.fold_batch_norm(place.array(weight), place.array(bias), layer)
    for actual, wanted in zip(place.numpy(folded), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_devices_by_number(place):
    layer = nn.LayerNorm(5).to(0)
    assert layer.device == 0
    assert is_there(layer) == {"cupy"}
    layer(place.array(X))
    for wrong in (-1, True, "gpu"):
        with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda'"):
            layer.to(wrong)
    assert layer.device == 0
