"""Given statistics applied thread by thread, through the launchers, against float64."""

import numpy as np
import pytest

from numbanorm._recurrences import reciprocal_std
from numbanorm.backends.cuda import affine
from tests.backends.cuda import host_arrays
from tests.backends.cuda.test_normalize import LENGTHS, compute, sample
from tests.oracle import FLOATS, assert_normalized


def check(launcher, shape, dtype, stat_shape, gamma_shape, beta_shape, eps_on_std=False, offset=0, in_place=False):
    x, rng = sample(shape, dtype)
    real = compute(x)
    mean, gamma, beta = (rng.standard_normal(s).astype(real) for s in (stat_shape, gamma_shape, beta_shape))
    var = rng.random(stat_shape).astype(real)
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
