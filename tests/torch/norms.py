"""The modules under test: name, arguments, options, shape of an input."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nt = pytest.importorskip("numbanorm.torch")

CASES = {
    "LayerNorm": ("LayerNorm", ((4, 5),), {}, (3, 2, 4, 5)),
    "LayerNorm, no bias": ("LayerNorm", (5,), {"bias": False, "eps": 0.1}, (3, 5)),
    "LayerNorm, all axes": ("LayerNorm", ((3, 4),), {}, (3, 4)),
    "LayerNorm, no parameters": ("LayerNorm", (5,), {"elementwise_affine": False}, (2, 3, 5)),
    "RMSNorm": ("RMSNorm", (5,), {}, (3, 4, 5)),
    "RMSNorm, no parameters": ("RMSNorm", ((4, 5), 0.1), {"elementwise_affine": False}, (3, 4, 5)),
    "GroupNorm": ("GroupNorm", (2, 6), {}, (3, 6, 4, 3)),
    "GroupNorm, one group": ("GroupNorm", (1, 6), {}, (3, 6)),
    "GroupNorm, no parameters": ("GroupNorm", (6, 6), {"affine": False}, (3, 6, 4)),
    "BatchNorm1d": ("BatchNorm1d", (6,), {}, (7, 6)),
    "BatchNorm1d, cumulative": ("BatchNorm1d", (6,), {"momentum": None}, (4, 6, 5)),
    "BatchNorm2d": ("BatchNorm2d", (6,), {"momentum": 0.3, "eps": 1e-3}, (3, 6, 4, 2)),
    "BatchNorm2d, no parameters": ("BatchNorm2d", (6,), {"affine": False}, (3, 6, 4, 2)),
    "BatchNorm3d, untracked": ("BatchNorm3d", (6,), {"track_running_stats": False}, (2, 6, 3, 2, 2)),
    "InstanceNorm1d": ("InstanceNorm1d", (6,), {}, (3, 6, 7)),
    "InstanceNorm1d, unbatched": ("InstanceNorm1d", (6,), {"affine": True}, (6, 7)),
    "InstanceNorm2d, tracked": ("InstanceNorm2d", (6,), {"affine": True, "track_running_stats": True}, (3, 6, 4, 2)),
    "InstanceNorm3d, tracked": ("InstanceNorm3d", (6,), {"track_running_stats": True}, (2, 6, 2, 3, 2)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def pair(case, rng, dtype=None, **more):
    """torch's module and ours, with the same random state."""
    name, arguments, options, _ = case
    theirs = getattr(torch.nn, name)(*arguments, **options, dtype=dtype, **more)
    state = {
        key: torch.from_numpy(np.asarray(rng.uniform(0.5, 2, tuple(value.shape)))).to(value.dtype)
        for key, value in theirs.state_dict().items()
    }
    theirs.load_state_dict({key: s.zero_() if key.endswith("tracked") else s for key, s in state.items()})
    ours = getattr(nt, name)(*arguments, **options, dtype=dtype, **more)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def normal(rng, shape, dtype=None, offset=0.0):
    return torch.from_numpy(rng.standard_normal(shape) + offset).to(dtype or torch.float32)


def assert_close(actual, expected, dtype, scale=1.0):
    """Within a few roundings of the dtype, in proportion to the largest element."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    bound = {torch.float64: 1e-11, torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    largest = max(float(expected.detach().double().abs().max()), scale)
    np.testing.assert_allclose(
        actual.detach().double().numpy(), expected.detach().double().numpy(), rtol=bound, atol=bound * largest
    )


def step(module, x, dy):
    """y, dx and the parameters' gradients of one call."""
    module.zero_grad()
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(leaf)
    y.backward(dy)
    return [y, leaf.grad, *(p.grad for p in module.parameters())]
