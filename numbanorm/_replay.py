"""Small calls, played back: what a call of the same kind launched, without asking everything again.

What Python does in a call (checks, plan, views: ten to twenty microseconds) is decided by the
shapes and dtypes of its arrays and by its options, never by their numbers. So when calls of a kind
come often, one more is recorded, on arrays of random numbers: which kernels it runs, and which of
their operands are its arguments, fresh memory or constants. From then on those kernels are run
on the caller's arrays by a few lines of Python that are written for the kind.

A recording must account for all that was done, or the kind is never played back. Every array
that a kernel takes has to be known. What else happens to elements is not seen; therefore a
recording has to give what the function gives of other random numbers, in memory that was filled
with a pattern no result has: the same bits in every result and every argument.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from math import isfinite
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import place_of
from numbanorm._dtypes import is_float
from numbanorm._recorder import Handed, Recorder, Shaped, View, is_on_device, recorders

Array = NDArray[Any]

#: Bytes of the first array of a call on the host that is played back; beyond them Python is the smaller part of a call.
LARGEST = 1 << 18
#: The same on a device, where a kernel has read and written as much before Python is done.
LARGEST_ON_DEVICE = 1 << 23
#: Calls of a kind before it is recorded, which takes as long as a hundred of them.
OFTEN = 32
#: Kinds of calls of a function that are remembered; when there are more, all are forgotten.
MANY = 1024
#: Types of options that say all by their value, beside tuples of them.
_OPTIONS = frozenset({int, float, str, bool, type(None)})
#: Each byte of the memory in which a recording is tried: NaN in every dtype, with bits that no arithmetic gives.
_POISON = 0xFF

#: Of each function, how often a kind of call was met, or how to make it.
_memories: list[dict[Any, Any]] = []


def memory() -> dict[Any, Any]:
    """A place to remember the calls of a function."""
    _memories.append({})
    return _memories[-1]


def forget() -> None:
    """Make all calls as if they were the first."""
    for known in _memories:
        known.clear()


def can_be_told_apart(values: tuple[Any, ...], kind: type) -> bool:
    """Whether what these values say is in their kinds: arrays of x's `kind`, plain options and tuples of such."""
    return all(
        type(value) in _OPTIONS
        or type(value) is kind
        or (isinstance(value, tuple) and all(type(one) in _OPTIONS for one in value))
        for value in values
    )


class _Script:
    """A recorded call as a function in Python: memory, views or addresses of arrays, kernels."""

    def __init__(
        self, recorder: Recorder, empty: Callable[..., Any], arguments: list[str], result: Any, places: list[int]
    ) -> None:
        """`arguments` names the values of a call: ``a0``, ``a1`` for arrays, ``_`` for options."""
        self.names: dict[str, Any] = {"empty": empty}
        self.lines = ["def play(values, empty=empty):", f"{', '.join(arguments)}, = values"]
        results = result if isinstance(result, tuple) else (result,)
        evaluated = {step.array for step in recorder.steps}
        self.arrays = recorder.arrays.copy()
        for place, one in zip(places, results, strict=True):
            if place not in evaluated:
                self.arrays[place] = np.asarray(one) if isinstance(one, np.generic) else one
        for i, like in enumerate(self.arrays):
            if i >= recorder.n_arguments and i not in evaluated:
                self.lines.append(f"a{i} = empty({like.shape}, {self._named('d', like.dtype)})")
        self.views: dict[View, str] = {}
        for run, operands, array in recorder.steps:
            given = ", ".join(map(self._operand, operands))
            self.lines.append(f"{'' if array is None else f'a{array} = '}{self._named('run', run)}({given})")
        returned = ", ".join(
            self._shaped(Shaped(place, one.shape)) + "[()]" * isinstance(one, np.generic)
            for place, one in zip(places, results, strict=True)
        )
        if isinstance(result, tuple):
            returned = f"{self._named('make', getattr(type(result), '_make', tuple))}(({returned},))"
        self.lines.append(f"return {returned}")

    def _named(self, prefix: str, value: Any) -> str:
        """A name for a value."""
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def _operand(self, operand: Any) -> str:
        if isinstance(operand, View):
            return self._view(operand)
        if isinstance(operand, Handed):
            return self._handed(operand)
        return self._shaped(operand) if isinstance(operand, Shaped) else self._constant(operand)

    def _constant(self, value: Any) -> str:
        """A number or a tuple of numbers as itself, others by a name."""
        numbers = value if type(value) is tuple else (value,)
        if all(type(number) in (int, bool) or (type(number) is float and isfinite(number)) for number in numbers):
            return repr(value)
        return self._named("c", value)

    def _handed(self, handed: Handed) -> str:
        if isinstance(handed.array, int):
            return f"a{handed.array}{handed.by}"
        name = self._named("c", handed.array)  # which keeps it alive
        return str(handed.array.data.ptr) if handed.by else name  # type: ignore[attr-defined]

    def _shaped(self, whole: Shaped) -> str:
        same = self.arrays[whole.array].shape == whole.shape
        return f"a{whole.array}" + ("" if same else f".reshape({whole.shape})")

    def _view(self, view: View) -> str:
        """The name of a view, which is made where it is used first."""
        array = self.arrays[view.array]
        same = view.dtype == array.dtype
        if same and view.writeable and array.ndim == 1:
            return f"a{view.array}"
        if view not in self.views:
            name = self.views[view] = f"v{len(self.views)}"
            cast = "" if same else f".view({self._named('d', view.dtype)})"
            self.lines.append(f"{name} = a{view.array}{cast}.ravel()")
            if not view.writeable:
                self.lines.append(f"{name}.setflags(False)")  # by keyword it takes three times as long
        return self.views[view]

    def compiled(self) -> Callable[..., Any]:
        """The function."""
        exec("\n    ".join(self.lines), self.names)  # of names and numbers given above
        play: Callable[..., Any] = self.names["play"]
        return play


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], x: Any) -> Callable[..., Any]:
    """``function(*args, **kwargs)`` as a function of the values of such a call: played back, if it can be.

    All its arrays are of x's kind.
    """
    n_args, names = len(args), tuple(kwargs)

    def called(values: tuple[Any, ...]) -> Any:
        return function(*values[:n_args], **dict(zip(names, values[n_args:], strict=True)))

    values = (*args, *kwargs.values())
    is_array, place = [type(value) is type(x) for value in values], place_of(x)
    if not all(_is_plain(place, v) for v, array in zip(values, is_array, strict=True) if array):
        return called
    # Whatever goes wrong with random numbers does not concern the caller.
    with np.errstate(all="ignore"), suppress(Exception):
        return _tried(called, values, is_array, place) or called
    return called


