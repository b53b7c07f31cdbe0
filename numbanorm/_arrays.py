"""The one seam between arrays in host memory and arrays on a device.

Inside the package an array is a ``numpy.ndarray`` or, on a device, a ``cupy.ndarray``.
Shapes, views and indexing they spell alike; what they spell differently, or what needs
the device, is asked of the place where they live: :class:`Host` or :class:`numbanorm._device.Device`, by
the same method names. Arrays of other kinds become CuPy's at the door (``_guests.py``).

Nothing here launches a kernel on the way of a norm of dense operands of the right dtype:
only ``Device.empty`` is called, which takes memory from CuPy's pool.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _pool
from numbanorm._recorder import evaluated

if TYPE_CHECKING:
    from numbanorm._device import Device

Array = NDArray[Any]
Shape = int | tuple[int, ...] | list[int]

#: kDLCUDA, as in dlpack.h.
_DLPACK_CUDA = 2

#: Types whose arrays are always (or never) on a device, as far as they were met: asking takes longer.
_ALWAYS: dict[type, bool] = {np.ndarray: False}


def is_device_array(array: Any) -> bool:
    """Whether `array` lives in GPU memory; nothing is asked of its contents."""
    known = _ALWAYS.get(type(array))
    return _asked(array) if known is None else known


def _asked(array: Any) -> bool:
    kind = type(array)
    if hasattr(kind, "is_cuda"):
        # torch's tensors have an interface wherever they are, which raises for some that are on a device.
        return bool(array.is_cuda)
    if hasattr(kind, "__cuda_array_interface__"):
        return _ALWAYS.setdefault(kind, True)
    if hasattr(kind, "__dlpack_device__"):
        return bool(array.__dlpack_device__()[0] == _DLPACK_CUDA)
    return _ALWAYS.setdefault(kind, False)


def cupy_kind() -> type | None:
    """CuPy's type of arrays, or None as long as nobody imported CuPy."""
    cupy = sys.modules.get("cupy")
    return None if cupy is None else cupy.ndarray


def is_cupy_array(array: Any) -> bool:
    """Whether this is an array of CuPy, which is not imported for the question."""
    kind = cupy_kind()
    return kind is not None and isinstance(array, kind)


class Host:
    """NumPy's arrays."""

    #: Bytes of an array with gaps that are gathered at a time.
    piece_bytes = 1 << 19
    #: Moments kept at a time on the way to a result (24 bytes each).
    max_parts = 1 << 15

    ndarray = np.ndarray
    empty = staticmethod(np.empty)
    output = staticmethod(_pool.empty)
    zeros = staticmethod(np.zeros)
    overlap = staticmethod(np.may_share_memory)

    @staticmethod
    def fresh(n_bytes: int) -> Callable[..., Array]:
        """What takes memory for arrays of up to so many bytes, given shape and dtype."""
        return _pool.empty if n_bytes >= _pool.SMALLEST else np.empty

    @staticmethod
    @cache
    def constant(value: float, dtype: np.dtype[Any]) -> Array:
        """A read-only array of one element."""
        constant = np.full(1, value, dtype)
        constant.flags.writeable = False
        return constant

    @staticmethod
    @cache
    def nothing(dtype: np.dtype[Any]) -> Array:
        """An array of length 0: an output that is not wanted."""
        return np.empty(0, dtype)

    @staticmethod
    def address(array: Array) -> int:
        """Of the first element."""
        return int(array.ctypes.data)

    @staticmethod
    def is_aligned(array: Array) -> bool:
        """Whether elements lie at multiples of their size."""
        return array.flags.aligned

    @staticmethod
    def is_writeable(array: Array) -> bool:
        """Whether it may be written to."""
        return array.flags.writeable

    @staticmethod
    def dense(array: Array, dtype: np.dtype[Any] | None = None) -> Array:
        """The same numbers in C order, aligned, in native byte order; a copy only if they are not."""
        dense = np.asarray(array, dtype or array.dtype.newbyteorder("="), order="C")
        evaluated(np.asarray, (array, dense.dtype), dense)
        return dense if dense.flags.aligned else dense.copy()

    @staticmethod
    def duplicate(array: Array) -> Array:
        """A copy in C order."""
        return array.copy()

    @staticmethod
    def copy(target: Array, source: Array) -> None:
        """Copy, broadcasting and casting."""
        np.copyto(target, source, casting="same_kind")

    @staticmethod
    def evaluate(function: Callable[..., Any], *arrays: Array) -> Array:
        """A function written with NumPy's, with inf and NaN as compiled code gives them: without a warning."""
        with np.errstate(all="ignore"):
            result = np.asarray(function(*arrays))
        evaluated(HOST.evaluate, (function, *arrays), result)
        return result

    @staticmethod
    def result(array: Array) -> Any:
        """What a reduction returns: an array or a scalar."""
        return array if array.ndim else array[()]

    @staticmethod
    def to_host(array: Array) -> Array:
        """As a NumPy array."""
        return array

    @staticmethod
    def from_host(array: Array) -> Array:
        """A NumPy array as one of this place."""
        return array


HOST = Host()


@cache
def device() -> Device:
    """The place of CuPy's arrays; CuPy must be there."""
    return import_module("numbanorm._device").Device()  # type: ignore[no-any-return]


def place_of(array: Any) -> Any:
    """The place where a NumPy or CuPy array lives."""
    return HOST if isinstance(array, np.ndarray) else device()
