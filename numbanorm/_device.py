"""CuPy's arrays, as :class:`numbanorm._arrays.Host` does it for NumPy's; imported with the first of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._recorder import allocated, not_replayed

Array = NDArray[Any]
Shape = int | tuple[int, ...] | list[int]


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
        self._kept: dict[tuple[Any, ...], Array] = {}
        self._thread = local()

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Memory from CuPy's pool."""
        array: Array = self.ndarray(shape, dtype)
        allocated(array)
        return array

    output = empty

    def fresh(self, n_bytes: int) -> Any:
        """What takes memory for arrays of up to so many bytes, given shape and dtype, and tells nobody."""
        return self.ndarray

    def context(self) -> tuple[Any, ...] | None:
        """What launches depend on beside their arguments; None while they are captured."""
        stream = self._cupy.cuda.get_current_stream()
        if _is_captured(stream):
            return None
        try:
            thread = self._thread.itself
        except AttributeError:  # one that is new, even if it has the number of one that ended
            thread = self._thread.itself = object()
        return self.current(), stream.ptr, thread

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
        not_replayed()
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
        not_replayed()
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
        not_replayed()
        return self._evaluate(function, *(a if self._is_reachable(a) else self.duplicate(a) for a in arrays))

    def _evaluate(self, function: Callable[..., Any], *arrays: Array) -> Array:
        return function(*arrays)  # type: ignore[no-any-return]

    def result(self, array: Array) -> Any:
        """What a reduction returns: an array even of no dimensions, because a scalar would be waited for."""
        return array

    def capturing(self) -> bool:
        """Whether the current stream records a graph."""
        return _is_captured(self._cupy.cuda.get_current_stream())

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


def _is_captured(stream: Any) -> bool:
    """Whether a stream records a graph; the null stream (0 or 1) cannot, and some drivers mind the question."""
    return bool(stream.ptr > 1 and stream.is_capturing())
