import ml_dtypes
import numpy as np
import pytest
from numba import njit

from numbanorm.backends.cpu import _elements
from numbanorm.backends.cpu._elements import flat_output, load, store


@njit
def copy(x, y):
    for i in range(x.size):
        store(y, i, load(x, i))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_sixteen_bit_number_survives_reading_and_writing(dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    wide, back = np.empty(x.size, np.float32), np.empty_like(x)
    copy(flat_output(x), wide)
    np.testing.assert_array_equal(wide, x.astype(np.float32))
    copy(wide, flat_output(back))
    numbers = ~np.isnan(wide)
    np.testing.assert_array_equal(back[numbers].view(np.uint16), x[numbers].view(np.uint16))
    assert np.isnan(back[~numbers].astype(np.float32)).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_writing_rounds_to_nearest_even(dtype, rng):
    values = [1, 1 + 2**-9, 1 + 3 * 2**-9, 1 + 2**-12, 65519, 65520, 1e-8, -1e-8, 3.4e38, np.inf, -np.inf, np.nan]
    wide = np.concatenate([np.array(values, np.float32), rng.standard_normal(10_000).astype(np.float32)])
    narrow = np.empty(wide.size, dtype)
    with np.errstate(over="ignore"):
        copy(wide, flat_output(narrow))
        np.testing.assert_array_equal(narrow.astype(np.float32), wide.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_python_bodies_do_the_same(dtype, rng):
    """What runs with the JIT off."""
    x = rng.standard_normal(50).astype(dtype)
    y = np.zeros_like(x)
    for i in range(x.size):
        _elements.store(flat_output(y), i, _elements.load(flat_output(x), i))
    np.testing.assert_array_equal(x, y)
    _elements.store(flat_output(y), 0, np.float32(np.nan))
    assert np.isnan(y[0].astype(np.float64))
