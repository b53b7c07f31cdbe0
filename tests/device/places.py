"""Where the tests of device arrays run.

* ``stand-in``: real CuPy arrays over host memory, and a backend whose launchers run the
  reference on NumPy views of that memory. Needs CuPy, but no device.
* ``emulated``: the same arrays, and the real launchers, whose kernels run thread by thread.
* ``cuda``: a real device, with ``NUMBANORM_TEST_DEVICE=cuda``.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager

import cupy as cp
import numpy as np

from numbanorm._device import Device
from tests.backends.cuda import host_arrays
from tests.oracle import layouts


def numpy_view(array):
    """The memory of a CuPy array over host memory, of any strides, as NumPy sees it."""
    if not array.size:
        return np.empty(array.shape, array.dtype)
    spans = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
    before, after = -sum(min(span, 0) for span in spans), sum(max(span, 0) for span in spans)
    memory = (ctypes.c_char * (before + after + array.itemsize)).from_address(array.data.ptr - before)
    return np.ndarray(array.shape, array.dtype, memory, before, array.strides)


def device_layouts(x):
    """The layouts that CuPy has: all but swapped bytes."""
    return [(name, y) for name, y in layouts(x) if y.dtype.isnative]


class HostedDevice(Device):
    """What a device does to CuPy's arrays, done to host memory; `calls` names what would have been launches."""

    def __init__(self):
        super().__init__()
        self.ordinal = 0
        self.captures = False
        self.calls = []
        self.streams = []

    def names(self):
        return ["host memory"]

    def current(self):
        return self.ordinal

    @contextmanager
    def at(self, ordinal, stream=None):
        before, self.ordinal = self.ordinal, ordinal
        self.streams.append(stream)
        yield
        self.ordinal = before

    def zeros(self, shape, dtype=float):
        self.calls.append("zeros")
        return host_arrays.array(np.zeros(shape, dtype))

    def _assign(self, target, source):
        self.calls.append("copy")
        for array in (target, source):
            assert not any(n % array.itemsize for n in (array.data.ptr, *array.strides)), "a device stops here"
        numpy_view(target)[...] = numpy_view(source)

    def capturing(self):
        return self.captures

    def context(self):
        return None if self.captures else (self.ordinal,)

    def _evaluate(self, function, *arrays):
        self.calls.append("evaluate")
        assert not any(n % array.itemsize for array in arrays for n in (array.data.ptr, *array.strides))
        with np.errstate(all="ignore"):
            return host_arrays.array(np.asarray(function(*map(numpy_view, arrays))))

    def to_host(self, array):
        self._refuse_to_wait()
        self.calls.append("to_host")
        return numpy_view(array).copy()

    def from_host(self, array):
        self._refuse_to_wait()
        self.calls.append("from_host")
        return host_arrays.array(np.asarray(array))


class Place:
    """How a test makes device arrays and looks at them."""

    def __init__(self, name, device):
        self.name, self.device = name, device

    def array(self, values):
        """A device array with the values and the memory layout of a NumPy array, gaps and all."""
        base = values
        while isinstance(base.base, np.ndarray):
            base = base.base
        if not base.flags.c_contiguous:
            base = values = np.ascontiguousarray(values)
        memory = self.device.from_host(base)
        first = values.__array_interface__["data"][0] - base.__array_interface__["data"][0] if values.size else 0
        return cp.ndarray(values.shape, values.dtype, memory.data + first, values.strides)

    def array_on(self, ordinal, values):
        """A device array that says it lives on another device."""
        array = self.array(values)
        array.data.mem.device_id = ordinal
        return cp.ndarray(array.shape, array.dtype, cp.cuda.MemoryPointer(array.data.mem, 0))

    def numpy(self, result):
        """A result, or a tuple of them, on the host."""
        if isinstance(result, tuple):
            return tuple(map(self.numpy, result))
        assert isinstance(result, cp.ndarray)
        return self.device.to_host(result)
