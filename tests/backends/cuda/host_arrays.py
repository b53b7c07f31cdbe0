"""Real CuPy arrays over host memory: shapes, dtypes, views and pointers work with no device."""

from __future__ import annotations

import ctypes

import cupy as cp
import numpy as np


class _HostMemory(cp.cuda.memory.BaseMemory):
    """Aligned as a device's allocations are, and filled with NaN."""

    def __init__(self, n_bytes):
        self.buffer = np.full(int(n_bytes) + 512, 0xFF, np.uint8)
        self.ptr = (self.buffer.ctypes.data + 255) & ~255
        self.size, self.device_id = int(n_bytes), 0


def allocate(n_bytes):
    """An allocator for CuPy."""
    return cp.cuda.MemoryPointer(_HostMemory(n_bytes), 0)


def empty(shape, dtype, offset=0):
    """An uninitialised array that starts `offset` elements after an aligned address."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64))
    whole = cp.ndarray((size + offset,), dtype, memptr=allocate((size + offset) * dtype.itemsize))
    return whole[offset:].reshape(shape)


def as_numpy(array):
    """The dense CuPy array's memory as NumPy sees it; what is written to one shows in the other."""
    assert array.flags.c_contiguous
    memory = (ctypes.c_char * array.nbytes).from_address(array.data.ptr)
    view = np.frombuffer(memory, np.uint8).view(array.dtype).reshape(array.shape)
    view.flags.writeable = True
    return view


def array(values, offset=0):
    """A copy of a NumPy array."""
    copy = empty(values.shape, values.dtype, offset)
    as_numpy(copy)[...] = values
    return copy
