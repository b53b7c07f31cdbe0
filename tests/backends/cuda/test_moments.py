"""Statistics on the device's own code, thread by thread, against the reference backend."""

from functools import cache

import ml_dtypes
import numpy as np
import pytest

from numbanorm.backends import reference
from numbanorm.backends.cuda import _launch_moments, moments
from tests.backends.cuda import host_arrays

KINDS = ("float32", "bfloat16", "float16", "float64")
#: Relative errors: one rounding and less than another, of the type that is computed or stored in.
COMPUTED = {"float32": 1.2e-7, "bfloat16": 1.2e-7, "float16": 1.2e-7, "float64": 1e-14}
STORED = {**COMPUTED, "bfloat16": 2.0**-8 * 1.01, "float16": 2.0**-11 * 1.01}


def dtype_of(kind):
    return np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)


@cache
def sample(shape, kind, mean=3.0, std=2.0):
    values = np.random.default_rng(np.prod(shape)).standard_normal(shape) * std + mean
    return values.astype(dtype_of(kind))


def on_device(launcher, x, *arguments, offset=0, dtype=None, n_outputs=2):
    shape = x.shape[:1] if x.ndim == 2 else (x.shape[0], x.shape[2])
    outputs = [host_arrays.empty(shape, dtype or x.dtype) for _ in range(n_outputs)]
    getattr(moments, launcher)(host_arrays.array(x, offset), *arguments, *outputs)
    return [host_arrays.as_numpy(output).astype(np.float64) for output in outputs]


def exact(x, ddof=0):
    values = x.astype(np.longdouble)
    axis = 1
    with np.errstate(all="ignore"):
        mean = values.mean(axis)
        spread = values - np.expand_dims(mean, axis)
        return mean.astype(float), ((spread**2).sum(axis) / max(x.shape[axis] - ddof, 0)).astype(float)


def assert_close(mean, var, x, tolerance, ddof=0):
    true_mean, true_var = exact(x, ddof)
    unit = np.maximum(np.abs(true_mean), np.sqrt(exact(x)[1]))
    assert np.all(np.abs(mean - true_mean) <= tolerance * unit)
    with np.errstate(invalid="ignore"):
        close = np.abs(var - true_var) <= tolerance * true_var
    assert np.all(close | (var == true_var) | (np.isnan(var) & np.isnan(true_var)))


ROWS = [(3, 1), (3, 7), (9, 8), (2, 31), (5, 32), (2, 33), (2, 128), (2, 1000), (1, 1024), (1, 1025), (1, 2056)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rows(every_order, kind, shape):
    x = sample(shape, kind)
    assert_close(*on_device("mean_var_rows", x, 0, False), x, STORED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_in_pieces(every_order, kind):
    x = sample((1, 18_000 if kind in ("float32", "float64") else 34_000), kind)
    assert_close(*on_device("mean_var_rows", x, 1, False), x, STORED[kind], ddof=1)
    assert every_order.launches[-1][1] > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(7, 32), (1, 2056)], ids=str)
def test_unaligned_rows(simulator, kind, shape):
    x = sample(shape, kind)
    assert_close(*on_device("mean_var_rows", x, 0, False, offset=1), x, STORED[kind])


COLUMNS = [
    (2, 7, 3),  # a thread for each column
    (1, 600, 3),  # narrow: rows behind each other
    (2, 300, 33),
    (1, 3000, 4),  # narrow, in pieces
    (1, 100, 40),
    (1, 300, 72),  # tiles, in pieces
]


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", COLUMNS, ids=str)
def test_columns(every_order, kind, shape):
    x = sample(shape, kind)
    assert_close(*on_device("mean_var_cols", x, 0, False), x, STORED[kind])


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 7, 8), (1, 300, 8), (1, 100, 70)], ids=str)
def test_unaligned_columns(simulator, kind, shape):
    x = sample(shape, kind)
    assert_close(*on_device("mean_var_cols", x, 0, False, offset=1), x, STORED[kind])


@pytest.fixture
def many_levels(monkeypatch):
    """Columns in more pieces than are merged at once, small as they are."""
    for name, value in {"BUSY": 9, "IN_TURN": 1, "worth_a_part": lambda itemsize: 1}.items():
        monkeypatch.setattr(_launch_moments, name, value)
    moments._cols_launch.cache_clear()
    yield
    moments._cols_launch.cache_clear()


@pytest.mark.parametrize("shape", [(1, 330, 72), (2, 250, 56)], ids=str)
def test_parts_are_merged_by_groups(every_order, many_levels, shape):
    if (every_order.order == "random:1") != (shape[0] == 2):
        return
    plan = _launch_moments.cols("bfloat16", *shape, True)
    assert plan.n_parts > plan.n_splits > plan.group > 1
    x = sample(shape, "bfloat16", 100.0)
    assert_close(*on_device("mean_var_cols", x, 0, False), x, STORED["bfloat16"])


