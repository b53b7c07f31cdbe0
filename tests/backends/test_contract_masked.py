"""Masked launchers of the host's backends, against their formulas in extended precision."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanorm._dtypes import compute_dtype
from numbanorm.backends import cpu, reference
from tests import oracle
from tests.oracle import as_dtype, assert_normalized

BACKENDS = pytest.mark.parametrize("backend", [cpu, reference], ids=["cpu", "reference"])
KINDS = pytest.mark.parametrize("kind", ["mask", "lengths"])
dimension = st.sampled_from([1, 2, 3, 5, 8, 31, 33, 64, 70])
dtypes = st.sampled_from(oracle.FLOATS)
kinds = st.sampled_from(["mask", "lengths"])
seeds = st.integers(0, 1000)
scales = st.builds(
    SimpleNamespace,
    eps=st.sampled_from([1e-5, 0.1]),
    eps_on_std=st.booleans(),
    use_mean=st.booleans(),
    ddof=st.sampled_from([0.0, 1.0]),
)
PLAIN = SimpleNamespace(eps=1e-5, eps_on_std=False, use_mean=True, ddof=0.0)


def draw_taken(rng, shape, kind, n_lines):
    """What a launcher takes and the same as a mask; some sets are empty, some full."""
    length = int(np.prod(shape)) // n_lines
    counts = np.clip(rng.integers(-length // 4, length + length // 4 + 2, n_lines), 0, length)
    inside = (np.arange(length) < counts[:, None]).reshape(shape)
    if kind == "lengths":
        return counts, inside
    inside = inside & (rng.random(shape) < 0.8)
    return inside, inside


def sample(rng, inside, dtype, mean=3.0, std=2.0):
    """Numbers where x takes part; elsewhere what must not reach a result."""
    x = as_dtype(rng.standard_normal(inside.shape) * std + mean, dtype)
    padding = np.resize([np.nan, np.inf, -np.inf, 7.0], inside.shape).astype(x.dtype)
    x = np.where(inside, x, padding)
    x.flags.writeable = False
    return x


def draw_parameters(rng, x, lengths):
    return [rng.standard_normal(length).astype(compute_dtype(x.dtype)) for length in lengths]


def statistics(x, inside, axes, scale):
    """Mean, rstd and what is normalised, of the elements that take part."""
    wide = np.where(inside, x.astype(np.float64), 0).astype(np.longdouble)
    count = inside.sum(axes, keepdims=True)
    with np.errstate(all="ignore"):
        mean = wide.sum(axes, keepdims=True) / count
        var = (np.where(inside, wide - mean, 0) ** 2).sum(axes, keepdims=True) / np.maximum(count - scale.ddof, 0)
        if not scale.use_mean:
            mean, var = mean * 0, var + mean**2
        rstd = 1 / (np.sqrt(var) + scale.eps) if scale.eps_on_std else 1 / np.sqrt(var + scale.eps)
        return mean, rstd, (wide - mean) * rstd


def assert_written(y, x, inside, expected, keep):
    """`expected` within the dtype's tolerance where elements take part, and padding elsewhere."""
    assert_normalized(y[inside], expected.astype(np.float64)[inside])
    padding = x[~inside] if keep else np.zeros_like(y[~inside])
    np.testing.assert_array_equal(y[~inside].astype(np.float64), padding.astype(np.float64))


def assert_statistics(actual, expected):
    rtol = 2e-7 if actual.dtype == np.float32 else 1e-11
    np.testing.assert_allclose(actual, expected.reshape(-1).astype(np.float64), rtol=rtol, atol=rtol)


def outputs(x, n):
    """y, mean and rstd, which start as NaN."""
    return np.full(x.shape, np.nan, x.dtype), *np.full((2, n), np.nan, compute_dtype(x.dtype))


