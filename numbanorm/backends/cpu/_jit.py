"""How this backend compiles, and how it enters a parallel region safely.

Three decorators: :func:`exact` for arithmetic that must not be reordered, :func:`inner`
for loops that LLVM may vectorise, :func:`kernel` for the loops over independent parts,
compiled twice from one source, with threads and without.

Numba's ``workqueue`` layer aborts the interpreter when two Python threads meet in it,
and GNU OpenMP ends a forked child. TBB survives both, so it is loaded when its wheel is
installed; under any other layer one caller at a time takes the parallel twin, and only
in the process that started it. All others take the serial twin, whose results are the
same bit for bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import site
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numba.core.compiler_lock import global_compiler_lock

from numbanorm import _process

#: What LLVM may assume of floating point: everything but the absence of NaN and inf.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def exact(function: Callable[..., Any]) -> Any:
    """Compile arithmetic whose order and rounding matter.

    Said explicitly, because Numba hands a caller's fastmath down to what it calls.
    """
    return njit(fastmath=False, no_cpython_wrapper=True, **_OPTIONS)(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a loop in which LLVM may reorder sums to use vector registers."""
    return njit(fastmath=FASTMATH, no_cpython_wrapper=True, **_OPTIONS)(function)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Compile a loop over parts; see :class:`Kernel`."""
    return Kernel(function)


def _renamed(function: Callable[..., Any], suffix: str) -> FunctionType:
    """A copy under a name of its own: Numba's cache files are told apart by the name."""
    assert isinstance(function, FunctionType)
    name = f"{function.__name__}_{suffix}"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__)
    copy.__qualname__ = name
    copy.__module__ = function.__module__
    copy.__doc__ = function.__doc__
    return copy


class Kernel:
    """A compiled loop over independent parts: ``kernel(n_parts, *args)``.

    The parts are set by shape alone, so the result does not depend on the number of
    threads. A single part runs in the serial twin, which starts three times as fast.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.serial: Any
        self.parallel: Any
        if numba.config.DISABLE_JIT:
            # Compiled code gives no floating point warnings, so neither does its Python form.
            self.serial = self.parallel = np.errstate(all="ignore")(function)
        else:
            self.serial = njit(fastmath=FASTMATH, cache=True, **_OPTIONS)(_renamed(function, "serial"))
            self.parallel = njit(fastmath=FASTMATH, parallel=True, cache=True, **_OPTIONS)(
                _renamed(function, "parallel")
            )

    def __call__(self, n_parts: int, *args: Any) -> None:
        if n_parts == 1:
            self.serial(n_parts, *args)
        elif _entry.free:
            self.parallel(n_parts, *args)
        else:
            _entry.guarded(self, n_parts, args)


class _Entry:
    """The way into parallel regions: free under TBB, else one caller at a time.

    And only in the process whose threads they are: a forked child has none of its
    parent's, and neither GNU OpenMP nor we can tell from the layer's state alone.
    """

    def __init__(self) -> None:
        self.free = False
        self._owner = 0 if _process.THREADS_RAN_BEFORE else _process.PID
        self._lock = threading.Lock()

    def guarded(self, kernel: Kernel, n_parts: int, args: tuple[Any, ...]) -> None:
        """Run the parallel twin if that is safe and nobody else does, else the serial one."""
        if not self._is_ours() or not self._lock.acquire(blocking=False):
            kernel.serial(n_parts, *args)
            return
        try:
            kernel.parallel(n_parts, *args)
        finally:
            self._lock.release()
        self.free = threading_layer() == "tbb"

    def _is_ours(self) -> bool:
        """Whether Numba's threads, if there are any, belong to this process."""
        layer = threading_layer()
        if layer == "none yet":
            self._owner = os.getpid()  # they will
        return layer == "tbb" or self._owner == os.getpid()


def _guard_forks() -> None:
    """Keep a child from inheriting a lock that another thread held while it compiled."""
    if hasattr(os, "register_at_fork"):
        release = global_compiler_lock.release
        os.register_at_fork(before=global_compiler_lock.acquire, after_in_parent=release, after_in_child=release)


_entry = _Entry()


def threading_layer() -> str:
    """Numba's threading layer, or "none yet" before the first parallel call."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none yet"


@kernel
def _touch(n_parts, out):
    """The smallest parallel region that is not optimised away."""
    for part in prange(n_parts):
        out[part] = part


def start_threads() -> str:
    """Start Numba's threads and name the layer that runs them."""
    _touch(2, np.empty(2))
    return threading_layer()


def cache_folder() -> str:
    """Where compiled kernels are kept."""
    return str(_touch.serial._cache.cache_path) if not numba.config.DISABLE_JIT else "none: the JIT is off"


def _load_tbb() -> None:
    """Load the library of the ``tbb`` wheel, which Numba does not look for in the environment."""
    for prefix in (sys.prefix, site.getuserbase()):
        for library in ("lib/libtbb.so.12", "Library/bin/tbb12.dll"):
            path = Path(prefix, library)
            if path.exists():
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                    return


_load_tbb()
_guard_forks()
