import copy
import pickle

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.oracle import assert_normalized

F = np.float32


def test_batch_norm_trains_and_evaluates(backend, rng):
    layer = nn.BatchNorm2d(3)
    mean, var = np.zeros(3), np.ones(3)
    for step in range(4):
        x = (rng.standard_normal((5, 3, 4, 4)) * 2 + 7).astype(F)
        assert_normalized(layer(x), oracle.normalized(x, (0, 2, 3), 1e-5)[0])
        batch_mean, batch_var = oracle.mean_var(x, (0, 2, 3), ddof=1)
        mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
        assert layer.num_batches_tracked == step + 1
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-6)
    assert layer.eval() is layer
    assert not layer.training
    before = layer.state_dict()
    y = layer(x)
    expected = (x.astype("f8") - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert layer.train().training


def test_momentum_conventions_mirror_each_other(rng):
    x = rng.standard_normal((6, 3)).astype(F)
    torch_like, keras_like = nn.BatchNorm(3, momentum=0.1), nn.BatchNorm(3, momentum=0.9, momentum_convention="keep")
    for layer in (torch_like, keras_like):
        layer(x)
        layer(x + 1)
    np.testing.assert_allclose(torch_like.running_mean, keras_like.running_mean, rtol=1e-6)
    np.testing.assert_allclose(torch_like.running_var, keras_like.running_var, rtol=1e-6)


def test_biased_running_variance(rng):
    x = rng.standard_normal((6, 3)).astype(F)
    layer = nn.BatchNorm(3, momentum=1.0, running_var="biased")
    layer(x)
    np.testing.assert_allclose(layer.running_var, x.astype("f8").var(0), rtol=1e-6)


def test_without_running_statistics_evaluation_uses_the_batch(rng):
    x = rng.standard_normal((6, 3, 4)).astype(F)
    layer = nn.BatchNorm1d(3, track_running_stats=False)
    assert layer.running_mean is layer.running_var is layer.num_batches_tracked is None
    np.testing.assert_array_equal(layer(x), layer.eval()(x))
    assert list(layer.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match="needs running statistics"):
        layer.folded()


def test_channels_last(rng):
    x = rng.standard_normal((6, 4, 5, 3)).astype(F)
    layer, first = nn.BatchNorm(3, channel_axis=-1), nn.BatchNorm2d(3)
    np.testing.assert_allclose(layer(x), first(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(layer.running_var, first.running_var, rtol=1e-6)


@pytest.mark.parametrize("mode", ["raise", "warn", "running", "zero"])
def test_one_value_per_channel(mode):
    layer = nn.BatchNorm1d(3, on_degenerate=mode)
    layer.beta[:] = [1, 2, 3]
    layer.running_mean[:] = 5
    state = layer.state_dict()
    x = np.array([[5, 6, 7]], F)
    if mode == "raise":
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            layer(x)
    elif mode == "warn":
        with pytest.warns(RuntimeWarning, match="Expected more than 1 value per channel"):
            np.testing.assert_array_equal(layer(x), [[1, 2, 3]])
    elif mode == "zero":
        np.testing.assert_array_equal(layer(x[:, :, None]), [[[1], [2], [3]]])
    else:
        np.testing.assert_allclose(layer(x), [[1, 3, 5]], atol=1e-4)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_running_mode_needs_running_statistics():
    with pytest.raises(ValueError, match="needs track_running_stats=True"):
        nn.BatchNorm1d(3, on_degenerate="running", track_running_stats=False)(np.ones((1, 3), F))


def test_instance_norm_tracks_the_mean_over_samples():
    layer = nn.InstanceNorm1d(1, track_running_stats=True)
    layer(np.array([[[1, 3]], [[2, 6]]], F))
    np.testing.assert_allclose(layer.running_var, [1.4], rtol=1e-6)
    np.testing.assert_allclose(layer.running_mean, [0.3], rtol=1e-6)
    assert layer.num_batches_tracked == 1
    y = layer.eval()(np.array([[[1, 3]]], F))
    np.testing.assert_allclose(y, (np.array([[[1, 3]]]) - 0.3) / np.sqrt(1.4 + 1e-5), rtol=1e-6)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("track", [False, True])
def test_instance_norm_takes_a_sample_without_a_batch_axis(track, rng):
    x = rng.standard_normal((3, 4, 5)).astype(F)
    layers = [nn.InstanceNorm2d(3, affine=True, track_running_stats=track) for _ in range(2)]
    np.testing.assert_array_equal(layers[0](x), layers[1](x[None])[0])
    out = np.empty_like(x)
    assert layers[0](x, out=out) is out
    np.testing.assert_array_equal(out, layers[1](x[None])[0])


def test_trailing_layers(rng):
    x = rng.standard_normal((2, 3, 4)).astype(F)
    layer = nn.LayerNorm((3, 4))
    layer.gamma[:], layer.beta[:] = rng.standard_normal((2, 3, 4))
    np.testing.assert_array_equal(layer(x), nn.layer_norm(x, layer.gamma, layer.beta, axis=(1, 2)))
    assert nn.LayerNorm(4, bias=False).beta is None
    assert nn.LayerNorm(4, elementwise_affine=False).parameters() == []
    rms = nn.RMSNorm([4])
    np.testing.assert_array_equal(rms(x), nn.rms_norm(x, rms.gamma))
    assert nn.RMSNorm(4, elementwise_affine=False).num_parameters() == 0
    with pytest.raises(ValueError, match="positive lengths"):
        nn.LayerNorm(())


def test_group_layer(rng):
    x = rng.standard_normal((2, 6, 4)).astype(F)
    np.testing.assert_array_equal(nn.GroupNorm(3, 6)(x), nn.group_norm(x, 3))
    assert nn.GroupNorm(3, 6, affine=False).num_parameters() == 0
    with pytest.raises(ValueError, match="gamma should contain 6 elements not 9"):
        nn.GroupNorm(3, 9)(x)


LAYERS = [
    nn.BatchNorm1d(4),
    nn.BatchNorm(4, affine=False),
    nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    nn.LayerNorm((4, 5)),
    nn.RMSNorm(5),
    nn.GroupNorm(2, 4),
    nn.BatchRenorm(4),
    nn.GhostBatchNorm(4, 2),
    nn.SwitchableNorm(4),
    nn.LocalResponseNorm(3),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_state_passes_through_a_dictionary_and_pickle(layer, rng):
    layer = copy.deepcopy(layer)
    layer(rng.standard_normal((3, 4, 5)).astype(F))
    for parameter in layer.parameters():
        parameter[...] = rng.standard_normal(parameter.shape)
    state = layer.state_dict()
    keys = ("weight", "bias", "mean_weight", "var_weight", "running_mean", "running_var", "num_batches_tracked")
    assert list(state) == [key for key in keys if key in state]
    twin = pickle.loads(pickle.dumps(layer))
    for array in state.values():
        array[...] = 0
    fresh = copy.deepcopy(layer)
    fresh.load_state_dict(state)
    assert all(not array.any() for array in fresh.state_dict().values())
    fresh.load_state_dict(layer.state_dict())
    x = rng.standard_normal((3, 4, 5)).astype(F)
    for other in (twin, fresh):
        np.testing.assert_array_equal(other.eval()(x), copy.deepcopy(layer).eval()(x))


def test_a_state_that_does_not_fit_changes_nothing():
    layer = nn.BatchNorm1d(3)
    good = layer.state_dict()
    bad = [
        ({**good, "weight": np.zeros(4)}, ValueError, "weight should have shape"),
        ({**good, "extra": np.zeros(4)}, KeyError, "unexpected keys"),
        ({key: value for key, value in good.items() if key != "bias"}, KeyError, "missing keys"),
        ({**good, "weight": np.zeros(3), "running_var": np.array(["a"] * 3)}, TypeError, "running_var should be real"),
        ({**good, "num_batches_tracked": np.zeros(1, int)}, ValueError, "num_batches_tracked should have shape"),
        ({**good, "weight": np.zeros(3), "num_batches_tracked": 2.7}, ValueError, "should be a whole number"),
        ({**good, "weight": np.zeros(3), "num_batches_tracked": np.nan}, ValueError, "should be a whole number"),
    ]
    for state, error, text in bad:
        with pytest.raises(error, match=text):
            layer.load_state_dict(state)
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, good[key])


def test_a_failed_call_leaves_the_state_alone():
    layer = nn.BatchNorm1d(3)
    before = layer.state_dict()
    for x, error in ((np.ones((2, 4), F), ValueError), (np.ones((2, 3), int), TypeError), (np.ones(3, F), ValueError)):
        with pytest.raises(error):
            layer(x)
    with pytest.raises(ValueError, match="out should have shape"):
        layer(np.ones((2, 3), F), out=np.empty((3, 3), F))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize(
    ("weight_shape", "axis", "bias"),
    [((4, 7), 0, True), ((4, 3, 2, 2), 0, False), ((7, 4), -1, True), ((2, 2, 3, 4), -1, False)],
)
def test_folding_into_the_layer_before(weight_shape, axis, bias, rng):
    bn = nn.BatchNorm(4)
    bn.running_mean[:], bn.gamma[:], bn.beta[:] = rng.standard_normal((3, 4))
    bn.running_var[:] = rng.random(4) + 0.5
    bn.eval()
    weight, offset = rng.standard_normal(weight_shape), rng.standard_normal(4) if bias else None
    new_weight, new_bias = nn.fold_batch_norm(weight, offset, bn, channel_axis=axis)
    inputs = rng.standard_normal((9, weight.size // 4))
    flat, new_flat = (np.moveaxis(w, axis, 0).reshape(4, -1) for w in (weight, new_weight))
    expected = bn(inputs @ flat.T + (0 if offset is None else offset))
    np.testing.assert_allclose(inputs @ new_flat.T + new_bias, expected, atol=1e-5)
    for bad_weight, bad_bias in ((np.ones((5, 2)), None), (np.ones((4, 2)), np.ones(5))):
        with pytest.raises(ValueError, match="should contain 4 elements not 5"):
            nn.fold_batch_norm(bad_weight, bad_bias, bn)


def test_folding_is_rounded_once(rng):
    bn = nn.BatchNorm(3)
    bn.running_mean[:], bn.running_var[:] = 1e4, rng.random(3) + 0.5
    weight = rng.standard_normal((3, 5))
    new_weight, new_bias = nn.fold_batch_norm(weight, None, bn)
    scale = 1 / np.sqrt(bn.running_var.astype("f8") + 1e-5)
    np.testing.assert_allclose(new_weight, weight * scale[:, None], rtol=1e-15)
    np.testing.assert_allclose(new_bias, -1e4 * scale, rtol=1e-15)
    with pytest.raises(TypeError, match="weight has dtype int64"):
        nn.fold_batch_norm(np.ones((3, 2), int), None, bn)


def test_folding_without_parameters():
    scale, shift = nn.BatchNorm(2, affine=False, eps=0).folded()
    np.testing.assert_array_equal(scale, [1, 1])
    np.testing.assert_array_equal(shift, [0, 0])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.BatchNorm(3, momentum=2), ValueError, r"momentum must lie in \[0, 1\]"),
        (lambda: nn.BatchNorm(3, momentum_convention="tf"), ValueError, "momentum_convention must be one of"),
        (lambda: nn.BatchNorm(3, running_var="x"), ValueError, "running_var must be one of"),
        (lambda: nn.BatchNorm(3, on_degenerate="x"), ValueError, "on_degenerate must be one of"),
        (lambda: nn.BatchNorm(3, eps=-1), ValueError, "BatchNorm eps must be non-negative"),
        (lambda: nn.LayerNorm(3, dtype=int), TypeError, "dtype must be a floating-point dtype"),
        (lambda: nn.LayerNorm(3, device="tpu"), ValueError, "device must be 'cpu' or 'cuda'"),
    ],
)
def test_options_are_checked_when_the_layer_is_made(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_layers_move_where_they_can():
    layer = nn.LayerNorm(3)
    assert layer.to("cpu") is layer
    with pytest.raises(RuntimeError, match="the cuda backend cannot run"):
        layer.to("cuda")
    assert layer.device == "cpu"


def test_float64_layers(rng):
    layer = nn.BatchNorm1d(3, dtype=np.float64)
    x = rng.standard_normal((50, 3)) + 1e6
    layer(x)
    assert layer.running_var.dtype == np.float64
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-9)