def check_rows(backend, x, taken, inside, gamma, beta, scale, keep=False, wanted=True):
    y, mean, rstd = outputs(x, len(x) if wanted else 0)
    options = scale.eps, scale.eps_on_std, scale.use_mean, scale.ddof, keep
    backend.masked_norm_rows(x, taken, gamma, beta, *options, y, mean, rstd)
    mu, r, xhat = statistics(x, inside, (1,), scale)
    with np.errstate(invalid="ignore"):
        assert_written(y, x, inside, xhat * gamma.astype(np.float64) + beta, keep)
    if wanted:
        assert_statistics(mean, mu)
        assert_statistics(rstd, r)


def check_groups(backend, x, taken, inside, gamma, beta, scale, keep=False):
    n_rows, n_channels, _ = x.shape
    y, mean, rstd = outputs(x, n_rows)
    options = scale.eps, scale.eps_on_std, scale.use_mean, scale.ddof, keep
    backend.masked_norm_groups(x, taken, gamma, beta, *options, y, mean, rstd)
    mu, r, xhat = statistics(x, inside, (1, 2), scale)
    of_line = [np.resize(p.astype(np.float64), (n_rows, n_channels, 1)) for p in (gamma, beta)]
    with np.errstate(invalid="ignore"):
        assert_written(y, x, inside, xhat * of_line[0] + of_line[1], keep)
    assert_statistics(mean, mu)
    assert_statistics(rstd, r)


def check_affine(backend, x, taken, inside, mean, var, gamma, beta, scale, keep=False):
    y, _, _ = outputs(x, 0)
    backend.masked_affine(x, taken, mean, var, scale.eps, scale.eps_on_std, gamma, beta, keep, y)
    rstd = 1 / (np.sqrt(var) + scale.eps) if scale.eps_on_std else 1 / np.sqrt(var + scale.eps)
    m, r, g, b = (a.astype(np.float64)[:, None] for a in (mean, rstd, gamma, beta))
    with np.errstate(invalid="ignore"):
        assert_written(y, x, inside, (x.astype(np.float64) - m) * r * g + b, keep)


@BACKENDS
@given(dimension, dimension, dtypes, kinds, seeds, scales, st.booleans(), st.booleans(), st.data())
def test_masked_norm_rows(backend, n_rows, n_cols, dtype, kind, seed, scale, keep, wanted, data):
    rng = np.random.default_rng(seed)
    taken, inside = draw_taken(rng, (n_rows, n_cols), kind, n_rows)
    x = sample(rng, inside, dtype)
    gamma, beta = draw_parameters(rng, x, [data.draw(st.sampled_from([1, n_cols])) for _ in range(2)])
    if scale.ddof:  # one number has no variance
        inside_enough = inside.sum(1) != 1
        x, inside = x[inside_enough], inside[inside_enough]
        taken = taken[inside_enough]
    if len(x):
        check_rows(backend, x, taken, inside, gamma, beta, scale, keep, wanted)


