"""torch as a second oracle, where it is installed and where it is right."""

import numpy as np
import pytest

import numbanorm as nn

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def pair(rng, shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x, torch.from_numpy(x.copy())


def close(actual, expected):
    np.testing.assert_allclose(actual, expected.detach().numpy(), atol=3e-6, rtol=3e-6)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4, 8)])
def test_layer_and_rms_norm(shape, rng):
    x, t = pair(rng, shape)
    (gamma, tg), (beta, tb) = pair(rng, shape[-1:]), pair(rng, shape[-1:])
    close(nn.layer_norm(x, gamma, beta), functional.layer_norm(t, shape[-1:], tg, tb))
    close(nn.rms_norm(x, gamma, eps=1e-5), functional.rms_norm(t, shape[-1:], tg, 1e-5))


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 10), (2, 3, 5, 5), (2, 3, 4, 4, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training, rng):
    x, t = pair(rng, shape)
    parameters = [pair(rng, shape[1:2]) for _ in range(3)]
    var = rng.random(3).astype(np.float32) + 1
    (gamma, tg), (beta, tb), (mean, tm) = parameters
    tv = torch.from_numpy(var.copy())
    expected = functional.batch_norm(t, tm, tv, tg, tb, training)
    close(nn.batch_norm(x, gamma, beta, mean, var, training=training), expected)
    close(mean, tm)
    close(var, tv)


def test_instance_and_group_norm(rng):
    x, t = pair(rng, (2, 6, 5, 5))
    (gamma, tg), (beta, tb) = pair(rng, (6,)), pair(rng, (6,))
    close(nn.instance_norm(x, gamma, beta), functional.instance_norm(t, weight=tg, bias=tb))
    close(nn.group_norm(x, 3, gamma, beta), functional.group_norm(t, 3, tg, tb))


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "InstanceNorm2d", "LayerNorm", "RMSNorm", "GroupNorm"])
def test_layers_and_their_state_pass_both_ways(name, rng):
    arguments, shape, options = {
        "BatchNorm1d": ((6,), (9, 6), {}),
        "BatchNorm2d": ((6,), (3, 6, 4, 4), {}),
        "InstanceNorm2d": ((6,), (3, 6, 4, 4), {"affine": True, "track_running_stats": True}),
        "LayerNorm": (((4, 5),), (3, 4, 5), {}),
        "RMSNorm": ((5, 1e-6), (3, 4, 5), {}),
        "GroupNorm": ((2, 6), (3, 6, 4, 4), {}),
    }[name]
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    for _ in range(3):
        x, t = pair(rng, shape)
        close(ours(x), theirs(t))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        mine = ours.state_dict()[key]
        assert mine.shape == tuple(value.shape)
        assert mine.dtype == value.numpy().dtype
        if key != "num_batches_tracked" or "Instance" not in name:  # torch's instance norm never counts
            np.testing.assert_allclose(mine, value, rtol=1e-5, atol=1e-6)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    x, t = pair(rng, shape)
    close(ours.eval()(x), theirs.eval()(t))


ERRORS = [
    (lambda m, a: m.BatchNorm1d(3)(a((1, 3))), "Expected more than 1 value per channel when training, got input size"),
    (lambda m, a: m.BatchNorm1d(3)(a((3,))), "expected 2D or 3D input (got 1D input)"),
    (lambda m, a: m.BatchNorm2d(3)(a((2, 3, 4))), "expected 4D input (got 3D input)"),
    (lambda m, a: m.BatchNorm3d(3)(a((2, 3, 4))), "expected 5D input (got 3D input)"),
    (lambda m, a: m.BatchNorm1d(4)(a((2, 3))), "running_mean should contain 3 elements not 4"),
    (
        lambda m, a: m.InstanceNorm1d(3)(a((2, 3, 1))),
        "Expected more than 1 spatial element when training, got input size",
    ),
]


@pytest.mark.parametrize(("call", "text"), ERRORS)
def test_errors_read_as_torchs(call, text):
    """Type and leading text: whoever catches torch's error catches ours."""
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        call(torch.nn, lambda shape: torch.zeros(shape))
    with pytest.raises((ValueError, RuntimeError)) as ours:
        call(nn, lambda shape: np.zeros(shape, np.float32))
    assert str(theirs.value).startswith(text)
    assert str(ours.value).startswith(text)
    assert issubclass(ours.type, theirs.type)
