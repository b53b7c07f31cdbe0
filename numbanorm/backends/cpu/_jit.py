"""How this backend compiles, and how it enters a parallel region safely.

Four decorators: :func:`exact` for arithmetic that must not be reordered, :func:`inner`
for loops that LLVM may vectorise, :func:`spliced` for what lies around loops,
:func:`kernel` for the work of one part. The package
has one parallel region, :func:`_parallel_parts`: it calls the compiled part through a
pointer, so that LLVM optimises each kernel once, and the same machine code runs with
threads and without.

Numba's ``workqueue`` layer aborts the interpreter when two Python threads meet in it,
and GNU OpenMP ends a forked child. TBB survives both, so it is loaded when its wheel is
installed; under any other layer one caller at a time takes the parallel region, and only
in the process that started it. All others run the parts one after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import site
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, prange, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from numbanorm import _process
from numbanorm._recorder import launched, recorders

#: What LLVM may assume of floating point: everything but the absence of NaN and inf.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
#: What a kernel calls neither allocates nor counts references: that takes atomic instructions, which
#: wait until all that was streamed to memory has arrived there.
_CALLEE: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "_nrt": False}


def exact(function: Callable[..., Any]) -> Any:
    """Compile arithmetic whose order and rounding matter.

    Said explicitly, because Numba hands a caller's fastmath down to what it calls.
    """
    return njit(fastmath=False, **_CALLEE)(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a loop in which LLVM may reorder sums to use vector registers."""
    return njit(fastmath=FASTMATH, **_CALLEE)(function)


def spliced(function: Callable[..., Any]) -> Any:
    """Make a function part of those that call it, before they are compiled.

    For code around loops, not for loops: LLVM optimises what a function calls once more with
    each function that calls it, so another level costs tenths of a second at the first call.
    """
    return njit(inline="always", **_CALLEE)(function)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Compile the work of one part; see :class:`Kernel`."""
    return Kernel(function)


@intrinsic
def _call(typingctx, function, a, b, c):
    """Call the C function ``void(intp, intp, intp)`` at the address `function`."""

    def codegen(context, builder, signature, arguments):
        address, *words = arguments
        kind = ir.FunctionType(ir.VoidType(), [word.type for word in words])
        builder.call(builder.inttoptr(address, kind.as_pointer()), words)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def _bound(typingctx, part_function, arguments):
    """Addresses (function, block, failed): ``function(part, n_parts, block)`` does that part of the work.

    The block holds `arguments`, and a word that is not 0 once a part has failed; both live as
    long as the caller's frame.
    """
    sig = part_function.get_call_type(typingctx, (types.intp, types.intp, *arguments.types), {})

    def codegen(context, builder, signature, values):
        packed = values[1]
        compiled = part_function.dispatcher.overloads[sig.args]
        context.active_code_library.add_linking_library(compiled.library)
        word = context.get_value_type(types.intp)
        kind = ir.FunctionType(ir.VoidType(), [word, word, word])
        function = ir.Function(builder.module, kind, builder.module.get_unique_name("part"))
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        part, n_parts, block = function.args
        layout = ir.LiteralStructType([packed.type, word])
        given = inside.inttoptr(block, layout.as_pointer())
        unpacked = cgutils.unpack_tuple(inside, inside.load(cgutils.gep_inbounds(inside, given, 0, 0)))
        status, _ = context.call_internal_no_propagate(inside, compiled.fndesc, sig, [part, n_parts, *unpacked])
        with inside.if_then(status.is_error, likely=False):
            inside.store(word(1), cgutils.gep_inbounds(inside, given, 0, 1))
        inside.ret_void()
        slot = cgutils.alloca_once(builder, layout)
        failed = cgutils.gep_inbounds(builder, slot, 0, 1)
        builder.store(packed, cgutils.gep_inbounds(builder, slot, 0, 0))
        builder.store(word(0), failed)
        addresses = [builder.ptrtoint(pointer, word) for pointer in (function, slot, failed)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return types.UniTuple(types.intp, 3)(part_function, arguments), codegen


@intrinsic
def _word(typingctx, address):
    """What lies at an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], context.get_value_type(types.intp).as_pointer()))

    return types.intp(types.intp), codegen


