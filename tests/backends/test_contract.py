"""Backends mirror each other: the same launchers with the same signatures, and they agree."""

import inspect
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanorm._dtypes import compute_dtype
from numbanorm.backends import HOST_LAUNCHERS, LAUNCHERS, cpu, cuda, reference
from tests import oracle
from tests.oracle import as_dtype, assert_normalized

dimension = st.sampled_from([1, 2, 3, 5, 8, 31, 33, 64, 70])
dtypes = st.sampled_from(oracle.FLOATS)
seeds = st.integers(0, 1000)


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("launcher", [*LAUNCHERS, *HOST_LAUNCHERS])
def test_signatures_are_equal(launcher):
    assert parameters(getattr(cpu, launcher)) == parameters(getattr(reference, launcher))


@pytest.mark.parametrize("backend", [cpu, reference])
def test_every_launcher_is_there_and_documented(backend):
    assert backend.name == backend.__name__.rsplit(".", 1)[1]
    assert backend.availability() is None
    for launcher in (*LAUNCHERS, *HOST_LAUNCHERS):
        assert getattr(backend, launcher).__doc__
        home = getattr(backend, launcher).__module__.rsplit(".", 1)[1]
        twin = getattr(import_module(f"numbanorm.backends.reference.{home}"), launcher)
        assert twin is getattr(reference, launcher)


def test_the_cuda_backend_names_every_launcher():
    assert set(LAUNCHERS) <= set(cuda.__all__)


def sample(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = as_dtype(rng.standard_normal(shape) * 2 + 3, dtype)
    x.flags.writeable = False
    return x, rng


def poisoned(shape, n):
    return [np.full(shape, np.nan) for _ in range(n)]


def both(launcher, arguments, make_outputs):
    """Outputs of both backends, which start as NaN."""
    results = []
    for backend in (cpu, reference):
        outputs = make_outputs()
        getattr(backend, launcher)(*arguments, *outputs)
        results.append(outputs)
    return results


def assert_moments(ours, theirs):
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


@given(dimension, dimension, dtypes, seeds, st.booleans())
def test_moments_rows(n_rows, n_cols, dtype, seed, masked):
    x, rng = sample((n_rows, n_cols), dtype, seed)
    mask = rng.random(x.shape) < 0.5 if masked else None
    assert_moments(*both("moments_rows", (x, mask), lambda: poisoned(n_rows, 3)))


@given(dimension, dimension, dimension, dtypes, seeds, st.booleans())
def test_moments_cols(n_outer, n_reduce, n_inner, dtype, seed, masked):
    x, rng = sample((n_outer, n_reduce, n_inner), dtype, seed)
    mask = rng.random(x.shape) < 0.5 if masked else None
    assert_moments(*both("moments_cols", (x, mask), lambda: poisoned((n_outer, n_inner), 3)))


@given(dimension, dimension, dimension, seeds)
def test_combine_moments(n_outer, n_reduce, n_inner, seed):
    rng = np.random.default_rng(seed)
    shape = (n_outer, n_reduce, n_inner)
    count = rng.integers(0, 4, shape).astype(np.float64)
    mean, m2 = rng.standard_normal(shape) * (count > 0), rng.random(shape) * (count > 0)
    assert_moments(*both("combine_moments", (count, mean, m2), lambda: poisoned((n_outer, n_inner), 3)))


def norm_parameters(rng, dtype, lengths):
    return [rng.standard_normal(length).astype(compute_dtype(as_dtype(0, dtype).dtype)) for length in lengths]


def norm_outputs(x, n, dtype=None):
    def make():
        y = np.full(x.shape, np.nan, x.dtype)
        return y, *(np.full(n, np.nan, dtype or compute_dtype(x.dtype)) for _ in range(2))

    return make


def assert_norms(ours, theirs):
    assert_normalized(ours[0], theirs[0].astype(np.float64))
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=1e-7)


@given(dimension, dimension, dtypes, seeds, st.booleans(), st.booleans(), st.booleans(), st.data())
def test_norm_rows(n_rows, n_cols, dtype, seed, on_std, use_mean, wanted, data):
    x, rng = sample((n_rows, n_cols), dtype, seed)
    gamma, beta = norm_parameters(rng, dtype, [data.draw(st.sampled_from([1, n_cols])) for _ in range(2)])
    arguments = (x, gamma, beta, 0.1, on_std, use_mean)
    assert_norms(*both("norm_rows", arguments, norm_outputs(x, n_rows if wanted else 0)))


