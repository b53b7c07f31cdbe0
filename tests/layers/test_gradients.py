"""Layers take gradients: of the last call, once, with nothing kept beyond x and its statistics."""

import copy
import pickle
import weakref

import numpy as np
import pytest

import numbanorm as nn
from tests.norms_backward.checks import assert_gradient, central_differences
from tests.oracle import as_dtype

D = np.float64
LAYERS = {
    "BatchNorm2d": lambda **k: nn.BatchNorm2d(4, **k),
    "BatchNorm, channels last": lambda **k: nn.BatchNorm(5, -1, **k),
    "BatchNorm2d, not tracking": lambda **k: nn.BatchNorm2d(4, track_running_stats=False, **k),
    "BatchNorm2d, no parameters": lambda **k: nn.BatchNorm2d(4, affine=False, **k),
    "InstanceNorm2d": lambda **k: nn.InstanceNorm2d(4, affine=True, **k),
    "InstanceNorm2d, tracking": lambda **k: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **k),
    "GroupNorm": lambda **k: nn.GroupNorm(2, 4, **k),
    "GroupNorm, channels first of all": lambda **k: nn.GroupNorm(2, 2, channel_axis=0, **k),
    "LayerNorm": lambda **k: nn.LayerNorm((3, 5), **k),
    "LayerNorm, no beta": lambda **k: nn.LayerNorm(5, bias=False, **k),
    "RMSNorm": lambda **k: nn.RMSNorm(5, **k),
    "BatchRenorm": lambda **k: nn.BatchRenorm(4, r_max=1, d_max=0, **k),
    "GhostBatchNorm": lambda **k: nn.GhostBatchNorm(4, 1, **k),
    "SwitchableNorm": lambda **k: nn.SwitchableNorm(4, **k),
    "SwitchableNorm, channels last": lambda **k: nn.SwitchableNorm(5, affine=False, channel_axis=-1, **k),
    "LocalResponseNorm": lambda **k: nn.LocalResponseNorm(3, alpha=2.0, **k),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
SHAPE = (2, 4, 3, 5)


def made(make, rng, **options):
    layer = make(**options)
    for array in (*layer.parameters(), layer.running_mean, layer.running_var):
        if array is not None:
            array[...] = rng.random(array.shape) + 0.5
    return layer


@each_layer
@pytest.mark.parametrize("training", [True, False])
def test_central_differences(make, training, backend, rng):
    layer = made(make, rng, dtype=D).train(training)
    layer.requires_grad = True
    x, dy = rng.standard_normal((2, *SHAPE))
    twin = copy.deepcopy(layer)
    layer(x)
    out = np.full_like(x, np.nan)
    assert layer.backward(dy, out=out) is out
    parameters = {name: getattr(twin, name) for name in twin._learnt if getattr(twin, name) is not None}
    assert list(layer.grad) == list(parameters)

    def of(name, value):
        changed = copy.deepcopy(twin)
        setattr(changed, name, value)
        return changed(x)

    wanted = central_differences(lambda value: copy.deepcopy(twin)(value), x, dy)
    np.testing.assert_allclose(out, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())
    for name, parameter in parameters.items():
        wanted = central_differences(lambda value, name=name: of(name, value), parameter, dy)
        assert layer.grad[name].dtype == D
        np.testing.assert_allclose(layer.grad[name], wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())


@each_layer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(make, dtype, rng):
    x, dy = as_dtype(rng.standard_normal((2, *SHAPE)), dtype)
    layer, exact = (made(make, np.random.default_rng(0), dtype=d) for d in ("float32", "float64"))
    layer(x), exact(x.astype(D))
    dx, wanted = layer.backward(dy), exact.backward(dy.astype(D))
    assert dx.dtype == x.dtype
    assert_gradient(dx, wanted)
    for name, gradient in layer.grad.items():
        assert gradient.dtype == np.float32
        assert_gradient(gradient, exact.grad[name])


@each_layer
def test_one_backward_per_call(make, rng):
    layer = make()
    x, dy = rng.standard_normal((2, *SHAPE)).astype("f4")
    with pytest.raises(RuntimeError, match="needs a call of the layer first, in training"):
        layer.backward(dy)
    layer(x)
    with pytest.raises(ValueError, match="dy should have x's shape"):
        layer.backward(dy[:1])
    first = layer.backward(dy)
    with pytest.raises(RuntimeError, match="was called already"):
        layer.backward(dy)
    layer(x)
    np.testing.assert_array_equal(layer.backward(dy), first)
    layer(x.copy(), out=(y := np.empty_like(x)))
    layer.backward(dy, out=y)
    layer(y, out=y)
    with pytest.raises(RuntimeError, match="overwritten"):
        layer.backward(dy)
    layer.eval()(x)
    with pytest.raises(RuntimeError, match="in evaluation only calls with requires_grad = True"):
        layer.backward(dy)
    layer.train().requires_grad = False
    layer(x)
    with pytest.raises(RuntimeError, match="needs a call"):
        layer.backward(dy)


