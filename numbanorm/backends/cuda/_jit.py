"""How this backend compiles, caches and launches: the one place that imports Numba's CUDA.

Numba makes PTX, nvJitLink makes the machine code, cuda.core launches it with raw pointers
on CuPy's current stream. A launch is a few dictionary look-ups, nothing waits for the
device, and all of it can be captured into a graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any

import cupy as cp
import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, ObjectCode, Stream, launch
from numba import cuda
from numba.cuda import libdevice, types

from numbanorm._recorder import launched, recorders
from numbanorm.backends.cuda import _cubins

__all__ = [
    "DEFAULT_SHARED",
    "N_TICKETS",
    "Kernel",
    "cuda",
    "device",
    "kernel",
    "libdevice",
    "run",
    "shared_limit",
    "types",
    "workspace",
]

#: Shared memory that every kernel may have; more must be asked for.
DEFAULT_SHARED = 48 << 10
#: Devices from here on take the PTX of this one: what tests check is what runs.
PTX_FOR = (8, 0)
#: Counters of blocks that are done, in each workspace.
N_TICKETS = 1 << 14


def device(function: Callable[..., Any]) -> Any:
    """A function for kernels, inlined by LLVM (Numba's own inliner takes ten times as long)."""
    return cuda.jit(device=True, forceinline=True)(function)


class Kernel:
    """A kernel's source with the types of its parameters and its number of threads a block.

    `bounds` is that number, or a pair with the blocks that shall fit on a multiprocessor,
    which limits registers.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], parameters: tuple[Any, ...], bounds: int | tuple[int, int]
    ) -> None:
        self.name = name
        self.function = function
        self.signature = types.void(*parameters)
        self.bounds = bounds
        self.threads = bounds if isinstance(bounds, int) else bounds[0]
        self.loaded: dict[int, Any] = {}
        self.shared: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Kernel {self.name}>"

    def ptx(self, cc: tuple[int, int]) -> str:
        """Compile for a compute capability; needs neither driver nor device."""
        options = {"device": False, "abi": "numba", "launch_bounds": self.bounds}
        ptx: str = cuda.compile(self.function, self.signature, cc=cc, **options)[0]
        return ptx

    def load(self, ordinal: int) -> Any:
        """The kernel on a device, from the cache folder if it is there."""
        cc = tuple(Device(ordinal).compute_capability)
        if cc < PTX_FOR and "float16" in self.name:
            raise RuntimeError(
                f"16-bit kernels need compute capability {PTX_FOR[0]}.{PTX_FOR[1]} or more, but device {ordinal} has "
                f"{cc[0]}.{cc[1]}; convert the arrays to float32"
            )
        entry, cubin = _cubins.get(self.name, cc, lambda: self.ptx(min(cc, PTX_FOR)))
        self.loaded[ordinal] = ObjectCode.from_cubin(cubin).get_kernel(entry)
        return self.loaded[ordinal]

    def allow_shared(self, ordinal: int, n_bytes: int) -> None:
        """Opt in to more than the default dynamic shared memory."""
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        handle = driver.CUkernel(int(self.loaded[ordinal].handle))
        (error,) = driver.cuKernelSetAttribute(attribute, n_bytes, handle, driver.CUdevice(ordinal))
        if error != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{self.name} asks for {n_bytes} bytes of shared memory: {error.name}")
        self.shared[ordinal] = n_bytes


def kernel(make: Callable[..., tuple[Callable[..., Any], tuple[Any, ...], Any]]) -> Callable[..., Kernel]:
    """Turn a function that returns (kernel, parameter types, bounds) into a cached maker of kernels.

    Its arguments are what the kernel is specialised for, and with its name say which kernel it is.
    """

    @cache
    @wraps(make)
    def made(*arguments: Any) -> Kernel:
        function, parameters, bounds = make(*arguments)
        name = f"{make.__module__.rsplit('.', 1)[-1]}.{make.__name__}({', '.join(map(str, arguments))})"
        return Kernel(name, function, parameters, bounds)

    return made


class _Thread(threading.local):
    """Whether a host thread has a context: launching a kernel does not make one."""

    ready = False


_thread = _Thread()


@cache
def _shared_limit(ordinal: int) -> int:
    return int(cp.cuda.Device(ordinal).attributes["MaxSharedMemoryPerBlockOptin"])


def shared_limit() -> int:
    """Bytes of shared memory that a block on the current device may ask for."""
    return _shared_limit(cp.cuda.runtime.getDevice())


@cache
def _stream(handle: int) -> Any:
    return Stream.from_handle(handle)


@lru_cache(maxsize=4096)
def _config(grid: int | tuple[int, ...], threads: int, shared: int) -> Any:
    return LaunchConfig(grid=grid, block=threads, shmem_size=shared)


def run(kernel: Kernel, grid: int | tuple[int, ...], *args: Any, shared: int = 0, threads: int = 0) -> None:
    """Launch on CuPy's current device and stream; all of the backend's launches go through here.

    `args` are CuPy arrays, which become pointers, and NumPy scalars of the exact width.
    `threads` a block are the kernel's own where they are not said, and never more.
    """
    ordinal = cp.cuda.runtime.getDevice()
    if not _thread.ready:
        cp.cuda.Device(ordinal).use()
        _thread.ready = True
    loaded = kernel.loaded.get(ordinal) or kernel.load(ordinal)
    if shared > DEFAULT_SHARED and shared > kernel.shared.get(ordinal, 0):
        kernel.allow_shared(ordinal, shared)
    how = _stream(cp.cuda.get_current_stream().ptr), _config(grid, threads or kernel.threads, shared), loaded
    if recorders:
        launched(launch, *how, *args, by=".data.ptr")
    launch(*how, *(arg.data.ptr if isinstance(arg, cp.ndarray) else arg for arg in args))


_workspaces: dict[tuple[Any, ...], tuple[Any, Any]] = {}
_retired: list[tuple[Any, Any]] = []


def workspace(n_reals: int, kind: str = "float32") -> tuple[Any, Any]:
    """Zeroed tickets, uint32, and scratch for at least `n_reals` numbers of a kind, on the current stream.

    Kernels leave the tickets at zero (see ``take_ticket``), so nothing is cleared between
    launches. One workspace for each stream and host thread: kernels of one stream never
    overlap, but the launches of one call may have those of another thread between them. It is
    never given back. A call that is being captured has one of its own, which the graph zeroes.
    """
    stream = cp.cuda.get_current_stream()
    if stream.ptr >= 2 and stream.is_capturing():
        captured = cp.zeros(N_TICKETS, np.uint32), cp.empty(max(n_reals, 1), kind)
        _retired.append(captured)
        return captured
    key = (cp.cuda.runtime.getDevice(), stream.ptr, threading.get_ident(), kind)
    found = _workspaces.get(key)
    if found is not None and found[1].size >= n_reals:
        return found
    size = max(n_reals, 1 << 16, 2 * found[1].size if found is not None else 0)
    if found is not None:
        _retired.append(found)
    made = _workspaces[key] = cp.zeros(N_TICKETS, np.uint32), cp.empty(size, kind)
    return made
