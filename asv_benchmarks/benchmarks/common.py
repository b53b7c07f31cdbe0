"""Shapes, fair conditions for all libraries, and the base of every comparison."""

from __future__ import annotations

import os
import timeit
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any

import numba
import numpy as np

import numbanorm as nn

from .cases import LIBRARIES, OPERATIONS, Operation, as_float64

# Imported here once for asv's fork server, which hands them to its children. Imports start
# no threads that a fork would lose.
nn.get_backend()
for _library in LIBRARIES:
    with suppress(ImportError):
        import_module(_library)

_ROWS = [(1, 768), (512, 768), (16384, 1024), (4096, 8192)]
_TALL = [(1_000_000, 16)]
_IMAGES = [(8, 64, 56, 56), (32, 512, 7, 7), (64, 256, 56, 56)]

#: Shapes by profile and layout; a single row has no statistics over the first axis.
_SHAPES = {
    "smoke": {"rows": [(8, 64)], "columns": [(64, 8)], "images": [(2, 16, 8, 8)]},
    "regular": {"rows": _ROWS, "columns": _ROWS[1:] + _TALL, "images": _IMAGES},
    "large": {
        "rows": [*_ROWS, (65536, 4096)],
        "columns": [*_ROWS[1:], *_TALL, (65536, 4096)],
        "images": [*_IMAGES, (128, 256, 56, 56)],
    },
}

PROFILE = os.environ.get("NUMBANORM_ASV_PROFILE", "regular")
if PROFILE not in _SHAPES:
    raise ValueError(f"NUMBANORM_ASV_PROFILE must be one of {', '.join(_SHAPES)}, but got {PROFILE!r}")
SMOKE = PROFILE == "smoke"

#: Largest error, on data near zero, of a result that may be timed. A peer's float32 sums of a
#: million numbers are off by 2e-3; a wrong axis or formula is off by more than 1e-2.
_TOLERANCE = {"numbanorm": 1e-5, "numpy": 1e-2, "torch": 1e-2}


def parameters(operations: tuple[Operation, ...], *layouts: str) -> list[list[Any]]:
    """asv's `params` for the operations of these layouts, which take the same shapes."""
    names = [operation.name for operation in operations if operation.layout in layouts]
    return [names, _SHAPES[PROFILE][layouts[0]], list(LIBRARIES)]


def prepare_library(library: str, threads: int | None = None) -> None:
    """Give torch as many threads as Numba has; tell asv to skip a library that is not installed."""
    try:
        module = import_module(library)
    except ImportError:
        raise NotImplementedError(f"{library} is not installed") from None
    if library == "torch":
        module.set_num_threads(threads or numba.get_num_threads())


@lru_cache(maxsize=2)
def prepared(name: str, shape: tuple[int, ...], library: str) -> Callable[[], Any]:
    """A call that is compiled, warm and known to be right; kept, as asv runs setup before every sample."""
    operation = OPERATIONS[name]
    data = operation.data(shape)
    call = operation.call(library, data)
    error = np.abs(as_float64(call()) - operation.reference(data)).max()
    if not error <= _TOLERANCE[library]:
        raise AssertionError(f"{name} of {library} is off by {error:.1e} on {shape}: no time is given for it")
    return call


def rounded(value: float) -> float:
    """Three digits: asv prints all that a tracked number has."""
    return float(f"{value:.3g}")


def speedup(name: str, shape: tuple[int, ...], library: str) -> float:
    """A library's time divided by numbanorm's, from calls that alternate in this process."""
    timers = [timeit.Timer(prepared(name, shape, other)) for other in (library, "numbanorm")]
    sample_time, n_samples = (0.0, 1) if SMOKE else (2e-3, 15)
    numbers = [1 + int(sample_time / timer.timeit(1)) for timer in timers]
    samples = [[timer.timeit(n) / n for timer, n in zip(timers, numbers, strict=True)] for _ in range(n_samples)]
    theirs, ours = np.median(samples, axis=0)
    return rounded(theirs / ours)


class Comparison(ABC):
    """An operation on a shape by a library: its time, its error and its time over numbanorm's.

    Abstract, and so ignored by asv, until a subclass says `params` and `error`.
    """

    param_names = ("operation", "shape", "library")
    timeout = 300
    rounds = 1
    repeat = (5, 100, 2.0)

    @property
    @abstractmethod
    def params(self) -> list[list[Any]]:
        """Operations, shapes and libraries."""

    @staticmethod
    @abstractmethod
    def error(result: Any, reference: np.ndarray) -> float:
        """How wrong a result is."""

    def setup(self, name: str, shape: tuple[int, ...], library: str) -> None:
        prepare_library(library)
        self.call = prepared(name, shape, library)

    def time_call(self, *_: Any) -> None:
        self.call()

    def track_error(self, name: str, shape: tuple[int, ...], library: str) -> float:
        operation = OPERATIONS[name]
        data = operation.data(shape, mean=1e4, std=1)
        return rounded(self.error(operation.call(library, data)(), operation.reference(data)))

    def track_speedup(self, name: str, shape: tuple[int, ...], library: str) -> float:
        return speedup(name, shape, library)

    track_speedup.unit = "times numbanorm's time"
