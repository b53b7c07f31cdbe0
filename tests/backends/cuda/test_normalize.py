"""Norms thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import _launch_norms, _split, normalize
from tests.backends.cuda import host_arrays
from tests.oracle import FLOATS, as_dtype, assert_normalized

LENGTHS = (1, 7, 8, 31, 32, 33, 1000, 1024, 1025, 2056)


def compute(x):
    return np.float64 if x.dtype == np.float64 else np.float32


def sample(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return as_dtype(rng.standard_normal(shape) * 2 + 3, dtype), rng


def parameters(x, rng, *lengths):
    return [rng.standard_normal(length).astype(compute(x)) for length in lengths]


def on_cuda(launcher, x, gamma, beta, *options, n_statistics=0, offset=0, in_place=False):
    """Outputs of a launcher of the CUDA backend."""
    device_x = host_arrays.array(x, offset)
    y = device_x if in_place else host_arrays.empty(x.shape, x.dtype, offset)
    saved = [host_arrays.empty((n_statistics,), compute(x)) for _ in range(2)]
    launcher(device_x, host_arrays.array(gamma), host_arrays.array(beta), *options, y, *saved)
    return [host_arrays.as_numpy(a).copy() for a in (y, *saved)]


def on_reference(launcher, x, gamma, beta, *options, n_statistics=0):
    """The same in float64, y not rounded."""
    y = np.empty(x.shape)
    saved = [np.empty(n_statistics) for _ in range(2)]
    with np.errstate(all="ignore"):
        launcher(x.astype(np.float64), gamma, beta, *options, y, *saved)
    return y, *saved


def assert_rows(x, gamma, beta, *options, n_statistics=0, **how):
    ours = on_cuda(normalize.norm_rows, x, gamma, beta, *options, n_statistics=n_statistics, **how)
    theirs = on_reference(reference.norm_rows, x, gamma, beta, *options, n_statistics=n_statistics)
    assert_normalized(ours[0], theirs[0])
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1.2e-7, atol=1e-7)
    return ours


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_cols", LENGTHS)
def test_rows(simulator, n_cols, dtype):
    x, rng = sample((3, n_cols), dtype)
    assert_rows(x, *parameters(x, rng, n_cols, n_cols), 0.1, False, True, n_statistics=3)


@pytest.mark.parametrize("n_cols", [32, 100, 1040])
def test_rows_in_any_order(every_order, n_cols):
    x, rng = sample((5, n_cols), "float32")
    assert_rows(x, *parameters(x, rng, n_cols, 1), 0.1, True, True, n_statistics=5)
    assert_rows(x, *parameters(x, rng, 1, n_cols), 0.1, False, False)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [0, 1])
def test_in_place_and_unaligned(every_order, dtype, offset):
    x, rng = sample((3, 72), dtype)
    assert_rows(x, *parameters(x, rng, 72, 72), 0.1, False, True, n_statistics=3, offset=offset, in_place=True)


def assert_groups(x, gamma, beta, *options, n_statistics=0, **how):
    ours = on_cuda(normalize.norm_groups, x, gamma, beta, *options, n_statistics=n_statistics, **how)
    theirs = on_reference(reference.norm_groups, x, gamma, beta, *options, n_statistics=n_statistics)
    assert_normalized(ours[0], theirs[0])
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1.2e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("n_channels", "n_inner"), [(1, 1), (3, 1), (8, 1), (1, 49), (4, 16), (4, 14), (2, 520), (3, 700)]
)
def test_groups(simulator, shape, dtype):
    n_channels = shape[0]
    x, rng = sample((4, *shape), dtype)
    for lengths in ((n_channels, n_channels), (4 * n_channels, 1), (1, 2 * n_channels)):
        assert_groups(x, *parameters(x, rng, *lengths), 0.1, False, True, n_statistics=4)
    assert_groups(x, *parameters(x, rng, n_channels, n_channels), 0.1, True, False, offset=1)


def assert_channels(x, gamma, beta, *options, **how):
    n_channels = x.shape[1]
    ours = on_cuda(normalize.norm_channels, x, gamma, beta, *options, n_statistics=n_channels, **how)
    gamma, beta = (np.broadcast_to(a, n_channels) for a in (gamma, beta))
    theirs = on_reference(reference.norm_channels, x, gamma, beta, *options, n_statistics=n_channels)
    assert_normalized(ours[0], theirs[0])
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1.2e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 7), (3, 2, 8), (5, 2, 49), (2, 3, 520), (4, 1, 1100)])
def test_channels_on_chip(simulator, shape, dtype):
    x, rng = sample(shape, dtype)
    assert_channels(x, *parameters(x, rng, shape[1], 1), 0.1, False)
    assert_channels(x, *parameters(x, rng, 1, shape[1]), 0.1, True, offset=1, in_place=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 1), (40, 3), (33, 8), (300, 24), (130, 72), (9, 131)])
def test_channels_last(simulator, shape, dtype):
    x, rng = sample((*shape, 1), dtype)
    assert_channels(x, *parameters(x, rng, shape[1], 1), 0.1, False)
    assert_channels(x, *parameters(x, rng, shape[1], shape[1]), 0.1, True, offset=1, in_place=True)


@pytest.fixture
def splits_early(monkeypatch):
    """Plans for far smaller a device, so that the emulator can run them."""
    monkeypatch.setattr(_launch_norms, "SPLIT_FEW_BYTES", 1 << 10)
    monkeypatch.setattr(_launch_norms, "BUSY", 6)
    clear_plans()
    yield
    clear_plans()


def clear_plans():
    for cached in (normalize._on_chip_call, _split._split_call, _split._columns_call):
        cached.cache_clear()


SPLIT = {
    "rows": ((2, 9000), (9000, 1)),
    "channels": ((3, 2, 3000), (2, 2)),
    "short segments": ((120, 2, 49), (2, 1)),
    "channels last": ((200, 72, 1), (72, 72)),
    "narrow": ((700, 3, 1), (3, 3)),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("case", SPLIT)
def test_split(every_order, splits_early, case, dtype):
    if every_order.order != "random:1" and dtype != "float32":
        return
    shape, lengths = SPLIT[case]
    x, rng = sample(shape, dtype)
    check = assert_rows if case == "rows" else assert_channels
    check(x, *parameters(x, rng, *lengths), 0.1, False, *([True] * (case == "rows")), **n_rows_of(x, case))
    assert len(every_order.launches) == 2


def n_rows_of(x, case):
    return {"n_statistics": len(x)} if case == "rows" else {}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_split_groups_and_mean_squares(simulator, splits_early, dtype):
    x, rng = sample((1, 3, 3001), dtype)
    assert_groups(x, *parameters(x, rng, 3, 3), 0.1, True, True, n_statistics=1)
    assert_groups(x, *parameters(x, rng, 3, 1), 0.1, False, False)
    x, rng = sample((2, 5000), dtype)
    assert_rows(x, *parameters(x, rng, 1, 5000), 0.1, False, False, n_statistics=2)
    x, rng = sample((90, 3, 1), dtype)
    assert_channels(x, *parameters(x, rng, 1, 3), 0.1, True)
