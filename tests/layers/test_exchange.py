"""State as Keras, flax and ONNX write it, on dictionaries written out by hand."""

import copy

import numpy as np
import pytest

import numbanorm as nn

SCALE, SHIFT, MEAN, VAR = np.array([[1, 2, 3], [4, 5, 6], [-1, 0, 1], [0.5, 1, 2]], "f4")
X = np.random.default_rng(0).standard_normal((6, 4, 3)).astype("f4")

#: format -> a dictionary as the framework's own batch norm writes it, and where its settings stand.
DICTIONARIES = {
    "keras": {
        "gamma": SCALE,
        "beta": SHIFT,
        "moving_mean": MEAN,
        "moving_variance": VAR,
        "config": {"momentum": 0.99, "epsilon": 1e-3},
    },
    "flax": {
        "params": {"scale": SCALE, "bias": SHIFT},
        "batch_stats": {"mean": MEAN, "var": VAR},
        "attributes": {"momentum": 0.99, "epsilon": 1e-3},
    },
    "onnx": {
        "scale": SCALE,
        "B": SHIFT,
        "input_mean": MEAN,
        "input_var": VAR,
        "attributes": {"momentum": 0.99, "epsilon": 1e-3},
    },
}
formats = pytest.mark.parametrize("name", DICTIONARIES)


def assert_equal_states(actual, expected):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_equal_states(actual[key], value)
        else:
            np.testing.assert_array_equal(actual[key], value)
            assert not np.shares_memory(np.asarray(actual[key]), np.asarray(value))


def load(layer, name, state):
    getattr(layer, f"load_{name}_state")(state)
    return layer


def written(layer, name):
    return getattr(layer, f"to_{name}_state")()


@formats
@pytest.mark.parametrize("convention", ["torch", "keep"])
def test_batch_norm_goes_on_as_over_there(name, convention):
    state = DICTIONARIES[name]
    layer = load(nn.BatchNorm(3, channel_axis=-1, momentum_convention=convention), name, state)
    assert_equal_states(written(layer, name), state)
    expected = (X - MEAN) / np.sqrt(VAR + 1e-3) * SCALE + SHIFT
    np.testing.assert_allclose(layer.eval()(X), expected, rtol=1e-5, atol=1e-5)
    layer.train()(X)
    wide = X.astype("f8")
    np.testing.assert_allclose(layer.running_mean, 0.99 * MEAN + 0.01 * wide.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.99 * VAR + 0.01 * wide.var((0, 1)), rtol=1e-5)


@formats
def test_a_layer_comes_back_as_it_was(name):
    for momentum in (0.1, 0.01, 0.003, 0.7, 0.0, 1.0):
        layer = nn.BatchNorm1d(3, momentum=momentum, eps=2e-5)
        layer(X.swapaxes(1, 2))
        twin = load(nn.BatchNorm1d(3), name, written(layer, name))
        assert (twin.momentum, twin.eps) == (momentum, 2e-5)
        for key in ("weight", "bias", "running_mean", "running_var"):
            np.testing.assert_array_equal(twin.state_dict()[key], layer.state_dict()[key])
        assert twin.biased


LAYERS = {
    "LayerNorm": (lambda: nn.LayerNorm((4, 3)), ["gamma", "beta"], ["scale", "bias"], ["Scale", "B"]),
    "LayerNorm, no beta": (lambda: nn.LayerNorm(3, bias=False), ["gamma"], ["scale"], ["Scale"]),
    "RMSNorm": (lambda: nn.RMSNorm(3), ["scale"], ["scale"], ["scale"]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), ["gamma", "beta"], ["scale", "bias"], ["scale", "bias"]),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4, affine=True), ["gamma", "beta"], ["scale", "bias"], ["scale", "B"]),
    "BatchNorm, no parameters": (
        lambda: nn.BatchNorm(4, affine=False),
        ["moving_mean", "moving_variance"],
        ["mean", "var"],
        ["input_mean", "input_var"],
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_names_of_other_layers(layer, rng):
    make, keras, flax, onnx = LAYERS[layer]
    layer = make()
    for parameter in layer.parameters():
        parameter[...] = rng.standard_normal(parameter.shape)
    layer(X)
    assert [key for key in layer.to_keras_state() if key != "config"] == keras
    groups = layer.to_flax_state()
    assert [key for group in ("params", "batch_stats") for key in groups.get(group, {})] == flax
    assert [key for key in layer.to_onnx_state() if key != "attributes"] == onnx
    for name in DICTIONARIES:
        twin = load(make(), name, written(layer, name))
        np.testing.assert_array_equal(twin.eval()(X), copy.deepcopy(layer).eval()(X))


def test_what_others_do_not_have_is_not_lost():
    with pytest.raises(TypeError, match="SwitchableNorm has no counterpart"):
        nn.SwitchableNorm(3).to_flax_state()


def test_keras_takes_the_weights_in_this_order():
    assert list(nn.BatchNorm(3).to_keras_state())[:4] == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_a_cumulative_average_has_no_momentum_to_write():
    layer = nn.BatchNorm(3, momentum=None)
    assert layer.to_onnx_state()["attributes"] == {"epsilon": 1e-5}
    layer.load_onnx_state(layer.to_onnx_state())
    assert layer.momentum is None


@formats
def test_a_state_that_does_not_fit_changes_nothing(name):
    layer = nn.BatchNorm(3)
    before = written(layer, name)
    good = DICTIONARIES[name]
    settings = "config" if name == "keras" else "attributes"
    first = next(iter(good))
    wrong = {"params": {"scale": np.ones(4), "bias": np.ones(3)}} if name == "flax" else {first: np.ones(4)}
    for state, error, text in (
        ({**good, "extra": SCALE}, KeyError, r"unexpected names \['extra'\]"),
        ({key: value for key, value in good.items() if key != first}, KeyError, "missing names"),
        ({**good, **wrong}, ValueError, "weight should have shape"),
        ({**good, settings: {"momentum": 99}}, ValueError, r"momentum must lie in \[0, 1\], but got 99"),
        ({**good, settings: {"epsilon": -1}}, ValueError, "eps must be non-negative"),
    ):
        with pytest.raises(error, match=text):
            load(layer, name, state)
        assert_equal_states(written(layer, name), before)
        assert not layer.biased
