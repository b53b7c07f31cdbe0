"""Norms of device arrays: values, layouts, places of results, and what is launched on the way."""

import numpy as np
import pytest

import numbanorm as nn
from tests import oracle
from tests.device.places import device_layouts
from tests.oracle import as_dtype, assert_normalized

GAMMA, BETA = np.array([2, 0.5, -1, 3], "f4"), np.array([0, 1, 2, -3], "f4")
MEAN, VAR = np.array([0, 3, -2, 1], "f4"), np.array([1, 2, 0.5, 4], "f4")

#: name -> call(x, gamma, beta, mean, var, **out) for x (6, 4, 3, 5), parameters (4,)
NORMS = {
    "layer_norm": lambda x, g, b, m, v, **k: nn.layer_norm(x, **k),
    "layer_norm_channels": lambda x, g, b, m, v, **k: nn.layer_norm(x, g, b, axis=1, **k),
    "rms_norm": lambda x, g, b, m, v, **k: nn.rms_norm(x, g, axis=1, **k),
    "standardize": lambda x, g, b, m, v, **k: nn.standardize(x, (0, 2), gamma=g[:, None, None], ddof=1, **k),
    "batch_norm": lambda x, g, b, m, v, **k: nn.batch_norm(x, g, b, m, v, training=True, **k),
    "batch_norm_bare": lambda x, g, b, m, v, **k: nn.batch_norm(x, training=True, **k),
    "batch_norm_evaluation": lambda x, g, b, m, v, **k: nn.batch_norm(x, g, b, m, v, training=False, **k),
    "instance_norm": lambda x, g, b, m, v, **k: nn.instance_norm(x, g, b, **k),
    "group_norm": lambda x, g, b, m, v, **k: nn.group_norm(x, 2, g, b, **k),
    "adaptive_instance_norm": lambda x, g, b, m, v, **k: nn.adaptive_instance_norm(x, x[:1], **k),
    "conditional_instance_norm": lambda x, g, b, m, v, **k: nn.conditional_instance_norm(
        x, g.reshape(1, 4), b.reshape(1, 4), [0] * len(x), **k
    ),
    "switchable_norm": lambda x, g, b, m, v, **k: nn.switchable_norm(x, g, b, g[:3], b[:3], m, v, training=True, **k),
    "switchable_norm_evaluation": lambda x, g, b, m, v, **k: nn.switchable_norm(
        x, g, b, g[:3], b[:3], m, v, training=False, **k
    ),
    "batch_renorm": lambda x, g, b, m, v, **k: nn.batch_renorm(x, g, b, m, v, training=True, **k),
    "ghost_batch_norm": lambda x, g, b, m, v, **k: nn.ghost_batch_norm(
        x, g, b, m, v, virtual_batch_size=2, training=True, **k
    ),
    "local_response_norm": lambda x, g, b, m, v, **k: nn.local_response_norm(x, 3, alpha=2.0, **k),
    "z_score": lambda x, g, b, m, v, **k: nn.z_score(x, **k),
    "min_max_scale": lambda x, g, b, m, v, **k: nn.min_max_scale(x, (0, 2), **k),
    "l2_normalize": lambda x, g, b, m, v, **k: nn.l2_normalize(x, 1, **k),
    "weight_standardize": lambda x, g, b, m, v, **k: nn.weight_standardize(x, channel_axis=1, gamma=g, **k),
}
norms = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
SHAPE = (6, 4, 3, 5)


def operands(make=np.array):
    return [make(p.copy()) for p in (GAMMA, BETA, MEAN, VAR)]


def reference(norm, x, **options):
    given = operands()
    with nn.use_backend("reference"):
        result = norm(x.astype(np.float64), *given, **options)
    return result, given


@norms
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_values_in_every_layout(place, norm, dtype, rng):
    x = as_dtype(rng.standard_normal(SHAPE) * 2 + 3, dtype)
    expected, running = reference(norm, x)
    for name, y in device_layouts(x):
        given, parameters = place.array(y), operands(place.array)
        result = norm(given, *parameters)
        assert result.dtype == x.dtype, name
        assert_normalized(place.numpy(result), expected)
        np.testing.assert_array_equal(place.numpy(given), y)
        for parameter, after in zip(parameters, running, strict=True):
            np.testing.assert_allclose(place.numpy(parameter), after, rtol=1e-2 if x.itemsize == 2 else 1e-5)


@norms
def test_results_keep_the_layout_of_x(place, norm, rng):
    x = rng.standard_normal(SHAPE).astype(np.float32).transpose(2, 1, 3, 0)
    for y in (x, x.transpose(3, 1, 0, 2)):
        assert norm(place.array(y), *operands(place.array)).strides == np.empty_like(y).strides


@norms
def test_out(place, norm, rng):
    x = rng.standard_normal(SHAPE).astype(np.float32)
    expected, _ = reference(norm, x)
    for target in (np.full(SHAPE, np.nan, "f4"), np.full((*SHAPE, 2), np.nan, "f4")[..., 1], np.full(SHAPE, 1.0)):
        out = place.array(target)
        assert norm(place.array(x), *operands(place.array), out=out) is out
        assert_normalized(place.numpy(out).astype(np.float32), expected)
    for y in (x, x.transpose(3, 1, 2, 0).copy().transpose(3, 1, 2, 0), x[::-1]):
        given = place.array(y.copy() if y is x else y)
        assert norm(given, *operands(place.array), out=given) is given
        assert_normalized(place.numpy(given), reference(norm, y)[0])


def far_away(shape, rng):
    return (rng.standard_normal(shape) + 1e4).astype("f4")


