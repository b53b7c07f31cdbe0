import ml_dtypes
import numpy as np
import pytest

from numbanorm._dtypes import compute_dtype, norm_dtype, statistics_dtype


@pytest.mark.parametrize("name", ["float16", "float32", "float64", ">f4", "<f8", ">f2"])
def test_floats_keep_their_dtype_in_native_order(name):
    dtype = np.dtype(name)
    assert statistics_dtype(dtype) == norm_dtype(dtype) == dtype.newbyteorder("=")
    assert norm_dtype(dtype).isnative


def test_bfloat16_is_a_float():
    dtype = np.dtype(ml_dtypes.bfloat16)
    assert statistics_dtype(dtype) == norm_dtype(dtype) == dtype
    assert compute_dtype(dtype) == np.float32


@pytest.mark.parametrize("code", list("?bBhHiIlLqQ"))
def test_integers_have_float64_statistics_and_no_norm(code):
    assert statistics_dtype(np.dtype(code)) == np.float64
    with pytest.raises(TypeError, match=r"x\.astype\(np\.float32\)"):
        norm_dtype(np.dtype(code))


@pytest.mark.parametrize("dtype", ["c8", "c16", "O", "U3", "S3", "M8[s]", "m8[s]", [("a", "f4")], "g"])
def test_others_are_named_in_a_type_error(dtype):
    dtype = np.dtype(dtype)
    for rule in (statistics_dtype, norm_dtype):
        with pytest.raises(TypeError) as error:
            rule(dtype)
        assert str(dtype) in str(error.value)


def test_compute_dtype():
    assert [compute_dtype(np.dtype(n)) for n in ("f2", "f4", "f8")] == [np.float32, np.float32, np.float64]