@BACKENDS
@given(dimension, st.integers(1, 4), dimension, dtypes, kinds, seeds, st.booleans(), st.booleans(), st.data())
def test_masked_norm_groups(backend, n_rows, n_channels, n_inner, dtype, kind, seed, use_mean, keep, data):
    rng = np.random.default_rng(seed)
    shape = n_rows, n_channels, n_inner
    taken, inside = draw_taken(rng, shape, kind, n_rows * n_channels)
    x = sample(rng, inside, dtype)
    repeats = data.draw(st.sampled_from([r for r in range(1, n_rows + 1) if n_rows % r == 0]))
    lengths = [data.draw(st.sampled_from([1, n_channels * n_rows // repeats])) for _ in range(2)]
    gamma, beta = draw_parameters(rng, x, lengths)
    scale = SimpleNamespace(**{**vars(PLAIN), "use_mean": use_mean})
    check_groups(backend, x, taken, inside, gamma, beta, scale, keep)


@BACKENDS
@given(dimension, dimension, dimension, dtypes, kinds, seeds, scales, st.booleans(), st.data())
def test_masked_affine(backend, n, n_channels, n_inner, dtype, kind, seed, scale, keep, data):
    rng = np.random.default_rng(seed)
    taken, inside = draw_taken(rng, (n, n_channels, n_inner), kind, n * n_channels if n_inner > 1 else n)
    x = sample(rng, inside, dtype)
    gamma, beta = draw_parameters(rng, x, [data.draw(st.sampled_from([1, n_channels])) for _ in range(2)])
    mean, var = rng.standard_normal(n_channels) + 3, rng.random(n_channels) + 0.5
    check_affine(backend, x, taken, inside, mean, var, gamma, beta, scale, keep)


@BACKENDS
@KINDS
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_sets_that_all_threads_share(backend, kind, dtype, rng):
    shape, keep = (2, 2, 33_001), kind == "lengths"
    taken, inside = draw_taken(rng, shape, kind, 4)
    x = sample(rng, inside, dtype)
    gamma, beta = draw_parameters(rng, x, [2, 4])
    scale = SimpleNamespace(eps=0.1, eps_on_std=True, use_mean=True, ddof=1.0)
    check_groups(backend, x, taken, inside, gamma, gamma[:1], scale, keep)
    check_affine(backend, x, taken, inside, np.ones(2), np.ones(2), gamma, beta[:1], scale, keep)
    rows = x.reshape(2, -1)
    gamma, beta = draw_parameters(rng, x, [1, rows.shape[1]])
    taken, inside = draw_taken(rng, rows.shape, kind, 2)
    check_rows(backend, sample(rng, inside, dtype), taken, inside, gamma, beta, scale, keep)


@BACKENDS
@KINDS
def test_many_rows_and_columns(backend, kind, rng):
    """Sizes that are cut into parts, batches, blocks, tiles and chunks."""
    for shape in ((900, 70), (33, 5000)):
        taken, inside = draw_taken(rng, shape, kind, shape[0])
        x = sample(rng, inside, "float32", mean=1000)
        gamma, beta = draw_parameters(rng, x, [shape[1], 1])
        check_rows(backend, x, taken, inside, gamma, beta, PLAIN)
    for shape in ((5000, 7, 1), (301, 1500, 1), (999, 5, 11), (40, 6, 300)):
        n_lines = shape[0] * shape[1] if shape[2] > 1 else shape[0]
        taken, inside = draw_taken(rng, shape, kind, n_lines)
        x = sample(rng, inside, "float32")
        gamma, beta = draw_parameters(rng, x, [1, shape[1]])
        mean, var = rng.standard_normal(shape[1]), rng.random(shape[1]) + 0.5
        check_affine(backend, x, taken, inside, mean, var, gamma, beta, PLAIN)


@BACKENDS
@KINDS
@pytest.mark.parametrize(("dtype", "mean", "std"), [(np.float32, 1e4, 1), (np.float32, 1e6, 1), (np.float64, 1e6, 1)])
@pytest.mark.parametrize("shape", [(9, 2, 150), (1, 3, 35_000)])
def test_far_from_zero(backend, kind, dtype, mean, std, shape, rng):
    taken, inside = draw_taken(rng, shape, kind, shape[0] * shape[1])
    x = sample(rng, inside, dtype, mean, std)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    check_groups(backend, x, taken, inside, one, zero, PLAIN)


@BACKENDS
@KINDS
@pytest.mark.parametrize("size", [1e30, 1e-25])
def test_very_large_and_small(backend, kind, size, rng):
    taken, inside = draw_taken(rng, (40, 300), kind, 40)
    x = sample(rng, inside, np.float32, 3 * size, size)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    scale = SimpleNamespace(**{**vars(PLAIN), "eps": 0.0})
    y, mean, rstd = outputs(x, len(x))
    backend.masked_norm_rows(x, taken, one, zero, 0.0, False, True, 0.0, False, y, mean, rstd)
    mu, r, xhat = statistics(x, inside, (1,), scale)
    several = inside.sum(1) > 1
    assert_written(y[several], x[several], inside[several], xhat[several], False)
    for actual, expected in ((mean, mu), (rstd, r)):
        np.testing.assert_allclose(actual[several], expected[several, 0].astype(float), rtol=2e-7)


@BACKENDS
@KINDS
@pytest.mark.parametrize("use_mean", [True, False])
@pytest.mark.parametrize("n_cols", [5, 40_000])
def test_sets_without_elements(backend, kind, use_mean, n_cols):
    x = np.full((2, n_cols), np.nan, np.float32)
    taken = np.zeros(x.shape, bool) if kind == "mask" else np.zeros(2, np.int64)
    one = np.ones(1, np.float32)
    y, mean, rstd = outputs(x, 2)
    mean[:] = rstd[:] = 7
    backend.masked_norm_rows(x, taken, one, one, 1e-5, False, use_mean, 0.0, False, y, mean, rstd)
    assert (y == 0).all()
    assert np.isnan(mean).all()
    assert np.isnan(rstd).all()


@pytest.mark.compiled
@KINDS
@pytest.mark.parametrize("dtype", oracle.FLOATS)
@pytest.mark.parametrize("shape", [(70, 3, 33), (5, 2, 1500), (2, 3, 30_000)])
def test_where_all_take_part_it_is_the_unmasked_launcher(kind, dtype, shape, rng):
    n_rows, n_channels, n_inner = shape
    n_lines = n_rows * n_channels
    taken = np.ones(shape, bool) if kind == "mask" else np.full(n_lines, n_inner)
    x = sample(rng, np.ones(shape, bool), dtype)
    gamma, beta = draw_parameters(rng, x, [n_channels, n_channels])
    ours, theirs = outputs(x, n_rows), outputs(x, n_rows)
    cpu.masked_norm_groups(x, taken, gamma, beta, 1e-5, False, True, 0.0, False, *ours)
    cpu.norm_groups(x, gamma, beta, 1e-5, False, True, *theirs)
    assert_close(ours, theirs)
    rows, in_rows = x.reshape(n_lines, n_inner), taken.reshape(n_lines, -1) if kind == "mask" else taken
    ours, theirs = outputs(rows, n_lines), outputs(rows, n_lines)
    cpu.masked_norm_rows(rows, in_rows, gamma[:1], beta[:1], 1e-5, False, False, 0.0, False, *ours)
    cpu.norm_rows(rows, gamma[:1], beta[:1], 1e-5, False, False, *theirs)
    assert_close(ours, theirs)
    mean, var = rng.standard_normal(n_channels), rng.random(n_channels)
    y, expected = outputs(x, 0)[0], outputs(x, 0)[0]
    cpu.masked_affine(x, taken, mean, var, 1e-5, False, gamma, beta, False, y)
    columns = (a.reshape(1, -1, 1) for a in (mean, var))
    cpu.affine_rows(x, *columns, 1e-5, False, gamma.reshape(1, -1, 1), beta.reshape(1, -1, 1), expected)
    np.testing.assert_array_equal(y, expected)


def assert_close(ours, theirs):
    """Some units in the last place."""
    for actual, expected in zip(ours, theirs, strict=True):
        bound = 32 * oracle.ROUNDING[expected.dtype.name]
        np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=bound, atol=bound)


@BACKENDS
@KINDS
@pytest.mark.parametrize("keep", [False, True])
def test_in_place(backend, kind, keep, rng):
    shape = 6, 3, 50
    taken, inside = draw_taken(rng, shape, kind, 18)
    x = sample(rng, inside, np.float32)
    gamma, beta = draw_parameters(rng, x, [3, 3])
    expected, mean, rstd = outputs(x, 0)
    options = gamma, beta, 1e-5, False, True, 0.0, keep
    backend.masked_norm_groups(x, taken, *options, expected, mean, rstd)
    y = x.copy()
    backend.masked_norm_groups(y, taken, *options, y, mean, rstd)
    np.testing.assert_array_equal(y, expected)