@cache
def _parallel_parts() -> int:
    """Address of the parallel region: ``(n_parts, function, block)``, a call of function for each part."""

    @cfunc(types.void(types.intp, types.intp, types.intp), parallel=True, nogil=True, cache=True)
    def parallel_parts(n_parts, function, block):
        for part in prange(n_parts):
            _call(function, np.intp(part), n_parts, block)

    return int(parallel_parts.address)


def _entry_template(n_parts, region, *arguments):
    """What Python calls: all parts, in the parallel region at that address, or in turn if it is 0."""
    function, block, failed = _bound(part_function, arguments)  # type: ignore[name-defined]  # noqa: F821
    if region:
        _call(region, n_parts, function, block)
    else:
        for part in range(n_parts):
            _call(function, part, n_parts, block)
    if _word(failed):
        raise MemoryError("no memory for the scratch of a kernel")


def _in_turn(function: Callable[..., Any], n_parts: int, region: int, *args: Any) -> None:
    """What an entry does, in Python."""
    for part in range(n_parts):
        function(part, n_parts, *args)


def _entry(function: Callable[..., Any], compiled: Any) -> FunctionType:
    """The template as a function of the kernel's own file, line and name, by which Numba's cache tells it apart."""
    assert isinstance(function, FunctionType)
    code = function.__code__
    template = _entry_template.__code__.replace(
        co_filename=code.co_filename, co_firstlineno=code.co_firstlineno, co_name=code.co_name
    )
    entry = FunctionType(template, {**globals(), "part_function": compiled}, function.__name__)
    entry.__qualname__, entry.__module__ = function.__qualname__, function.__module__
    return entry


class Kernel:
    """The compiled work of one part, ``function(part, n_parts, *args)``, called for all: ``kernel(n_parts, *args)``.

    Parts are independent and set by shape alone, so the result does not depend on the
    number of threads. A single part starts no threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.run: Any
        if numba.config.DISABLE_JIT:
            # Compiled code gives no floating point warnings, so neither does its Python form.
            self.run = np.errstate(all="ignore")(partial(_in_turn, function))
        else:
            part = njit(fastmath=False, **_CALLEE)(function)
            self.run = njit(cache=True, **_OPTIONS)(_entry(function, part))

    def __call__(self, n_parts: int, *args: Any) -> None:
        if recorders:
            launched(*((self.run, 1, 0) if n_parts == 1 else (self, n_parts)), *args)
        if n_parts == 1:
            self.run(1, 0, *args)
        elif _gate.free:
            self.run(n_parts, _parallel_parts(), *args)
        else:
            _gate.guarded(self, n_parts, args)


class _Gate:
    """The way into parallel regions: free under TBB, else one caller at a time.

    And only in the process whose threads they are: a forked child has none of its
    parent's, and neither GNU OpenMP nor we can tell from the layer's state alone.
    """

    def __init__(self) -> None:
        self.free = False
        self._owner = 0 if _process.THREADS_RAN_BEFORE else _process.PID
        self._lock = threading.Lock()

    def guarded(self, kernel: Kernel, n_parts: int, args: tuple[Any, ...]) -> None:
        """Run the parts in parallel if that is safe and nobody else does, else in turn."""
        if not self._is_ours() or not self._lock.acquire(blocking=False):
            kernel.run(n_parts, 0, *args)
            return
        try:
            kernel.run(n_parts, _parallel_parts(), *args)
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


_gate = _Gate()


def threading_layer() -> str:
    """Numba's threading layer, or "none yet" before the first parallel call."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none yet"


@kernel
def _touch(part, n_parts, out):
    """The smallest kernel."""
    out[part] = part


def start_threads() -> str:
    """Start Numba's threads and name the layer that runs them."""
    _touch(2, np.empty(2))
    return threading_layer()


def cache_folder() -> str:
    """Where compiled kernels are kept."""
    return str(_touch.run._cache.cache_path) if not numba.config.DISABLE_JIT else "none: the JIT is off"


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