def _tried(
    called: Callable[..., Any], values: tuple[Any, ...], is_array: list[bool], place: Any
) -> Callable[..., Any] | None:
    """A recording that does what the call does to arrays of random numbers, or None."""
    random = np.random.default_rng(0)

    def others() -> tuple[Any, ...]:
        """Values of the same kind: positive random numbers in arrays that share no memory."""
        return tuple(_other(place, random, v) if array else v for v, array in zip(values, is_array, strict=True))

    play = _recorded(called, others(), is_array, place)
    if play is None:
        return None
    second = others()
    third = tuple(place.duplicate(v) if array else v for v, array in zip(second, is_array, strict=True))
    poisoned = partial(_poisoned, place)
    same = _bits(place, play(second, poisoned), second) == _bits(place, called(third), third)
    return play if same else None


def _recorded(
    called: Callable[..., Any], values: tuple[Any, ...], is_array: list[bool], place: Any
) -> Callable[..., Any] | None:
    """The same call played back, or None where that cannot be."""
    recorder = recorders[get_ident()] = Recorder([v for v, array in zip(values, is_array, strict=True) if array])
    try:
        result = called(values)
    finally:
        del recorders[get_ident()]
    found = [recorder.place_of(one) for one in (result if isinstance(result, tuple) else (result,))]
    places = [number for number in found if number is not None]
    if not recorder.complete or len(set(places)) < len(found):
        return None
    counted = count()
    arguments = [f"a{next(counted)}" if array else "_" for array in is_array]
    return _Script(recorder, place.fresh, arguments, result, places).compiled()


def _is_plain(place: Any, array: Array) -> bool:
    """Whether this is a dense array of floating-point numbers."""
    return bool(is_float(array.dtype) and array.size and array.flags.c_contiguous and place.is_aligned(array))


def _other(place: Any, random: np.random.Generator, like: Array) -> Array:
    array: Array = place.from_host(random.uniform(0.5, 1.5, like.shape).astype(like.dtype))
    if isinstance(like, np.ndarray):
        array.flags.writeable = like.flags.writeable
    return array


def _poisoned(place: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory of bytes that no result has."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = _POISON
    return place.from_host(array)  # type: ignore[no-any-return]


def _bits(place: Any, result: Any, values: tuple[Any, ...]) -> list[bytes]:
    """Of all that a call returns and may have changed."""
    results = result if isinstance(result, tuple) else (result,)
    return [
        value.tobytes() if isinstance(value, np.generic) else place.to_host(value).tobytes()
        for value in (*results, *values)
        if isinstance(value, (np.generic, np.ndarray)) or is_on_device(value)
    ]