@given(dimension, st.integers(1, 4), dimension, dtypes, seeds, st.booleans(), st.data())
def test_norm_groups(n_rows, n_channels, n_inner, dtype, seed, use_mean, data):
    x, rng = sample((n_rows, n_channels, n_inner), dtype, seed)
    repeats = data.draw(st.sampled_from([r for r in range(1, n_rows + 1) if n_rows % r == 0]))
    lengths = [data.draw(st.sampled_from([1, n_channels * n_rows // repeats])) for _ in range(2)]
    gamma, beta = norm_parameters(rng, dtype, lengths)
    arguments = (x, gamma, beta, 0.1, False, use_mean)
    assert_norms(*both("norm_groups", arguments, norm_outputs(x, n_rows)))


@given(dimension, dimension, dimension, dtypes, seeds, st.data())
def test_norm_channels(n, n_channels, n_inner, dtype, seed, data):
    x, rng = sample((n, n_channels, n_inner), dtype, seed)
    gamma, beta = norm_parameters(rng, dtype, [data.draw(st.sampled_from([1, n_channels])) for _ in range(2)])
    ours, theirs = both("norm_channels", (x, gamma, beta, 0.1, False), norm_outputs(x, n_channels, np.float64))
    assert_norms(ours, theirs)
    assert_moments(ours[1:], theirs[1:])


@pytest.mark.parametrize("launcher", ["affine_rows", "affine_cols"])
@given(dimension, dimension, dimension, dtypes, seeds, st.data())
def test_affine(launcher, n_outer, n_mid, n_inner, dtype, seed, data):
    shape = (n_outer, n_mid, n_inner)
    x, rng = sample(shape, dtype, seed)
    inner = n_inner if launcher == "affine_cols" else 1
    lead = [data.draw(st.sampled_from([1, n])) for n in shape[:2]]
    statistic = data.draw(st.sampled_from([np.float32, np.float64]))
    mean, var = (
        (rng.standard_normal((*lead, inner)) + 3).astype(statistic),
        rng.random((*lead, inner)).astype(statistic),
    )
    gamma, beta = norm_parameters(rng, dtype, [[data.draw(st.sampled_from([1, n])) for n in shape] for _ in range(2)])
    scale = 0.3, data.draw(st.booleans())
    ours, theirs = both(launcher, (x, mean, var, *scale, gamma, beta), lambda: [np.full(shape, np.nan, x.dtype)])
    assert_normalized(ours[0], theirs[0].astype(np.float64))


@pytest.mark.parametrize("launcher", ["mean_var_rows", "mean_var_cols", "mean_var_channels"])
@given(dimension, dimension, dimension, dtypes, seeds, st.booleans(), st.integers(0, 2), st.sampled_from([0, 1, 2]))
def test_mean_var(launcher, n_outer, n_reduce, n_inner, dtype, seed, root, ddof, unwanted):
    shape = (n_outer, n_inner) if launcher == "mean_var_rows" else (n_outer, n_reduce, n_inner)
    kept = {"mean_var_rows": n_outer, "mean_var_cols": (n_outer, n_inner), "mean_var_channels": n_reduce}[launcher]
    x, _ = sample(shape, dtype, seed)

    def outputs():
        return [np.full(kept if unwanted != i else 0, np.nan, x.dtype) for i in range(2)]

    ours, theirs = both(launcher, (x, ddof, root), outputs)
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=1e-6 if x.itemsize > 2 else 1e-2)


few = st.sampled_from([1, 2, 5, 17])


@given(few, dimension, few, dtypes, seeds, st.integers(0, 80), st.integers(0, 80), st.data())
def test_local_response(n_outer, n_channels, n_inner, dtype, seed, before, after, data):
    x, rng = sample((n_outer, n_channels, n_inner), dtype, seed)
    dy = as_dtype(rng.standard_normal(x.shape), dtype)
    scale = before, after, 0.3, data.draw(st.sampled_from([0.75, 0.5, 1.0, 0.3])), 1.5

    def output():
        return [np.full(x.shape, np.nan, x.dtype)]

    for launcher, inputs in (("local_response", (x,)), ("local_response_backward", (dy, x))):
        ours, theirs = both(launcher, (*inputs, *scale), output)
        assert_normalized(ours[0], theirs[0].astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finish_moments(dtype):
    count, mean, m2 = np.array([4.0, 1.0, 0.0]), np.array([3.0, 2.0, 0.0]), np.array([8.0, 0.0, 0.0])
    for use_mean, root, expected in (
        (True, False, [8 / 3, np.nan, np.nan]),
        (True, True, [(8 / 3) ** 0.5, np.nan, np.nan]),
        (False, False, [8 / 3 + 9, np.nan, np.nan]),
    ):
        ours, theirs = both(
            "finish_moments", (count, mean, m2, 1, use_mean, root), lambda: np.full((2, 3), np.nan, dtype)
        )
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours[1], expected, rtol=1e-6)
        np.testing.assert_array_equal(ours[0], [3 * use_mean, 2 * use_mean, np.nan])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_update_running(dtype):
    for backend in (cpu, reference):
        mean, var = np.array([0, 8], dtype), np.array([1, 2], dtype)
        backend.update_running(np.array([4.0, 4.0]), np.array([3.0, 6.0]), 4 / 3, 0.25, mean, var)
        np.testing.assert_array_equal(mean, np.array([1, 7], dtype))
        np.testing.assert_array_equal(var, np.array([1.75, 3.5], dtype))
        backend.update_running(np.array([4.0, 4.0]), np.array([3.0, 6.0]), 1.0, 0.5, None, None)
