"""The one seam between arrays in host memory and arrays on a device.

Inside the package an array is a ``numpy.ndarray`` or, on a device, a ``cupy.ndarray``.
Shapes, views and indexing they spell alike; what they spell differently, or what needs
the device, is asked of the place where they live: :class:`Host` or :class:`Device`, by
the same method names. Arrays of other kinds become CuPy's at the door (``_guests.py``).

Nothing here launches a kernel on the way of a norm of dense operands of the right dtype:
only :meth:`Device.empty` is called, which takes memory from CuPy's pool.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _pool
from numbanorm._recorder import evaluated

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

    empty = staticmethod(np.empty)
    output = staticmethod(_pool.empty)
    zeros = staticmethod(np.zeros)
    overlap = staticmethod(np.may_share_memory)

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


class Device:
    """CuPy's arrays on the current device. Copies, fills and evaluations are launches; views are not."""

    #: Never in pieces, each of which would be a launch: gaps are closed by one copy.
    piece_bytes = 1 << 62
    #: 24 MiB of scratch.
    max_parts = 1 << 20

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.ndarray = cupy.ndarray
        self.empty = self.output = cupy.ndarray
        self._kept: dict[tuple[Any, ...], Array] = {}

    def names(self) -> list[str]:
        """Of all devices."""
        runtime = self._cupy.cuda.runtime
        return [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]

    def current(self) -> int:
        """Ordinal of the current device."""
        return int(self._cupy.cuda.runtime.getDevice())

    def at(self, ordinal: int, stream: int | None = None) -> AbstractContextManager[Any]:
        """Work on another device, and on the stream with this handle if one is given."""
        stack = ExitStack()
        stack.enter_context(self._cupy.cuda.Device(ordinal))
        if stream is not None:
            stack.enter_context(self._cupy.cuda.ExternalStream(stream, ordinal))
        return stack

    def zeros(self, shape: Shape, dtype: Any = float) -> Array:
        """Filled with zeros."""
        return self._cupy.zeros(shape, dtype)  # type: ignore[no-any-return]

    def constant(self, value: float, dtype: np.dtype[Any]) -> Array:
        """An array of one element, made once for each device."""
        key = (self.current(), value, dtype)
        if key not in self._kept:
            self._kept[key] = self.from_host(np.full(1, value, dtype))
        return self._kept[key]

    def nothing(self, dtype: np.dtype[Any]) -> Array:
        """An array of length 0: an output that is not wanted."""
        if (dtype,) not in self._kept:
            self._kept[(dtype,)] = self.empty(0, dtype)
        return self._kept[(dtype,)]

    def overlap(self, a: Array, b: Array) -> bool:
        """Whether their ranges of addresses overlap."""
        return bool(self._cupy.may_share_memory(a, b))

    def address(self, array: Any) -> int:
        """Of the first element."""
        return int(array.data.ptr)

    def is_aligned(self, array: Array) -> bool:
        """Whether elements lie at multiples of their size."""
        return bool(array.data.ptr % array.itemsize == 0)  # type: ignore[attr-defined]

    def is_writeable(self, array: Array) -> bool:
        """Whether it may be written to."""
        return True

    def dense(self, array: Array, dtype: np.dtype[Any] | None = None) -> Array:
        """The same numbers in C order and `dtype`; a copy only if they are not."""
        if (dtype is None or array.dtype == dtype) and array.flags.c_contiguous and self.is_aligned(array):
            return array
        return self.duplicate(array, dtype)

    def duplicate(self, array: Array, dtype: np.dtype[Any] | None = None) -> Array:
        """A copy in C order."""
        duplicate: Array = self.empty(array.shape, dtype or array.dtype)
        self.copy(duplicate, array)
        return duplicate

    def copy(self, target: Array, source: Array) -> None:
        """Copy, broadcasting and casting; elements that do not lie at multiples of their size go as bytes."""
        if not self._is_reachable(source):
            packed = self.empty(source.shape, source.dtype)
            self._assign(self._bytes(packed), self._bytes(source))
            source = packed
        if self._is_reachable(target):
            self._assign(target, source)
        else:
            packed = self.empty(target.shape, target.dtype)
            self._assign(packed, source)
            self._assign(self._bytes(target), self._bytes(packed))

    def _assign(self, target: Array, source: Array) -> None:
        target[...] = source

    def _is_reachable(self, array: Array) -> bool:
        """Whether a kernel may load each element as a whole; one that may not ends the process's use of the device."""
        return self.is_aligned(array) and not any(step % array.itemsize for step in array.strides)

    def _bytes(self, array: Any) -> Array:
        """The memory of an array with one more axis, the bytes of each element."""
        shape, strides = (*array.shape, array.itemsize), (*array.strides, 1)
        return self.ndarray(shape, np.uint8, array.data, strides)  # type: ignore[no-any-return]

    def evaluate(self, function: Callable[..., Any], *arrays: Array) -> Array:
        """A function written with NumPy's, which CuPy's arrays answer with their own."""
        return self._evaluate(function, *(a if self._is_reachable(a) else self.duplicate(a) for a in arrays))

    def _evaluate(self, function: Callable[..., Any], *arrays: Array) -> Array:
        return function(*arrays)  # type: ignore[no-any-return]

    def result(self, array: Array) -> Any:
        """What a reduction returns: an array even of no dimensions, because a scalar would be waited for."""
        return array

    def capturing(self) -> bool:
        """Whether the current stream records a graph; the null stream (0 or 1) cannot."""
        stream = self._cupy.cuda.get_current_stream()
        return bool(stream.ptr > 1 and stream.is_capturing())

    def _refuse_to_wait(self) -> None:
        if self.capturing():
            raise RuntimeError(
                "a call that is captured into a graph cannot copy between host and device: make the same call once "
                "before the capture, which leaves its constants on the device, and pass device arrays only"
            )

    def to_host(self, array: Any) -> Array:
        """As a NumPy array; waits for the device."""
        self._refuse_to_wait()
        return self.dense(array).get()  # type: ignore[attr-defined, no-any-return]

    def from_host(self, array: Array) -> Array:
        """A NumPy array on this device, there for every stream when this returns."""
        self._refuse_to_wait()
        copy = self._cupy.array(array)
        self._cupy.cuda.get_current_stream().synchronize()
        return copy  # type: ignore[no-any-return]


Place = Host | Device
HOST = Host()


@cache
def device() -> Device:
    """The place of CuPy's arrays; CuPy must be there."""
    return Device()


def place_of(array: Any) -> Any:
    """The place where a NumPy or CuPy array lives."""
    return HOST if isinstance(array, np.ndarray) else device()