HARD = {
    "mean 1e4": lambda z: z + 1e4,
    "mean 1e6": lambda z: z + 1e6,
    "ramp": lambda z: np.arange(z.size).reshape(z.shape) + 1e5,
    "1e30": lambda z: z * 1e30,
    "1e-30": lambda z: z * 1e-30,
    "constant": lambda z: np.full_like(z, 1 / 3),
    "zero": np.zeros_like,
    "zeros, then 1e30": lambda z: np.where(np.ones_like(z).cumsum(1) < 30, 0, z * 1e30),
    "an outlier first": lambda z: np.where(np.arange(z.size).reshape(z.shape) == 0, 1e6, z),
    "two values": lambda z: np.where(z > 0, 0.1, 0.7),
}


def hard(name, shape):
    z = np.random.default_rng(1).standard_normal(shape)
    return HARD[name](z).astype(np.float32)


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("shape", [(4, 40), (2, 600), (1, 9000)], ids=str)
def test_hard_rows(simulator, name, shape):
    x = hard(name, shape)
    mean, std = on_device("mean_var_rows", x, 0, True)
    np.testing.assert_allclose(std, np.sqrt(exact(x)[1]), rtol=1.2e-7)
    np.testing.assert_allclose(mean, exact(x)[0], rtol=1.2e-7, atol=1.2e-7 * np.sqrt(exact(x)[1]).max())


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("shape", [(1, 40, 6), (1, 400, 6), (1, 90, 72)], ids=str)
def test_hard_columns(simulator, name, shape):
    x = hard(name, shape)
    mean, std = on_device("mean_var_cols", x, 0, True)
    np.testing.assert_allclose(std, np.sqrt(exact(x)[1]), rtol=1.2e-7)
    np.testing.assert_allclose(mean, exact(x)[0], rtol=1.2e-7, atol=1.2e-7 * np.sqrt(exact(x)[1]).max())


def as_rows(x):
    """The channels of x (n, n_channels, n_inner) as rows."""
    return np.ascontiguousarray(x.swapaxes(0, 1)).reshape(x.shape[1], -1)


def channels_on_device(x, ddof=0, root=False, offset=0):
    outputs = [host_arrays.empty((x.shape[1],), x.dtype) for _ in range(2)]
    moments.mean_var_channels(host_arrays.array(x, offset), ddof, root, *outputs)
    return [host_arrays.as_numpy(output).astype(np.float64) for output in outputs]


