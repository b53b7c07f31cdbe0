"""Elements that do not lie at multiples of their size, which a device's kernels may not touch: packed records."""

import cupy as cp
import numpy as np
import pytest

import numbanorm as nn
from numbanorm import norms_backward
from numbanorm._guests import as_host, cupy_view
from tests import oracle
from tests.device.test_arrays import Guest
from tests.device.test_norms import NORMS, SHAPE, operands
from tests.oracle import as_dtype

#: Bytes between elements, and before the first one.
PLACES = {"packed": (0, 1), "records": (3, 1), "aligned first": (1, 0)}
places = pytest.mark.parametrize("gap", PLACES.values(), ids=PLACES)


def misplaced(place, values, gap):
    """A device array whose elements lie `gap[0]` bytes apart, the first one after `gap[1]` bytes."""
    between, before = gap
    size, step = values.itemsize, values.itemsize + between
    records = np.zeros((values.size, step), np.uint8)
    records[:, :size] = np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8)
    memory = place.device.from_host(np.concatenate([np.zeros(before, np.uint8), records.ravel()]))
    strides = tuple(n // size * step for n in np.empty(values.shape, values.dtype).strides)
    return cp.ndarray(values.shape, values.dtype, memory.data + before, strides)


@places
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_copies(place, gap, dtype, rng):
    values = as_dtype(rng.standard_normal((3, 4)), dtype)
    there = misplaced(place, values, gap)
    np.testing.assert_array_equal(place.numpy(there), values)
    for copy in (place.device.dense(there), place.device.duplicate(there)):
        assert copy.flags.c_contiguous
        assert copy.data.ptr % copy.itemsize == 0
        np.testing.assert_array_equal(place.numpy(copy), values)
    place.device.copy(there, place.array(values[:1]))
    np.testing.assert_array_equal(place.numpy(there), np.repeat(values[:1], 3, 0))


@places
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_norms(place, norm, gap, rng):
    x = rng.standard_normal(SHAPE).astype("f4")
    expected, after = operands(place.array), operands(lambda p: misplaced(place, p, gap))
    y = norm(place.array(x), *expected)
    there, out = misplaced(place, x, gap), misplaced(place, np.zeros_like(x), gap)
    np.testing.assert_array_equal(place.numpy(norm(there, *after)), place.numpy(y))
    for one, other in zip(after, expected, strict=True):
        np.testing.assert_array_equal(place.numpy(one), place.numpy(other))
    np.testing.assert_array_equal(place.numpy(there), x)
    for target in (out, there):
        given = operands(lambda p: misplaced(place, p, gap))
        assert norm(there, *given, out=target) is target
        np.testing.assert_array_equal(place.numpy(target), place.numpy(y))


@places
def test_statistics(place, gap, rng):
    x = rng.standard_normal((3, 4, 5)).astype("f4")
    there, outs = misplaced(place, x, gap), [misplaced(place, np.zeros((3, 5), "f4"), gap) for _ in range(2)]
    for axis in (None, 0, 1, (0, 2)):
        for one, other in zip(nn.mean_var(there, axis), nn.mean_var(place.array(x), axis), strict=True):
            # Where moments are taken first, the last bit may be another.
            np.testing.assert_allclose(place.numpy(one), place.numpy(other), rtol=2.4e-7)
    mean, _ = nn.mean_var(there, 1, out=tuple(outs))
    np.testing.assert_allclose(place.numpy(mean), x.astype("f8").mean(1), rtol=1e-6, atol=1e-7)
    integers = rng.integers(-9, 9, (3, 4)).astype("i4")
    np.testing.assert_allclose(place.numpy(nn.var(misplaced(place, integers, gap), 1)), integers.var(1), rtol=1e-13)
    assert nn.moments(there, 0).shape == (4, 5)


@places
def test_gradients(place, gap, rng):
    if place.name == "cuda":
        pytest.skip("the backend has no gradients yet")
    x, dy = rng.standard_normal((2, 3, 4)).astype("f4"), rng.standard_normal((2, 3, 4)).astype("f4")
    gamma = rng.standard_normal(4).astype("f4")
    _, *statistics = nn.layer_norm(x, gamma, return_stats=True)

    def gradients(make):
        return norms_backward.layer_norm_backward(*map(make, (dy, x, gamma, *statistics)))

    for one, other in zip(gradients(lambda a: misplaced(place, a, gap)), gradients(place.array), strict=True):
        np.testing.assert_array_equal(place.numpy(one), place.numpy(other))


@places
def test_guests_and_layers(place, gap, rng, monkeypatch):
    x = rng.standard_normal((6, 4)).astype("f4")
    there = misplaced(place, x, gap)
    if place.name != "cuda":
        monkeypatch.setattr("numbanorm._guests._ordinal", lambda array: 0)
    assert cupy_view(Guest(there)).strides == there.strides
    np.testing.assert_array_equal(as_host(Guest(there)), x)
    layer, host = nn.BatchNorm1d(4).to("cuda"), nn.BatchNorm1d(4)
    layer.running_var = misplaced(place, np.ones(4, "f4"), gap)
    np.testing.assert_allclose(place.numpy(layer(there)), host(x), atol=2e-6)
    np.testing.assert_allclose(layer.state_dict()["running_var"], host.running_var, rtol=1e-5)


def test_running_statistics_with_gaps(place, rng):
    """Every second number of an array is updated, its neighbours are not touched."""
    x = rng.standard_normal((6, 4)).astype("f4")
    mean, var = np.zeros(4, "f4"), np.ones(4, "f4")
    nn.batch_norm(x, None, None, mean, var, training=True)
    both = place.array(np.tile(np.array([0, 1], "f4"), 4))
    nn.batch_norm(place.array(x), None, None, both[::2], both[::-2], training=True)
    np.testing.assert_allclose(place.numpy(both[::2]), mean, rtol=1e-5)
    np.testing.assert_allclose(place.numpy(both[::-2]), var, rtol=1e-5)
