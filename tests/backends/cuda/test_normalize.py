"""Norms thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import _launch_moments, _launch_norms, _split, normalize
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
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (8, 1), (1, 49), (4, 16), (4, 14), (2, 520)])
def test_groups(simulator, shape, dtype):
    n_channels = shape[0]
    x, rng = sample((4, *shape), dtype)
    for lengths in ((4 * n_channels, 1), (1, 2 * n_channels)):
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
    for name, value in {"BUSY": 6, "IN_TURN": 1, "worth_a_part": lambda itemsize: 1}.items():
        monkeypatch.setattr(_launch_moments, name, value)
    clear_plans()
    yield
    clear_plans()


def clear_plans():
    for cached in (normalize._planned, _split._split_call, _split._columns_call):
        cached.cache_clear()


SPLIT = {
    "rows": ((2, 9000), (9000, 1)),
    "channels": ((3, 2, 3000), (2, 2)),
    "short segments": ((120, 2, 49), (2, 1)),
    "channels last": ((300, 72, 1), (72, 72)),
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


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_cols", [1040, 1043])
def test_rows_in_shared_memory(every_order, monkeypatch, n_cols, dtype):
    if every_order.order != "random:1" and dtype != "float32":
        return
    monkeypatch.setattr(_launch_norms, "REGISTERS_THREADS", 16)
    monkeypatch.setattr(_launch_norms, "SHARED_THREADS", (64, 128))
    clear_plans()
    x, rng = sample((2, n_cols), dtype)
    assert_rows(x, *parameters(x, rng, n_cols, n_cols), 0.1, False, True, n_statistics=2)
    assert_rows(x, *parameters(x, rng, n_cols, 1), 0.1, True, False, in_place=True)
    x, rng = sample((2, 4, n_cols // 4), dtype)
    assert_groups(x, *parameters(x, rng, 4, 8), 0.1, True, True, n_statistics=2)
    assert_channels(x, *parameters(x, rng, 4, 1), 0.1, False)
    assert all(shared for _, _, shared in every_order.launches[:3])
    clear_plans()


def hard(name, shape):
    """(x, eps): numbers that break what is only right for numbers near 1."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape)
    return {
        "far mean": (x + 1e4, 1e-5),
        "farther": (x + 1e6, 1e-5),
        "huge": (x * 1e30, 1e-5),
        "huge, far": ((x + 100) * 1e30, 1e-5),
        "tiny": (x * 1e-30, 0.0),
        "tiny, hidden": (x * 1e-30, 1e-5),
        "tiny, far": ((x + 1e4) * 1e-30, 1e-38),
        "equal": (np.full(shape, 12345.678), 1e-5),
        "equal and huge": (np.full(shape, 1.2345e30), 1e-5),
        "zeros": (np.zeros(shape), 1e-5),
        "outlier": (np.where(np.arange(shape[-1]) == 3, 1e6, x), 1e-5),
    }[name]


HARD = (
    "far mean",
    "farther",
    "huge",
    "huge, far",
    "tiny",
    "tiny, hidden",
    "tiny, far",
    "equal",
    "equal and huge",
    "zeros",
    "outlier",
)


def assert_hard(ours, theirs):
    assert_normalized(ours[0], theirs[0])
    with np.errstate(over="ignore"):
        expected = theirs[1].astype(np.float32), theirs[2].astype(np.float32)
    # A mean may be off by a rounding of the deviations that it comes from.
    np.testing.assert_allclose(ours[1], expected[0], rtol=1.2e-7, atol=1.2e-7 / np.abs(theirs[2]).min())
    np.testing.assert_allclose(ours[2], expected[1], rtol=2.4e-7)


@pytest.mark.parametrize("name", HARD)
def test_hard_rows(simulator, splits_early, name):
    for shape, on_std in (((2, 40), False), ((1, 1500), True), ((1, 130), True), ((1, 9000), False)):
        x, eps = hard(name, shape)
        x, one, zero = x.astype(np.float32), np.ones(1, np.float32), np.zeros(1, np.float32)
        arguments = x, one, zero, eps, on_std, True
        ours = on_cuda(normalize.norm_rows, *arguments, n_statistics=len(x))
        assert_hard(ours, on_reference(reference.norm_rows, *arguments, n_statistics=len(x)))


@pytest.mark.parametrize("name", HARD)
def test_hard_channels_last(simulator, name):
    x, eps = hard(name, (3, 200))
    x, one, zero = x.T.astype(np.float32)[:, :, None].copy(), np.ones(1, np.float32), np.zeros(1, np.float32)
    ours = on_cuda(normalize.norm_channels, x, one, zero, eps, False, n_statistics=3)
    theirs = on_reference(reference.norm_channels, x, np.ones(3), np.zeros(3), eps, False, n_statistics=3)
    assert_normalized(ours[0], theirs[0])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("shape", [(2, 40), (2, 9000)])
def test_one_bad_element_spoils_its_row_only(simulator, splits_early, shape, bad):
    x, _ = sample(shape, "float32")
    x[0, 5] = bad
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    y, mean, rstd = on_cuda(normalize.norm_rows, x, one, zero, 1e-5, False, True, n_statistics=2)
    assert np.isnan(y[0]).all()
    assert np.isnan(rstd[0])
    assert np.isfinite(y[1]).all()
    assert np.isfinite([mean[1], rstd[1]]).all()


def test_groups_beyond_what_a_kernel_counts_go_in_pieces(monkeypatch):
    calls = []
    whole = normalize.norm_groups
    monkeypatch.setattr(normalize, "norm_groups", lambda *args: calls.append(args))
    x = np.broadcast_to(np.float16(0), (1 << 30, 6, 1))
    gamma, statistics = np.ones(12, np.float32), np.broadcast_to(np.float32(0), 1 << 30)
    whole(x, gamma, gamma, 1e-5, False, True, x, statistics, statistics[:0])
    lengths = [len(args[0]) for args in calls]
    assert sum(lengths) == 1 << 30
    assert all(length % 2 == 0 and length * 6 < 1 << 32 for length in lengths[:-1])
    assert [len(args[7]) for args in calls] == lengths
    assert not any(args[8].size for args in calls)