def tracked(x):
    layer = nn.InstanceNorm2d(x.shape[1], track_running_stats=True)
    return (layer if isinstance(x, np.ndarray) else layer.to("cuda"))(x)


#: name -> (call, whether channels lie last): norms far from zero that no fused launcher serves.
FAR = {
    "layer_norm": (lambda x: nn.layer_norm(x, axis=1), False),
    "instance_norm": (nn.instance_norm, True),
    "group_norm": (lambda x: nn.group_norm(x, 2), True),
    "standardize": (lambda x: nn.standardize(x, (2, 3), ddof=1), False),
    "tracked_instance_norm": (tracked, False),
}


def check_far(place, call, channels_last, shape, rng):
    x = far_away(shape, rng)
    if channels_last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with nn.use_backend("reference"):
        expected = call(x.astype("f8"))
    assert_normalized(place.numpy(call(place.array(x))), expected)


@pytest.mark.parametrize(("call", "channels_last"), FAR.values(), ids=FAR)
def test_far_from_zero(place, call, channels_last, rng):
    check_far(place, call, channels_last, (6, 4, 8, 9), rng)


@pytest.mark.parametrize("given", ["f4", "f8"])
def test_given_statistics_far_from_zero(place, given, rng):
    """Those in float64 keep their digits on the way."""
    x = far_away(SHAPE, rng)
    mean, var = x.astype("f8").mean((0, 2, 3)).astype(given), x.astype("f8").var((0, 2, 3)).astype(given)
    y, *saved = nn.batch_norm(
        place.array(x), None, None, place.array(mean), place.array(var), training=False, return_stats=True
    )
    centre, spread = (a.astype("f8")[:, None, None] for a in (mean, var))
    assert_normalized(place.numpy(y), (x - centre) / np.sqrt(spread + 1e-5))
    for actual, expected in zip(saved, (centre, 1 / np.sqrt(spread + 1e-5)), strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(place.numpy(actual)[0], expected, rtol=1.2e-7)


PLAIN = {"standardize", "local_response_norm", "z_score", "min_max_scale", "l2_normalize", "weight_standardize"}
#: Those whose statistics are float32; a switchable norm's are float64.
RETURNING = [name for name in NORMS if name not in PLAIN and not name.startswith("switchable")]


@pytest.mark.parametrize("norm", [NORMS[name] for name in RETURNING], ids=RETURNING)
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_statistics(place, norm, dtype, rng):
    x = as_dtype(rng.standard_normal(SHAPE) + 1, dtype)
    expected, _ = reference(norm, x, return_stats=True)
    for _, y in device_layouts(x):
        result = norm(place.array(y), *operands(place.array), return_stats=True)
        for actual, wanted in zip(place.numpy(result)[1:], expected[1:], strict=True):
            assert actual.dtype == ("f8" if dtype == "float64" else "f4")
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


@norms
@pytest.mark.parametrize("shape", [(0, 4, 3, 5), (6, 4, 0, 5)])
def test_empty_arrays(place, norm, shape):
    assert norm(place.array(np.empty(shape, "f4")), *operands(place.array)).shape == shape


def test_parameters_of_another_dtype(place, rng):
    x = rng.standard_normal((5, 4)).astype("f4")
    expected = nn.layer_norm(x, GAMMA, BETA)
    for dtype in ("f2", "f8", "i4"):
        gamma, beta = np.array([1, 2, -1, 0], dtype), np.array([3, 0, 0, 1], dtype)
        expected = nn.layer_norm(x, gamma, beta)
        assert_normalized(place.numpy(nn.layer_norm(*map(place.array, (x, gamma, beta)))), expected.astype("f8"))


DENSE = {
    "layer_norm": (
        lambda x, *p: nn.layer_norm(x, *p[:2], axis=1),
        ["moments_cols", "finish_moments", "affine_cols"],
    ),
    "layer_norm_last": (lambda x, *p: nn.layer_norm(x), ["norm_rows"]),
    "batch_norm": (lambda x, *p: nn.batch_norm(x, *p, training=True), ["norm_channels", "update_running"]),
    "batch_norm_evaluation": (lambda x, *p: nn.batch_norm(x, *p, training=False), ["affine_rows"]),
    "instance_norm": (lambda x, *p: nn.instance_norm(x, *p[:2]), ["norm_groups"]),
    "group_norm": (lambda x, *p: nn.group_norm(x, 2, *p[:2]), ["norm_groups"]),
    "mean_var": (lambda x, *p: nn.mean_var(x, -1), ["mean_var_rows"]),
    "mean_var_channels": (lambda x, *p: nn.mean_var(x.reshape(6, 2, 30), (0, 2)), ["mean_var_channels"]),
    "var": (lambda x, *p: nn.var(x, 0), ["mean_var_cols"]),
    "std": (lambda x, *p: nn.std(x), ["mean_var_rows"]),
}


@pytest.mark.parametrize(("call", "launches"), DENSE.values(), ids=DENSE)
def test_dense_operands_meet_nothing_but_launchers(place, call, launches, rng):
    """No copy, fill or arithmetic of CuPy's on the way, each of which would be a launch."""
    if place.name != "stand-in":
        pytest.skip("counts what stands in for a device")
    from tests.device import stand_in

    x, parameters = place.array(rng.standard_normal(SHAPE).astype("f4")), operands(place.array)
    call(x, *parameters)  # the first call makes constants
    place.device.calls.clear()
    stand_in.launches.clear()
    call(x, *parameters)
    assert place.device.calls == []
    assert stand_in.launches == launches