class Watched(np.ndarray):
    """An array that can be watched for its end."""


@each_layer
def test_what_is_kept(make, rng):
    layer = make()
    x = rng.standard_normal(SHAPE).astype("f4").view(Watched)
    watch = weakref.ref(x)
    layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(RuntimeError, match="needs a call"):
            other.backward(x)
    layer.backward(np.ones(SHAPE, "f4"))
    del x
    assert watch() is None


#: Sets that share a mean and rstd in an x of SHAPE.
SETS = {
    "BatchNorm, channels last": 5,
    "InstanceNorm2d": 8,
    "InstanceNorm2d, tracking": 8,
    "GroupNorm, channels first of all": 8,
    "LayerNorm": 8,
    "LayerNorm, no beta": 24,
    "RMSNorm": 24,
    "GhostBatchNorm": 8,
    "SwitchableNorm": 8,
    "SwitchableNorm, channels last": 10,
    "LocalResponseNorm": 120,  # it has no statistics, and keeps x in their place
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_mean_and_rstd_per_set(name, rng):
    layer = LAYERS[name]()
    x = rng.standard_normal(SHAPE).astype("f4")
    layer(x)
    kept = layer._kept
    assert kept.x is x or np.shares_memory(kept.x, x)
    assert kept.mean.size == kept.rstd.size == SETS.get(name, 4)
    for statistic in (kept.mean, kept.rstd):
        assert statistic.base is None or statistic.base.size <= 2 * statistic.size  # no view of more


@pytest.mark.parametrize("mode", ["warn", "running", "zero"])
@pytest.mark.filterwarnings("ignore:Expected more than 1 value")
def test_one_value_per_channel(mode, rng):
    layer = nn.BatchNorm1d(3, on_degenerate=mode, dtype=D)
    x, dy = rng.standard_normal((2, 1, 3))
    twin = copy.deepcopy(layer)
    layer(x)
    np.testing.assert_allclose(layer.backward(dy), central_differences(twin, x, dy), atol=1e-8)
    np.testing.assert_array_equal(layer.grad["beta"], dy[0])
    np.testing.assert_allclose(layer.grad["gamma"], dy[0] * twin(x)[0], atol=1e-12)


@pytest.mark.parametrize("track", [False, True])
def test_instance_norm_without_a_batch_axis(track, rng):
    x, dy = rng.standard_normal((2, 3, 4, 5)).astype("f4")
    layers = [nn.InstanceNorm2d(3, affine=True, track_running_stats=track) for _ in range(2)]
    layers[0](x), layers[1](x[None])
    out = np.empty_like(x)
    assert layers[0].backward(dy, out=out) is out
    np.testing.assert_array_equal(out, layers[1].backward(dy[None])[0])
    layers[0](x)
    np.testing.assert_array_equal(layers[0].backward(dy), out)


def test_state_and_device_are_left_alone(rng):
    layer = nn.BatchNorm1d(3)
    layer(rng.standard_normal((5, 3)).astype("f4"))
    before = layer.state_dict()
    layer.backward(np.ones((5, 3), "f4"))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("make", [lambda **k: nn.LayerNorm((4, 5), **k), lambda **k: nn.RMSNorm(5, **k)])
def test_layers_that_keep_y(make, backend, rng):
    """The same gradient, while x may be overwritten; y is kept, not a copy."""
    x, dy = rng.standard_normal((2, 3, 4, 5)).astype("f4")
    first, second = make(), make(keep="y")
    for layer in (first, second):
        layer.gamma[...] = np.linspace(0.5, 2, layer.gamma.size).reshape(layer.gamma.shape)
        if layer.beta is not None:
            layer.beta[...] = 1.5
    first(x)
    wanted = first.backward(dy)
    memory = x.copy()
    y = second(memory, out=memory)
    assert second._kept.x is y is memory
    np.testing.assert_allclose(second.backward(dy), wanted, rtol=1e-4, atol=1e-5)
    for name, gradient in first.grad.items():
        np.testing.assert_allclose(second.grad[name], gradient, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="keep must be one of 'x', 'y'"):
        make(keep="both")
