"""Given statistics applied thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm._recurrences import reciprocal_std
from numbanorm.backends.cuda import affine
from tests.backends.cuda import host_arrays
from tests.backends.cuda.test_normalize import LENGTHS, compute, sample
from tests.oracle import FLOATS, assert_normalized


def check(
    launcher, shape, dtype, stat_shape, gamma_shape, beta_shape,
    eps_on_std=False, offset=0, in_place=False, far=0, given=None,
):  # fmt: skip
    """`far` from zero; statistics in the compute dtype, or in the dtypes `given`."""
    x, rng = sample(shape, dtype)
    x = (x + far).astype(x.dtype)
    real = compute(x)
    mean, gamma, beta = (rng.standard_normal(s) for s in (stat_shape, gamma_shape, beta_shape))
    mean, var = (a.astype(t) for a, t in zip((mean + far, rng.random(stat_shape)), given or (real, real), strict=True))
    gamma, beta = gamma.astype(real), beta.astype(real)
    arrays = [host_arrays.array(x, offset), *map(host_arrays.array, (mean, var, gamma, beta))]
    y = arrays[0] if in_place else host_arrays.empty(shape, x.dtype, offset)
    launcher(*arrays[:3], 0.1, eps_on_std, *arrays[3:], y)
    wide = [a.astype(np.float64) for a in (x, mean, var, gamma, beta)]
    expected = (wide[0] - wide[1]) * reciprocal_std(wide[2], 0.1, eps_on_std) * wide[3] + wide[4]
    assert_normalized(host_arrays.as_numpy(y), expected)


ONE = (1, 1, 1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_inner", LENGTHS)
def test_lengths(simulator, n_inner, dtype):
    check(affine.affine_rows, (2, 3, n_inner), dtype, (1, 3, 1), (1, 3, 1), (1, 3, 1))
    check(affine.affine_cols, (2, 3, n_inner), dtype, (1, 1, n_inner), (1, 1, n_inner), (1, 1, n_inner))


@pytest.mark.parametrize("n_inner", [5, 40])
@pytest.mark.parametrize("stat", [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("gamma", [(1, 1, 0), (1, 3, 0), (2, 3, 1), (1, 1, 1), (2, 1, 1)])
def test_broadcasting(simulator, n_inner, stat, gamma):
    gamma_shape = (*gamma[:2], n_inner if gamma[2] else 1)
    shapes = [(gamma_shape, gamma_shape), (gamma_shape, ONE), (ONE, gamma_shape)]
    for gamma_shape, beta_shape in shapes:
        for launcher, inner in ((affine.affine_rows, 1), (affine.affine_cols, n_inner)):
            check(launcher, (2, 3, n_inner), "float32", (*stat, inner), gamma_shape, beta_shape, eps_on_std=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place_and_unaligned(every_order, dtype):
    for offset in (0, 1):
        check(affine.affine_rows, (2, 3, 40), dtype, (1, 3, 1), ONE, ONE, offset=offset, in_place=True)
        check(affine.affine_cols, (2, 5, 40), dtype, (1, 1, 40), ONE, ONE, offset=offset, in_place=True)


def test_rows_in_pieces(simulator):
    check(affine.affine_rows, (1, 2, 4160), "float32", (1, 2, 1), (1, 2, 1), ONE)
    check(affine.affine_rows, (1, 2, 4161), "float16", (1, 2, 1), (1, 1, 4161), ONE)


def test_many_rows_of_columns(every_order):
    check(affine.affine_cols, (1, 70, 12), "float32", (1, 1, 12), (1, 1, 12), (1, 1, 12))
    check(affine.affine_cols, (1, 300, 3), "bfloat16", (1, 1, 3), (1, 1, 3), (1, 1, 3))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("given", [("f8", "f8"), ("f4", "f4"), ("f8", "f4"), ("f2", "f8")])
def test_statistics_of_another_dtype(simulator, dtype, given):
    far = 0 if "f2" in given or dtype == "float16" else 1e4
    for on_std in (False, True):
        options = {"far": far, "given": given, "eps_on_std": on_std}
        check(affine.affine_rows, (2, 3, 40), dtype, (2, 3, 1), (1, 3, 1), ONE, **options)
        check(affine.affine_cols, (2, 3, 40), dtype, (2, 1, 40), (1, 3, 1), (1, 3, 1), **options)
        check(affine.affine_cols, (1, 7, 33), dtype, (1, 1, 33), (1, 1, 33), ONE, **options)
    kernels = [kernel.name.partition("(")[0] for kernel, *_ in simulator.launches]
    ready = np.dtype(given[0]) == np.dtype(given[1]) == (np.float64 if dtype == "float64" else np.float32)
    assert kernels.count("_affine_kernels.prepare") == 6 * (not ready)


@pytest.mark.parametrize("launcher", [affine.affine_rows, affine.affine_cols])
def test_many_statistics(every_order, launcher):
    shape = (1, 150, 1) if launcher is affine.affine_rows else (1, 1, 150)
    check(launcher, (2, 150, 150), "float32", shape, ONE, ONE, far=1e4, given=("f8", "f8"))


def test_statistics_beyond_float32(simulator):
    x = np.array([[[1e30, -1e30, 0, 1e-30]]], "f4")
    for mean, var, expected in (
        (0.0, 1e60, [1, -1, 0, 0]),
        (1e45, 1e60, [-np.inf] * 4),
        (np.float32(1e-30), 0.0, [np.inf, -np.inf, -np.inf, np.nan]),
        (np.inf, np.nan, [np.nan] * 4),
    ):
        given = [host_arrays.array(np.full(ONE, value, "f8")) for value in (mean, var)]
        parameters = [host_arrays.array(np.full(ONE, value, "f4")) for value in (1, 0)]
        y = host_arrays.empty(x.shape, "f4")
        affine.affine_rows(host_arrays.array(x), *given, 0.0, False, *parameters, y)
        actual = host_arrays.as_numpy(y).ravel()
        finite = np.isfinite(expected)
        np.testing.assert_allclose(actual[finite], np.array(expected)[finite], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(actual[~finite], np.array(expected)[~finite])


def test_parameters_of_another_dtype_are_refused(simulator):
    x, one, wide = (host_arrays.array(np.ones(ONE, t)) for t in ("f4", "f4", "f8"))
    for parameters in ((one, wide), (wide, one)):
        with pytest.raises(TypeError, match="parameters should be float32"):
            affine.affine_rows(x, one, one, 0.1, False, *parameters, x)
