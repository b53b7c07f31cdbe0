"""Public functions through the real launchers, whose kernels run thread by thread: small shapes."""

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.device.test_norms import BETA, FAR, GAMMA, MEAN, NORMS, VAR, check_far, operands, reference
from tests.oracle import as_dtype, assert_normalized

pytestmark = pytest.mark.compiled
SHAPE = (3, 4, 2, 5)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_norms(emulated, norm, dtype, rng):
    x = as_dtype(rng.standard_normal(SHAPE) * 2 + 3, dtype)
    expected, running = reference(norm, x)
    for y in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        parameters = operands(emulated.array)
        assert_normalized(emulated.numpy(norm(emulated.array(y), *parameters)), expected)
        for parameter, after in zip(parameters, running, strict=True):
            np.testing.assert_allclose(emulated.numpy(parameter), after, rtol=1e-2 if x.itemsize == 2 else 1e-5)


@pytest.mark.parametrize(("call", "channels_last"), FAR.values(), ids=FAR)
def test_far_from_zero(emulated, call, channels_last, rng):
    check_far(emulated, call, channels_last, (2, 4, 3, 5), rng)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [None, 0, (0, 2, 3), -1, (1, 2)])
def test_statistics(emulated, axis, dtype, rng):
    x = as_dtype(rng.standard_normal(SHAPE) + 100, dtype)
    mean, var = oracle.mean_var(x, tuple(range(4)) if axis is None else axis)
    result = emulated.numpy(nn.mean_var(emulated.array(x), axis))
    tolerance = 2.4e-7 if dtype == "float32" else oracle.ROUNDING[dtype]
    np.testing.assert_allclose(result[0].astype("f8"), mean, rtol=tolerance)
    np.testing.assert_allclose(result[1].astype("f8"), var, rtol=tolerance)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_statistics_of_channels(emulated, order, rng):
    x = (rng.standard_normal((3, 4, 20)) + 1e4).astype("f4").transpose(order)
    axes = (order.index(0), order.index(2))
    for ours, expected in zip(
        emulated.numpy(nn.mean_var(emulated.array(x), axes)), oracle.mean_var(x, axes), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1.2e-7)


def test_masks_and_integers(emulated, rng):
    x = rng.integers(-5, 5, (3, 7))
    mask = rng.random((3, 7)) < 0.5
    mask[:, 0] = True
    actual = nn.mean_var(emulated.array(x), 1, where=emulated.array(mask))
    for ours, theirs in zip(emulated.numpy(actual), nn.mean_var(x, 1, where=mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_a_layer(emulated, rng):
    x = rng.standard_normal((4, 4)).astype("f4") * 3 + 50
    layer, host = nn.BatchNorm1d(4).to("cuda"), nn.BatchNorm1d(4)
    state = dict(zip(("weight", "bias", "running_mean", "running_var"), (GAMMA, BETA, MEAN, VAR), strict=True))
    for bn in (layer, host):
        bn.load_state_dict({**state, "num_batches_tracked": np.int64(3)})
    for mode in (True, False):
        layer.train(mode), host.train(mode)
        assert_normalized(emulated.numpy(layer(emulated.array(x))), host(x).astype("f8"))
    for key, value in layer.state_dict().items():
        np.testing.assert_allclose(value, host.state_dict()[key], rtol=1e-5)


def test_numpy_arrays_through_the_device(emulated, rng):
    x = rng.standard_normal((3, 9)).astype("f4")
    expected = nn.layer_norm(x)
    with nn.use_backend("cuda"):
        np.testing.assert_allclose(nn.layer_norm(x), expected, atol=2e-6)
