"""Checks of arguments that several public functions share. Nothing is computed before they pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import is_cupy_array, is_device_array, place_of
from numbanorm._dtypes import is_float
from numbanorm._errors import ShapeError, masked_array, unsupported_dtype, wrong_length

Array = NDArray[Any]


def as_array(x: Any, name: str = "x") -> Array:
    """`x` as a NumPy array; device arrays pass unchanged, masked arrays are refused."""
    if type(x) is np.ndarray:
        return x
    if is_device_array(x):
        return x  # type: ignore[no-any-return]
    if isinstance(x, np.ma.MaskedArray):
        raise masked_array(name)
    return np.asarray(x)


def as_mask(where: Any, shape: tuple[int, ...]) -> Array | None:
    """`where` as a boolean array that broadcasts to `shape`; None (or True) means everything."""
    if where is None or where is True:
        return None
    mask = as_array(where, "where")
    if mask.dtype != bool:
        raise TypeError(f"where must be boolean, but has dtype {mask.dtype}; pass where.astype(bool)")
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        raise ShapeError(f"where with shape {mask.shape} does not broadcast to x with shape {shape}") from None


def as_parameter(name: str, value: Any) -> Array | None:
    """gamma, beta or the like as a real numeric array; None stays None."""
    if value is None:
        return None
    parameter = value if type(value) is np.ndarray else as_array(value, name)
    if not is_float(parameter.dtype) and parameter.dtype.kind not in "iub":
        raise unsupported_dtype(name, parameter.dtype)
    return parameter


def as_running(name: str, value: Any, channels: int, *, writeable: bool) -> Array | None:
    """A running statistic: a floating-point array (`channels`,), writeable if it will be updated."""
    if value is None:
        return None
    if type(value) is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise masked_array(name)
        if isinstance(value, np.ndarray):
            value = np.asarray(value)  # a subclass
        elif not is_cupy_array(value):
            raise _not_updatable(name, type(value).__name__)
    if not is_float(value.dtype):
        raise _not_updatable(name, f"dtype {value.dtype}")
    if value.shape != (channels,):
        raise wrong_length(name, (channels,), value.shape)
    if writeable and not place_of(value).is_writeable(value):
        raise ValueError(f"{name} is read-only, but training updates it in place; pass a copy")
    return value  # type: ignore[no-any-return]


def _not_updatable(name: str, came: str) -> TypeError:
    kinds = "NumPy array (on a device CuPy's)"
    return TypeError(f"{name} must be a floating-point {kinds}, which training updates in place, but got {came}")


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> None:
    """Raise unless a result of this shape and dtype can be written to `out`."""
    if isinstance(out, np.ma.MaskedArray):
        raise masked_array(name)
    if not isinstance(out, np.ndarray) and not is_cupy_array(out):
        raise TypeError(f"{name} must be an array, but got {type(out).__name__}")
    if out.shape != shape:
        raise ShapeError(f"{name} should have shape {shape}, but has {out.shape}")
    if not place_of(out).is_writeable(out):
        raise ValueError(f"{name} is read-only")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"cannot write a {dtype} result to {name} with dtype {out.dtype}")