CHANNELS = [(1, 2, 1), (2, 3, 16), (3, 2, 17), (5, 3, 49), (2, 2, 1000), (3, 1, 5000), (40, 2, 24), (60, 2, 96)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", CHANNELS, ids=str)
def test_channels(every_order, kind, shape):
    x = sample(shape, kind)
    assert_close(*channels_on_device(x), as_rows(x), STORED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_channels_far_from_zero_unaligned_and_rooted(simulator, kind):
    for shape in ((3, 2, 48), (9, 2, 800)):
        far = {"float16": 100.0, "bfloat16": 3.0}.get(kind, 1e6)
        x = sample(shape, kind, mean=far, std=1.0)
        for offset in (0, 1):
            assert_close(*channels_on_device(x, 1, offset=offset), as_rows(x), STORED[kind], ddof=1)
        std = channels_on_device(x, root=True)[1]
        np.testing.assert_allclose(std, np.sqrt(exact(as_rows(x))[1]), rtol=STORED[kind])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_channels_of_any_size(simulator, scale):
    x = (sample((3, 2, 400), "float32") * np.float32(scale)).astype("f4")
    std = channels_on_device(x, root=True)[1]
    np.testing.assert_allclose(std, np.sqrt(exact(as_rows(x.astype("f8")))[1]), rtol=1.2e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite(simulator, kind, bad):
    for shape, launcher in (((2, 40), "rows"), ((2, 2000), "rows"), ((1, 90, 3), "cols"), ((1, 9, 3), "cols")):
        x = sample(shape, kind).copy()
        x.reshape(-1)[5] = bad
        mean, var = on_device(f"mean_var_{launcher}", x, 0, False)
        _, mu, m2 = on_device(f"moments_{launcher}", x, None, dtype=np.float64, n_outputs=3)
        there = ~np.isfinite(x.astype(float)).all(1)
        for result in (mean, mu):
            np.testing.assert_array_equal(result[there], bad)
            assert np.isfinite(result[~there]).all()
        for result in (var, m2):
            np.testing.assert_array_equal(np.isnan(result), there)


@pytest.mark.parametrize("ddof", [0, 1, 3, 4, 7.5])
def test_ddof(simulator, ddof):
    x = sample((2, 4), "float32")
    assert_close(*on_device("mean_var_rows", x, ddof, False), x, 1.2e-7, ddof)


def test_outputs_that_are_not_wanted(simulator):
    x, none = sample((3, 40), "float32"), host_arrays.empty((0,), np.float32)
    out = host_arrays.empty((3,), np.float32)
    moments.mean_var_rows(host_arrays.array(x), 0, False, none, out)
    np.testing.assert_allclose(host_arrays.as_numpy(out), exact(x)[1], rtol=1.2e-7)
    moments.mean_var_rows(host_arrays.array(x), 0, False, out, none)
    np.testing.assert_allclose(host_arrays.as_numpy(out), exact(x)[0], rtol=1.2e-7)


def assert_moments(actual, expected, x, kind):
    count, mean, m2 = expected
    np.testing.assert_array_equal(actual[0], count)
    unit = np.maximum(np.abs(mean), np.sqrt(m2 / np.maximum(count, 1)))
    assert np.all(np.abs(actual[1] - mean) <= COMPUTED[kind] * unit)
    np.testing.assert_allclose(actual[2], m2, rtol=COMPUTED[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [None, 0.5, 0.02])
@pytest.mark.parametrize("shape", [(3, 7), (2, 1000), (1, 9000), (2, 7, 3), (1, 300, 40), (2, 200, 5)], ids=str)
def test_moments(simulator, kind, share, shape):
    if share is not None and np.prod(shape) > 8000 and kind != "float32":
        return
    x = sample(shape, kind, 100.0)
    weights = None if share is None else np.random.default_rng(2).random(shape) < share
    launcher = f"moments_{'rows' if x.ndim == 2 else 'cols'}"
    expected = [np.empty(x.shape[:1] if x.ndim == 2 else (x.shape[0], x.shape[2])) for _ in range(3)]
    getattr(reference, launcher)(x, weights, *expected)
    given = None if weights is None else host_arrays.array(weights)
    assert_moments(on_device(launcher, x, given, dtype=np.float64, n_outputs=3), expected, x, kind)


@pytest.mark.parametrize("shape", [(1, 1, 300), (3, 5, 1), (2, 200, 1), (2, 3, 40), (1, 70, 20)], ids=str)
def test_combine(every_order, shape):
    rng = np.random.default_rng(3)
    count = rng.integers(0, 4, shape).astype(np.float64)
    parts = count, rng.standard_normal(shape) * (count > 0), rng.random(shape) * (count > 0)
    expected = [np.empty((shape[0], shape[2])) for _ in range(3)]
    reference.combine_moments(*parts, *expected)
    outputs = [host_arrays.empty((shape[0], shape[2]), np.float64) for _ in range(3)]
    moments.combine_moments(*map(host_arrays.array, parts), *outputs)
    for actual, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(host_arrays.as_numpy(actual), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_mean", [True, False])
@pytest.mark.parametrize("root", [True, False])
def test_finish(simulator, kind, use_mean, root):
    rng = np.random.default_rng(4)
    given = np.array([4.0, 1, 0, 3, 2]), rng.standard_normal(5), rng.random(5)
    for lengths in ((5, 5), (0, 5), (5, 0)):
        outputs = [host_arrays.empty((length,), dtype_of(kind)) for length in lengths]
        expected = [np.empty(length, dtype_of(kind)) for length in lengths]
        moments.finish_moments(*map(host_arrays.array, given), 1, use_mean, root, *outputs)
        reference.finish_moments(*given, 1, use_mean, root, *expected)
        for actual, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(host_arrays.as_numpy(actual).astype(float), wanted.astype(float))


def test_update_running(simulator):
    rng = np.random.default_rng(5)
    mean, var, running_mean, running_var = rng.random((4, 300)).astype(np.float32)
    actual = [host_arrays.array(array) for array in (running_mean, running_var)]
    new = host_arrays.array(mean), host_arrays.array(var)
    moments.update_running(*new, 1.5, 0.1, *actual)
    reference.update_running(mean, var, 1.5, 0.1, running_mean, running_var)
    np.testing.assert_array_equal(host_arrays.as_numpy(actual[0]), running_mean)
    np.testing.assert_array_equal(host_arrays.as_numpy(actual[1]), running_var)
    moments.update_running(*new, 1.5, 0.1, None, actual[1])
    np.testing.assert_array_equal(host_arrays.as_numpy(actual[0]), running_mean)
