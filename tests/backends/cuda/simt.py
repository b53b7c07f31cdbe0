"""Runs a kernel's own Python source on the CPU, thread by thread.

Nothing global is patched: a kernel and every device function that it reaches are rebuilt
with `cuda` and the intrinsics replaced, so one process can execute a kernel, compile it and
test the CPU's code. Threads are greenlets; one runs at a time, until it meets a barrier or
a shuffle, in an order that the test chooses.

Caught: missing, unequal and diverging barriers, shuffles from lanes that take no part,
accesses out of bounds or off alignment, uninitialised memory (it is NaN). Not caught: wrong
types (see compile_checks), missing fences, speed.
"""

from __future__ import annotations

import random
import sys
import types as python_types

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet
from numba import cuda, types
from numba.cuda import libdevice
from numba.cuda import types as cuda_types
from numba.cuda.extending import intrinsic as _intrinsic
from numba.cuda.np import numpy_support

from tests.backends.cuda.twins import TWINS, Libdevice, Pointer, SimulationError, fma

ORDERS = ("forward", "reverse", "random:1")
FULL = 0xFFFFFFFF

_Intrinsic = type(_intrinsic(lambda typingctx: None))


# ---- what `cuda` is to a thread ----


def _dtype(of):
    return numpy_support.as_dtype(of) if isinstance(of, (types.Type, cuda_types.Type)) else np.dtype(of)


def _poisoned(shape, of):
    array = np.empty(shape, _dtype(of))
    array.view(np.uint8)[...] = 0xFF  # NaN, or -1
    return array


class _Local:
    @staticmethod
    def array(shape, dtype, alignment=None):
        return _poisoned(shape, dtype)


