import ml_dtypes
import numpy as np
import pytest
from numba import njit

from numbanorm.backends.cpu import _elements
from numbanorm.backends.cpu._elements import flat_output, load, store, store_float64


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


def narrow(x, y):
    for i in range(x.size):
        store_float64(y, i, x[i])


@pytest.mark.parametrize("write", [njit(narrow), narrow])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_float64_is_rounded_once(dtype, write):
    """Between two neighbours, a float64 hair from the middle, which no float32 can tell from it."""
    bits = np.arange(0x0001, 0x7700, 97, dtype=np.uint16)
    lower, upper = bits.view(dtype), (bits + np.uint16(1)).view(dtype)
    middle = (lower.astype(np.float64) + upper.astype(np.float64)) / 2
    even = np.where(bits % 2 == 0, lower, upper)
    for sign in (1, -1):
        for step, expected in ((0, even), (-1, lower), (1, upper)):
            values = sign * middle * (1 + step * 2.0**-50)
            out = np.empty(values.size, dtype)
            write(values, flat_output(out))
            np.testing.assert_array_equal(out.astype(np.float64), sign * expected.astype(np.float64))
    special = np.array([0.0, np.inf, -np.inf, 1e300, -1e300, 1e-300])
    out = np.empty(special.size, dtype)
    with np.errstate(over="ignore"):
        write(special, flat_output(out))
        np.testing.assert_array_equal(out.astype(np.float64)[:3], special[:3])
        assert np.isinf(out[3:5].astype(np.float64)).all()
    assert abs(float(out[5])) == 0


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
