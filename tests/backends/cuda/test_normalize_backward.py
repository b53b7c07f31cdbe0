"""Gradients thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import _backward_launches, _launch_backward, _launch_norms, normalize_backward
from tests.backends.cuda import host_arrays
from tests.oracle import FLOATS, as_dtype

LENGTHS = (1, 7, 8, 31, 32, 33, 1000, 1024, 1025, 2056)
LIMIT = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 3e-6, "float64": 1e-12}


def operands(shape, axes, n_parameters, dtype, offset=3.0, use_mean=True, seed=0):
    """dy, x, gamma, mean, rstd; the statistics rounded as a forward saves them."""
    rng = np.random.default_rng(seed)
    x = as_dtype(rng.standard_normal(shape) * 2 + offset, dtype)
    dy = as_dtype(rng.standard_normal(shape), dtype)
    compute = np.dtype("f8" if dtype == "float64" else "f4")
    mean = x.astype("f8").mean(axes) * use_mean
    rstd = 1 / np.sqrt(((x.astype("f8") - np.expand_dims(mean, axes)) ** 2).mean(axes) + 0.1)
    gamma = rng.standard_normal(n_parameters).astype(compute)
    return dy, x, gamma, mean.astype(compute), rstd.astype(compute)


def on_cuda(launcher, arrays, options, n, wanted=(True, True, True), offset=0, into=None, statistics=None):
    """dx, dgamma and dbeta of the CUDA backend; `into` 0 or 1 puts dx where dy or x is."""
    dy, x, gamma, mean, rstd = arrays
    given = [host_arrays.array(dy, offset), host_arrays.array(x, offset), host_arrays.array(gamma, offset)]
    given += [host_arrays.array(s.astype(statistics or s.dtype)) for s in (mean, rstd)]
    dx = host_arrays.empty(x.shape if wanted[0] else (0,), x.dtype, offset) if into is None else given[into]
    outputs = [dx, *(host_arrays.empty((n if want else 0,), gamma.dtype) for want in wanted[1:])]
    getattr(normalize_backward, launcher)(*given, *options, *outputs)
    return [host_arrays.as_numpy(a).copy() if a.size else np.empty(0, a.dtype) for a in outputs]


def on_reference(launcher, arrays, options, n, wanted=(True, True, True)):
    """The same in float64, not rounded."""
    dy, x, gamma, mean, rstd = arrays
    outputs = [np.empty(s if want else 0) for s, want in zip((x.shape, n, n), wanted, strict=True)]
    with np.errstate(all="ignore"):
        getattr(reference, launcher)(dy, x, gamma, mean, rstd, *options, *outputs)
    return outputs


def assert_gradients(launcher, arrays, options, n, wanted=(True, True, True), **how):
    _, x, gamma, _, rstd = arrays
    ours = on_cuda(launcher, arrays, options, n, wanted, **how)
    theirs = on_reference(launcher, arrays, options, n, wanted)
    scales = float(np.abs(gamma).max() * rstd.max()), x.size / n, x.size / n
    for i, (scale, actual, expected) in enumerate(zip(scales, ours, theirs, strict=True)):
        limit = LIMIT[(gamma if i else x).dtype.name]
        bound = limit * max(scale, 1, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(actual.astype("f8"), expected, rtol=limit, atol=bound)
    return ours


def clear_plans():
    for cached in (normalize_backward._rows_call, normalize_backward._sets_call, _backward_launches.planned_columns):
        cached.cache_clear()


@pytest.fixture
def small_device(monkeypatch):
    """Plans for far smaller a device: the emulator's blocks then take several rows."""
    monkeypatch.setattr(_launch_backward, "MULTIPROCESSORS", 1)
    clear_plans()
    yield
    clear_plans()


@pytest.fixture
def splits_early(monkeypatch):
    """Plans for which sets that the emulator can run are large, and pieces short."""
    monkeypatch.setattr(_launch_norms, "STATISTICS_BLOCKS", 12)
    monkeypatch.setattr(_launch_norms, "STATISTICS_THREADS", 16)
    monkeypatch.setattr(_launch_backward, "SPLIT_FEW_BYTES", 1 << 10)
    clear_plans()
    yield
    clear_plans()


@pytest.mark.parametrize("n_cols", LENGTHS)
def test_rows(simulator, n_cols):
    for dtype in FLOATS if n_cols < 1024 else FLOATS[n_cols % 4 :: 4]:
        arrays = operands((3, n_cols), (1,), n_cols, dtype)
        assert_gradients("norm_rows_backward", arrays, (0.0, 0.0, True), n_cols)


