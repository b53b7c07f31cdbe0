"""Recycled memory for large results.

The kernel hands out fresh memory page by page at the first write, which for a large array
takes as long as the norm itself. So the blocks of results that died are kept and given
to later ones, as CuPy and torch do on GPUs. A block comes back only when the last view of
it is gone: the array's base owns it. Blocks are 64-byte aligned.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

#: Smaller results come from NumPy, whose allocator recycles them itself.
SMALLEST = 1 << 20
#: Of a cache line, and of the widest vector register.
ALIGNMENT = 64


class Pool:
    """Free blocks of memory, at most `limit` bytes of them, the oldest dropped first.

    Thread-safe without waiting: where the lock is taken, memory is allocated or freed as if
    there were no pool. A block may therefore die anywhere, even inside these methods.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: list[Bytes] = []
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of the free blocks."""
        return sum(block.size for block in tuple(self._free))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Uninitialised C-ordered array, in a recycled block if there is one of its size."""
        lease = _Lease(self, self._take(_rounded(dtype.itemsize * prod(shape))))
        return np.ndarray(shape, dtype, np.asarray(lease))

    def _take(self, size: int) -> Bytes:
        if self._lock.acquire(blocking=False):
            try:
                for i in range(len(self._free) - 1, -1, -1):
                    if self._free[i].size == size:
                        return self._free.pop(i)
            finally:
                self._lock.release()
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + size]

    def give_back(self, block: Bytes) -> None:
        """Keep a block whose last user is gone, if it fits."""
        if block.size > self.limit or not self._lock.acquire(blocking=False):
            return
        try:
            self._free.append(block)
            excess = self.held - self.limit
            while excess > 0:
                excess -= self._free.pop(0).size
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Free every block."""
        with self._lock:
            dropped, self._free = self._free, []
        dropped.clear()


class _Lease:
    """Base of a pooled array; its death gives the block back."""

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: Pool, block: Bytes) -> None:
        self._pool, self._block = pool, block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._pool.give_back(self._block)


def _rounded(n_bytes: int) -> int:
    """Size of a block: at most an eighth more than asked, so that neighbouring sizes share blocks."""
    step = max(1 << 16, 1 << (n_bytes.bit_length() - 4))
    return -(-n_bytes // step) * step


def _default_limit() -> int:
    """``NUMBANORM_POOL_LIMIT``, or 1 GiB, or a quarter of the machine's memory if that is less."""
    text = os.environ.get("NUMBANORM_POOL_LIMIT", "").strip()
    if text:
        if not text.isdigit():
            raise ValueError(f"NUMBANORM_POOL_LIMIT must be a number of bytes, 0 for no pool, but got {text!r}")
        return int(text)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return 1 << 30
    return min(1 << 30, memory // 4)


@cache
def pool() -> Pool:
    """The pool of this process."""
    return Pool(_default_limit())


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """:func:`numpy.empty`, from the pool where the result is large."""
    if dtype.itemsize * prod(shape) < SMALLEST or not pool().limit:
        return np.empty(shape, dtype)
    return pool().empty(shape, dtype)


def empty_cache() -> None:
    """Free the memory that is kept for later results.

    Results of 1 MiB and more on the CPU lie in memory that is kept when they die, up to
    ``NUMBANORM_POOL_LIMIT`` bytes (default 1 GiB, or a quarter of the machine's memory if
    that is less; 0 keeps nothing).

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.empty_cache()
    """
    pool().clear()