class _Shared:
    def __init__(self, launch):
        self._launch = launch

    def array(self, shape, dtype, alignment=None):
        block = self._launch.current.block
        if isinstance(shape, int) and shape == 0:
            of = _dtype(dtype)
            return block.dynamic[: len(block.dynamic) // of.itemsize * of.itemsize].view(of)
        frame = sys._getframe(1)
        key = (frame.f_code, frame.f_lasti)  # one array for each place in the source
        if key not in block.shared:
            block.shared[key] = _poisoned(shape, dtype)
        return block.shared[key]


class _Cuda:
    """The names of `numba.cuda` that kernels may use."""

    warpsize = 32
    local = _Local()
    libdevice = Libdevice
    fma = staticmethod(fma)
    selp = staticmethod(lambda condition, a, b: a if condition else b)

    def __init__(self, launch):
        self._launch = launch
        self.gridDim, self.blockDim = launch.grid, launch.block
        self.shared = _Shared(launch)

    threadIdx = property(lambda self: self._launch.current.thread_index)
    blockIdx = property(lambda self: self._launch.current.block.index)
    laneid = property(lambda self: np.int32(self._launch.current.lane))

    def threadfence(self):
        """One thread runs at a time, so all memory is in order."""

    def _block(self, name, value=None):
        thread = self._launch.current
        return self._launch.meet(("block",), name, None, thread.number, value)

    def syncthreads(self):
        self._block("syncthreads")

    def syncthreads_or(self, predicate):
        return np.int32(any(self._block("syncthreads_or", predicate).values()))

    def syncthreads_and(self, predicate):
        return np.int32(all(self._block("syncthreads_and", predicate).values()))

    def _warp(self, name, mask, value=None):
        thread, mask = self._launch.current, int(mask) & FULL
        if not mask >> thread.lane & 1:
            raise SimulationError(f"{name}: lane {thread.lane} is not in its own mask {mask:#x}")
        return self._launch.meet(("warp", thread.warp, mask), name, mask, thread.lane, value)

    def _shuffle(self, name, mask, value, source, own_if_outside=True):
        values = self._warp(name, mask, value)
        if not 0 <= source < 32:
            return value
        if source not in values:
            raise SimulationError(f"{name} reads lane {source}, which takes no part")
        return values[source]

    def syncwarp(self, mask=FULL):
        self._warp("syncwarp", mask)

    def shfl_sync(self, mask, value, source):
        return self._shuffle("shfl_sync", mask, value, int(source) & 31)

    def shfl_xor_sync(self, mask, value, bits):
        return self._shuffle(f"shfl_xor_sync {int(bits)}", mask, value, self.laneid ^ int(bits))

    def shfl_down_sync(self, mask, value, delta):
        return self._shuffle(f"shfl_down_sync {int(delta)}", mask, value, self.laneid + int(delta))

    def ballot_sync(self, mask, predicate):
        return np.uint32(sum(1 << lane for lane, x in self._warp("ballot_sync", mask, predicate).items() if x))

    def any_sync(self, mask, predicate):
        return any(self._warp("any_sync", mask, predicate).values())

    def all_sync(self, mask, predicate):
        return all(self._warp("all_sync", mask, predicate).values())


# ---- threads, blocks and their meetings ----


class _Index:
    def __init__(self, x, y=1, z=1):
        self.x, self.y, self.z = np.int32(x), np.int32(y), np.int32(z)


class _Meeting:
    def __init__(self, name, mask):
        self.name, self.mask, self.values, self.done = name, mask, {}, False


class _Block:
    def __init__(self, index, shared_bytes):
        self.index, self.shared, self.meetings, self.threads = index, {}, {}, []
        self.dynamic = _poisoned(shared_bytes, np.uint8)


class _Thread:
    def __init__(self, launch, block, number, index):
        self.block, self.number, self.thread_index = block, number, index
        self.lane, self.warp = number & 31, number >> 5
        self.waits, self.error = None, None
        self.greenlet = greenlet(lambda: self._run(launch))

    def _run(self, launch):
        try:
            with np.errstate(all="ignore"):  # a greenlet has its own
                launch.function(*launch.args)
        except GreenletExit:
            raise
        except BaseException as error:
            error.add_note(f"thread {self.number} of block {self.block.index.x, self.block.index.y}")
            self.error = error


class _Launch:
    def __init__(self, function, grid, block, args, shared, order):
        self.grid = _Index(*(grid if isinstance(grid, tuple) else (grid,)))
        self.block = _Index(*(block if isinstance(block, tuple) else (block,)))
        self.args, self.shared = args, shared
        self.backwards = order == "reverse"
        self.random = random.Random(order) if order.startswith("random") else None
        self.current = None
        self.fake = _Cuda(self)
        self.rebuilt = {}
        self.function = self.rebuild(function)

    def rebuild(self, function):
        """A copy of a Python function whose globals and closure are those of the emulator."""
        if function in self.rebuilt:
            return self.rebuilt[function]
        names = dict(function.__globals__)
        cells = tuple(python_types.CellType() for _ in function.__closure__ or ())
        copy = python_types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells)
        self.rebuilt[function] = copy
        for name in function.__code__.co_names:
            if name in names:
                names[name] = self.swap(names[name])
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            cell.cell_contents = self.swap(old.cell_contents)
        return copy

    def swap(self, value):
        if value is cuda:
            return self.fake
        if value is libdevice:
            return Libdevice
        if getattr(value, "__module__", "") == libdevice.__name__:
            return getattr(Libdevice, value.__name__)
        if isinstance(value, _Intrinsic):
            return TWINS[value.__name__]
        if hasattr(value, "py_func") and hasattr(value, "targetoptions"):
            return self.rebuild(value.py_func)
        return value

    def in_order(self, items):
        if self.random:
            self.random.shuffle(items)
        return items[::-1] if self.backwards else items

    def run(self):
        grid, block = self.grid, self.block
        indices = [(x, y, z) for z in range(grid.z) for y in range(grid.y) for x in range(grid.x)]
        for index in self.in_order(indices):
            home = _Block(_Index(*index), self.shared)
            places = [(x, y, z) for z in range(block.z) for y in range(block.y) for x in range(block.x)]
            home.threads = [_Thread(self, home, number, _Index(*place)) for number, place in enumerate(places)]
            self.run_block(home)

    def run_block(self, block):
        every = waiting = self.in_order(list(block.threads))
        here = getcurrent()
        try:
            while waiting:
                moved = [thread for thread in waiting if thread.waits is None or thread.waits.done]
                for thread in moved:
                    self.step(thread, here)
                waiting = [thread for thread in waiting if not thread.greenlet.dead]
                if waiting and not moved:
                    raise SimulationError(f"deadlock: {self.who_waits(waiting)}")
                if self.random:
                    self.random.shuffle(waiting)
        finally:
            for thread in every:
                if not thread.greenlet.dead:
                    thread.greenlet.throw()

    def step(self, thread, here):
        self.current, thread.greenlet.parent = thread, here
        thread.greenlet.switch()
        if thread.greenlet.dead:
            if thread.error is not None:
                raise thread.error
            thread.block.threads.remove(thread)
            for key in list(thread.block.meetings):
                self.close_if_full(thread.block, key)

    @staticmethod
    def who_waits(threads):
        places = {}
        for thread in threads:
            places.setdefault(thread.waits.name, []).append(thread.number)
        return "; ".join(f"{name}: threads {numbers[:8]}" for name, numbers in places.items())

    def meet(self, key, name, mask, who, value):
        """Wait for all that take part in `name`; their values."""
        thread = self.current
        meeting = thread.block.meetings.setdefault(key, _Meeting(name, mask))
        if meeting.name != name:
            raise SimulationError(f"{name} meets {meeting.name} (thread {thread.number})")
        meeting.values[who] = value
        self.close_if_full(thread.block, key)
        while not meeting.done:
            thread.waits = meeting
            thread.greenlet.parent.switch()
        thread.waits = None
        return meeting.values

    @staticmethod
    def close_if_full(block, key):
        meeting = block.meetings[key]
        if key[0] == "block":
            full = len(meeting.values) >= len(block.threads)
        else:
            lanes = (thread.lane for thread in block.threads if thread.warp == key[1])
            full = all(lane in meeting.values for lane in lanes if meeting.mask >> lane & 1)
        if full:
            meeting.done = True
            del block.meetings[key]


def as_python(function):
    """A device function that runs outside of a launch, as long as it asks for no thread and no barrier."""
    return _Launch(function.py_func, 1, 1, (), 0, "forward").function


def launch(function, grid, block, *args, shared=0, order="forward"):
    """Run a kernel's source; NumPy arrays are its pointers, and are changed in place."""
    pointers = [Pointer(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    _Launch(function, grid, block, pointers, shared, order).run()