@pytest.mark.parametrize("n_cols", [32, 100, 520])
def test_rows_in_any_order(every_order, small_device, n_cols):
    """Many rows, several for each team; mean squares, eps on the standard deviation, ddof; outputs not wanted."""
    arrays = operands((40, n_cols), (1,), n_cols, "float32", use_mean=False)
    assert_gradients("norm_rows_backward", arrays, (0.0, 0.0, False), n_cols, wanted=(True, True, False))
    arrays = operands((9, n_cols), (1,), n_cols, "bfloat16")
    assert_gradients("norm_rows_backward", arrays, (0.02, 0.5, True), n_cols, wanted=(False, False, True))
    assert_gradients("norm_rows_backward", arrays, (0.0, 1.0, True), n_cols, wanted=(True, False, False))


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_gamma_for_all(simulator, dtype):
    arrays = operands((5, 72), (1,), 1, dtype)
    assert_gradients("norm_rows_backward", arrays, (0.0, 0.0, True), 1)
    assert_gradients("norm_rows_backward", arrays, (0.0, 0.0, True), 72)


PLACES = [
    ("norm_rows_backward", (3, 72), (1,), 72),
    ("norm_groups_backward", (4, 3, 24), (1, 2), 6),
    ("norm_channels_backward", (4, 3, 24), (0, 2), 3),
    ("norm_channels_backward", (30, 24, 1), (0, 2), 24),
]


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place_and_unaligned(simulator, launcher, shape, axes, n, dtype):
    arrays = operands(shape, axes, n, dtype)
    for offset, into in ((1, None), (0, 0), (1, 1)):
        assert_gradients(launcher, arrays, (0.0, 0.0, True), n, offset=offset, into=into)


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
def test_statistics_in_either_dtype(simulator, launcher, shape, axes, n):
    for dtype, given in (("float32", "f8"), ("float64", "f4"), ("bfloat16", "f8")):
        arrays = operands(shape, axes, n, dtype)
        arrays = *arrays[:3], *(s.astype("f4").astype("f8") for s in arrays[3:])
        assert_gradients(launcher, arrays, (0.0, 0.0, True), n, statistics=given)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (8, 1), (1, 49), (4, 16), (4, 14), (2, 520)])
def test_groups(simulator, shape):
    for dtype, n in (*zip(FLOATS, (shape[0], 2 * shape[0], 4 * shape[0], 1), strict=True), ("float32", 2 * shape[0])):
        arrays = operands((4, *shape), (1, 2), n, dtype)
        use_mean = n != shape[0]
        assert_gradients("norm_groups_backward", arrays, (0.0, 0.0, use_mean), n, offset=n == 1)


@pytest.mark.parametrize("shape", [(2, 3, 7), (3, 2, 8), (5, 2, 49), (2, 3, 520)])
def test_channels(simulator, shape):
    for dtype in FLOATS:
        for fixed in (False, True) if dtype in ("float32", "bfloat16") else (False,):
            arrays = operands(shape, (0, 2), shape[1], dtype)
            assert_gradients("norm_channels_backward", arrays, (0.0, 0.0, fixed), shape[1])
    arrays = operands(shape, (0, 2), 1, "float32")
    assert_gradients("norm_channels_backward", arrays, (0.01, 0.5, False), shape[1], wanted=(True, False, True))
    assert_gradients("norm_channels_backward", arrays, (0.0, 0.0, True), shape[1], wanted=(True, False, False))


@pytest.mark.parametrize("shape", [(2, 1), (40, 3), (33, 8), (300, 24), (130, 72), (9, 131)])
def test_channels_last(every_order, small_device, shape):
    for dtype in FLOATS if every_order.order == "random:1" else ["float32"]:
        for fixed in (False, True):
            arrays = operands((*shape, 1), (0, 2), shape[1], dtype)
            assert_gradients("norm_channels_backward", arrays, (0.0, 0.0, fixed), shape[1])


BY_ROW = ["split_backward", "merge_parts", "columns_backward", "merge_parts"]
BY_CHANNEL = ["split_backward", "merge_parts", "planes_backward"]
BY_SEGMENT = ["split_backward", "merge_parts", "merge_segments", "planes_backward", "merge_parts"]
SPLIT = [
    ("norm_rows_backward", (2, 720), (1,), 720, BY_ROW),
    ("norm_rows_backward", (2, 721), (1,), 1, BY_SEGMENT),
    ("norm_groups_backward", (2, 3, 600), (1, 2), 3, BY_SEGMENT),
    ("norm_groups_backward", (1, 2, 901), (1, 2), 1, BY_SEGMENT),
    ("norm_channels_backward", (3, 2, 600), (0, 2), 2, BY_CHANNEL),
    ("norm_channels_backward", (90, 2, 49), (0, 2), 2, BY_CHANNEL),
]
#: What the orders of threads take turns at, because each of these takes seconds: use_mean, or `fixed` of channels.
VARIANTS_OF_SPLIT = {
    "forward": [("float32", True)],
    "reverse": [("float32", False)],
    "random:1": [("bfloat16", False), ("float64", True)],
}


