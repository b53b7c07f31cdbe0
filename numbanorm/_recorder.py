"""What a call does, told by those who do it while it is recorded (see ``_replay.py``): kernels and evaluations."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: What each thread records at the moment. Nothing is told while this is empty.
recorders: dict[int, Recorder] = {}
if hasattr(os, "register_at_fork"):  # a child has none of the other threads, but may give their numbers to its own
    os.register_at_fork(after_in_child=recorders.clear)


def launched(run: Callable[..., Any], *args: Any, by: str | None = None) -> None:
    """A kernel is run; on a device `by` is how it wants its arrays, as ``array.data.ptr`` or as they are ("")."""
    if recorder := recorders.get(get_ident()):
        recorder.launched(run, *args, by=by)


def allocated(array: Array) -> None:
    """Memory on a device that nothing was written to."""
    if recorders and (recorder := recorders.get(get_ident())):
        recorder.add(array)


def evaluated(run: Callable[..., Any], args: tuple[Any, ...], result: Array) -> None:
    """``run(*args)`` gave an array."""
    if recorders and (recorder := recorders.get(get_ident())):
        recorder.evaluated(run, args, result)


class NotReplayedError(Exception):
    """Ends a recording."""


def not_replayed() -> None:
    """A call does more than run kernels whatever its arrays hold: it may warn, or looks at elements."""
    if recorders and get_ident() in recorders:
        raise NotReplayedError


class View(NamedTuple):
    """How a kernel saw an array: flat, as this dtype, and whether it might write."""

    array: int
    dtype: np.dtype[Any]
    writeable: bool


class Shaped(NamedTuple):
    """How NumPy saw an array."""

    array: int
    shape: tuple[int, ...]


class Handed(NamedTuple):
    """How a kernel on a device gets an array: a known one by its number, or one that stays the same."""

    array: int | Array
    by: str


class Step(NamedTuple):
    """A kernel that was run; or a function of arrays, whose result became known as `array`."""

    run: Callable[..., Any]
    operands: list[Any]
    array: int | None = None


class Recorder:
    """What a call does with its arguments, as far as it is told."""

    def __init__(self, place: Any, arguments: list[Array]) -> None:
        """All arrays are at a `place`."""
        self._address, self._kind = place.address, place.ndarray
        self.n_arguments = len(arguments)
        #: Arguments, then memory and results; and where they are by their address.
        self.arrays = list(arguments)
        self.places = {self._address(array): i for i, array in enumerate(arguments)}
        self.steps: list[Step] = []
        self.written = set(range(len(arguments)))
        self.complete = True

    def launched(self, run: Callable[..., Any], *args: Any, by: str | None) -> None:
        """A kernel was run."""
        if by is None:
            operands = [self._operand(arg) if isinstance(arg, self._kind) else arg for arg in args]
        else:
            operands = [self._handed(arg, by) if isinstance(arg, self._kind) else arg for arg in args]
        self.steps.append(Step(run, operands))

    def evaluated(self, run: Callable[..., Any], args: tuple[Any, ...], result: Array) -> None:
        """``run(*args)`` gave an array."""
        if self._address(result) in self.places:
            return  # a view of what is known
        operands = [self._shaped(arg) if isinstance(arg, self._kind) else arg for arg in args]
        self.steps.append(Step(run, operands, self.add(result)))
        self.written.add(len(self.arrays) - 1)

    def add(self, array: Array) -> int:
        """Make an array known."""
        place = self.places[self._address(array)] = len(self.arrays)
        self.arrays.append(array)
        return place

    def _operand(self, array: Array) -> Any:
        """A view of an argument or of other memory; or the array itself, if nobody can write to it."""
        place = self.places.get(self._address(array))
        if array.size == 0 or (place is None and not _owner(array).flags.writeable):
            return array
        if place is None:
            place = self.add(array)
        if array.flags.writeable:
            self.written.add(place)
        self._know(array, place)
        self.complete &= array.ndim == 1
        return View(place, array.dtype, array.flags.writeable)

    def _handed(self, array: Array, by: str) -> Any:
        """The same on a device; what nobody allocated in this call is constant."""
        place = self.places.get(self._address(array)) if array.size else None
        if place is None:
            return Handed(array, by)
        self.complete &= array.nbytes == self.arrays[place].nbytes and array.flags.c_contiguous
        return Handed(place, by)

    def _shaped(self, array: Array) -> Any:
        place = self.places.get(self._address(array))
        self._know(array, place)
        return Shaped(place or 0, array.shape)

    def _know(self, array: Array, place: int | None) -> None:
        """Give up if what this array holds, or where it ends, was decided by what was not seen."""
        known = place is not None and place in self.written and array.nbytes == self.arrays[place].nbytes
        self.complete &= known and array.flags.c_contiguous

    def place_of(self, result: Any) -> int | None:
        """Which new array this is, all of it, or the only number in it; or None."""
        new = range(self.n_arguments, len(self.arrays))
        if isinstance(result, np.generic):
            same = [i for i in new if self.arrays[i].tobytes() == result.tobytes()]
            return same[0] if len(same) == 1 else None
        is_array = type(result) is self._kind
        place = self.places.get(self._address(result)) if is_array and result.size else None
        if place is None or place not in new or result.nbytes != self.arrays[place].nbytes:
            return None
        return place if result.flags.c_contiguous else None


def _owner(array: Array) -> Array:
    """The array that owns the memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
