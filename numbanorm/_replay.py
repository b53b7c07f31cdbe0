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
from functools import partial, wraps
from itertools import count
from operator import attrgetter
from threading import get_ident
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays
from numbanorm._arrays import cupy_kind, place_of
from numbanorm._backend import selected
from numbanorm._dtypes import is_float
from numbanorm._guests import everywhere
from numbanorm._recorder import Recorder, recorders
from numbanorm._script import Script

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

#: Bytes of the first array of a call on the host that is played back; beyond them Python is the smaller part of a call.
LARGEST = 1 << 22
#: The same on a device, where a kernel has read and written as much before Python is done.
LARGEST_ON_DEVICE = 1 << 23
#: Calls of a kind before it is recorded, which takes as long as some hundred of them.
OFTEN = 32
#: Kinds of calls of a function that are remembered; when there are more, all are forgotten.
MANY = 1024
#: Types of options that say all by their value, beside tuples of them.
_OPTIONS = frozenset({int, float, str, bool, type(None)})
#: Each byte of the memory in which a recording is tried: NaN in every dtype, with bits that no arithmetic gives.
_POISON = 0xFF

#: Of each function, how often a kind of call was met, or how to make it.
_memories: list[dict[Any, Any]] = []


def _memory() -> dict[Any, Any]:
    """A place to remember the calls of a function."""
    _memories.append({})
    return _memories[-1]


def forget() -> None:
    """Make all calls as if they were the first."""
    for known in _memories:
        known.clear()


#: What a call's Python may ask of an array: one attrgetter takes less time than three attributes.
_kind = attrgetter("shape", "dtype", "flags.num")
_device_kind = attrgetter("shape", "dtype", "flags.c_contiguous", "data.device_id")
#: Accesses of kernels on a device ask for addresses that are multiples of at most this.
_ALIGNMENT = 16


def _option(value: Any) -> tuple[Any, ...]:
    """An option by its type, as 1, 1.0 and True are equal."""
    return (type(value), value, *map(type, value)) if isinstance(value, tuple) else (type(value), value)


def _kinds_on_device(x: Any, values: tuple[Any, ...]) -> list[Any]:
    """Of the values of a call with CuPy's x, and where it is made; empty if it is not to be played back."""
    context = _arrays.device().context()
    if context is None or x.nbytes > LARGEST_ON_DEVICE or x.data.device_id != context[0]:
        return []
    kinds = [(*_device_kind(v), v.data.ptr % _ALIGNMENT) if type(v) is type(x) else _option(v) for v in values]
    return [context, *kinds]


def _can_be_told_apart(values: tuple[Any, ...], kind: type) -> bool:
    """Whether what these values say is in their kinds: arrays of x's `kind`, plain options and tuples of such."""
    return all(
        type(value) in _OPTIONS
        or type(value) is kind
        or (isinstance(value, tuple) and all(type(one) in _OPTIONS for one in value))
        for value in values
    )


def replayed(function: F) -> F:
    """:func:`everywhere`, and calls of a kind that comes often are played back.

    On the host small ones. For functions whose Python never asks what an array holds, or says so
    by ``not_replayed``.
    """
    received, numpy_kind = everywhere(function), np.ndarray
    first = int(function.__code__.co_varnames[0] == "self")
    known = _memory()

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        x = args[first] if len(args) > first and not recorders else None
        values = (*args, *kwargs.values()) if kwargs else args
        if type(x) is numpy_kind and x.nbytes <= LARGEST:
            kinds: list[Any] = [_kind(v) if type(v) is numpy_kind else _option(v) for v in values]
        elif x is not None and type(x) is cupy_kind():
            kinds = _kinds_on_device(x, values)
        else:
            kinds = []
        if not kinds:
            return received(*args, **kwargs)
        kinds.append(selected()[0])
        key = (*kinds, *kwargs) if kwargs else tuple(kinds)
        try:
            met = known.get(key, 0)
        except TypeError:  # an option without a hash
            return received(*args, **kwargs)
        if met.__class__ is not int:
            return met(values)
        result = received(*args, **kwargs)
        if met or _can_be_told_apart(values, type(x)):
            if len(known) >= MANY:
                known.clear()
            known[key] = met + 1 if met < OFTEN else record(received, args, kwargs, x)
        return result

    return cast(F, call)


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
    played, plain = _bits(place, play(second, poisoned), second), _bits(place, called(third), third)
    same = len(played) == len(plain) and all(map(np.array_equal, played, plain))
    return play if same else None


def _recorded(
    called: Callable[..., Any], values: tuple[Any, ...], is_array: list[bool], place: Any
) -> Callable[..., Any] | None:
    """The same call played back, or None where that cannot be."""
    recorder = recorders[get_ident()] = Recorder(place, [v for v, array in zip(values, is_array, strict=True) if array])
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
    fresh = place.fresh(max(array.nbytes for array in recorder.arrays))
    return Script(recorder, fresh, arguments, result, places).compiled()


def _is_plain(place: Any, array: Array) -> bool:
    """Whether this is a dense array of floating-point numbers."""
    return bool(is_float(array.dtype) and array.size and array.flags.c_contiguous and place.is_aligned(array))


def _other(place: Any, random: np.random.Generator, like: Array) -> Array:
    numbers = random.random(like.shape, like.dtype if like.dtype == np.float64 else np.float32)
    array: Array = place.from_host((numbers + numbers.dtype.type(0.5)).astype(like.dtype, copy=False))
    if isinstance(like, np.ndarray):
        array.flags.writeable = like.flags.writeable
    return array


def _poisoned(place: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Memory of bytes that no result has."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = _POISON
    return place.from_host(array)  # type: ignore[no-any-return]


def _bits(place: Any, result: Any, values: tuple[Any, ...]) -> list[Array]:
    """Of all that a call returns and may have changed: bytes."""
    results = result if isinstance(result, tuple) else (result,)
    arrays = (
        np.asarray(value) if isinstance(value, np.generic) else place.to_host(value)
        for value in (*results, *values)
        if isinstance(value, (np.generic, place.ndarray))
    )
    return [array.reshape(-1).view(np.uint8) for array in arrays]