@pytest.mark.parametrize(("launcher", "shape", "axes", "n", "kernels"), SPLIT)
def test_sets_that_do_not_fit(every_order, splits_early, launcher, shape, axes, n, kernels):
    for dtype, flag in VARIANTS_OF_SPLIT[every_order.order]:
        every_order.launches.clear()
        use_mean = flag or launcher == "norm_channels_backward"
        arrays = operands(shape, axes, n, dtype, 1e4 if use_mean and dtype != "bfloat16" else 0.0, use_mean)
        assert_gradients(launcher, arrays, (0.0, 0.0, flag), n)
        # With fixed statistics dx needs no sums: another kernel writes it.
        expected = BY_CHANNEL[:2] if flag and kernels is BY_CHANNEL else kernels
        launched = [kernel.function.__name__ for kernel, _, _ in every_order.launches]
        assert launched[: len(expected)] == expected


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_far_from_zero(simulator, launcher, shape, axes, n, offset):
    """At mean 1e6 a float32 mean is off by a hundredth of a standard deviation; no gradient may be."""
    arrays = operands(shape, axes, n, "float32", offset)
    assert_gradients(launcher, arrays, (0.0, 0.0, launcher == "norm_rows_backward" or "groups" in launcher), n)


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
def test_huge_and_tiny(simulator, launcher, shape, axes, n):
    for factor in (1e30, 1e-30):
        dy, x, gamma, mean, rstd = operands(shape, axes, n, "float32")
        arrays = dy, x * np.float32(factor), gamma, mean * np.float32(factor), rstd / np.float32(factor)
        use_mean = "channels" not in launcher
        ours = on_cuda(launcher, arrays, (0.0, 0.0, use_mean), n)
        for actual, expected in zip(ours, on_reference(launcher, arrays, (0.0, 0.0, use_mean), n), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
def test_equal_numbers_with_eps_on_the_standard_deviation(simulator, launcher, shape, axes, n):
    dy, x, gamma, mean, rstd = operands(shape, axes, n, "float32")
    arrays = dy, np.full_like(x, 7), gamma, np.full_like(mean, 7), np.full_like(rstd, 10)
    flag = "channels" not in launcher
    for actual, expected in zip(
        on_cuda(launcher, arrays, (0.1, 0.0, flag), n), on_reference(launcher, arrays, (0.1, 0.0, flag), n), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=1e-4)


def test_a_mean_in_float64_keeps_its_digits_where_statistics_are_fixed(simulator):
    for shape in ((6, 3, 40), (40, 3, 1)):
        dy, x, gamma, _, rstd = operands(shape, (0, 2), 3, "float32", 1e6)
        arrays = dy, x, gamma, x.astype("f8").mean((0, 2)), rstd.astype("f8")
        assert_gradients("norm_channels_backward", arrays, (0.0, 0.0, True), 3, statistics="f8")


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_one_bad_element_spoils_its_set_only(simulator, bad):
    for launcher, shape, axes, n in PLACES[:2]:
        dy, x, *rest = operands(shape, axes, n, "float32")
        x = x.copy()
        x[(0,) * x.ndim] = bad
        dx, *_ = on_cuda(launcher, (dy, x, *rest), (0.0, 0.0, True), n)
        assert np.isnan(dx[0]).all()
        assert np.isfinite(dx[1:]).all()


def test_an_infinite_x_in_evaluation_leaves_dx_finite(simulator):
    for shape in ((6, 3, 40), (6, 3, 1), (70, 8, 1)):
        dy, x, *rest = operands(shape, (0, 2), shape[1], "float32")
        x = x.copy()
        x[0, 0, 0] = np.inf
        for wanted in ((True, False, False), (True, True, True)):
            dx, *_ = on_cuda("norm_channels_backward", (dy, x, *rest), (0.0, 0.0, True), shape[1], wanted)
            assert np.isfinite(dx).all()


@pytest.mark.parametrize(("launcher", "shape", "axes", "n"), PLACES)
def test_every_run_gives_the_same_bits(monkeypatch, launcher, shape, axes, n):
    """In whatever order blocks and threads come."""
    import cupy as cp

    from tests.backends.cuda.simulator import Simulator

    arrays = operands(shape, axes, n, "float32")
    results = []
    for order in ("forward", "reverse", "random:2"):
        Simulator(order).install(monkeypatch)
        results.append(on_cuda(launcher, arrays, (0.0, 0.0, "channels" not in launcher), n))
        cp.cuda.set_allocator(None)
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)
