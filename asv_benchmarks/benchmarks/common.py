"""The profile, fair conditions for all libraries, and the bases of the comparisons."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

import numbanorm as nn
from numbanorm._bench import contests
from numbanorm._bench.cells import PROFILES, Cell
from numbanorm._bench.protocol import PACES, Call, medians, share_threads

from .cases import LIBRARIES, OPERATIONS, Operation

# Imported here once for asv's fork server, which hands them to its children. Imports start
# no threads that a fork would lose.
nn.get_backend()
for _library in LIBRARIES:
    with suppress(ImportError):
        import_module(_library)

NAME = os.environ.get("NUMBANORM_ASV_PROFILE", "regular")
if NAME not in PROFILES:
    raise ValueError(f"NUMBANORM_ASV_PROFILE must be one of {', '.join(PROFILES)}, but got {NAME!r}")
PROFILE = PROFILES[NAME]
PACE = PACES["smoke" if NAME == "smoke" else "regular"]
SMOKE = NAME == "smoke"


def parameters(operations: tuple[Operation, ...], *layouts: str) -> list[list[Any]]:
    """asv's `params` for the operations of these layouts, which take the same shapes."""
    names = [operation.name for operation in operations if operation.layout in layouts]
    return [names, list(PROFILE.shapes(layouts[0])), list(LIBRARIES)]


def names(cells: Iterable[Cell]) -> list[str]:
    """asv's parameter for these cells."""
    return list(map(str, cells))


def require(package: str) -> None:
    """Tell asv to skip what a missing package is needed for."""
    try:
        import_module(package)
    except ImportError:
        raise NotImplementedError(f"{package} is not installed") from None


def prepare_library(library: str, threads: int | None = None) -> None:
    """Give torch as many threads as Numba has; tell asv to skip a library that is not installed."""
    require(library)
    if library == "torch":
        share_threads(threads)


@lru_cache(maxsize=2)
def prepared(name: str, shape: tuple[int, ...], library: str) -> Call:
    """A call that is compiled, warm and known to be right; kept, as asv runs setup before every sample."""
    return contests.contest(Cell(name, shape), [library]).all_right()[library]


def rounded(value: float) -> float:
    """Three digits: asv prints all that a tracked number has."""
    return float(f"{value:.3g}")


def ratio(calls: Mapping[str, Call], over: str, under: str) -> float:
    """The time of one call divided by that of another, taken in turns."""
    times = medians({over: calls[over], under: calls[under]}, PACE)
    return rounded(times[over] / times[under])


class Prepared(ABC):
    """An operation on a shape by a library, ready to be called.

    Abstract, and so ignored by asv, until a subclass says `params`.
    """

    param_names = ("operation", "shape", "library")
    timeout = 300
    rounds = 1
    repeat = (5, 100, 2.0)

    @property
    @abstractmethod
    def params(self) -> list[list[Any]]:
        """Operations, shapes and libraries."""

    def setup(self, name: str, shape: tuple[int, ...], library: str) -> None:
        prepare_library(library)
        self.call = prepared(name, shape, library)


class Comparison(Prepared):
    """Its time and its error; abstract until a subclass says `params` and `error`."""

    @staticmethod
    @abstractmethod
    def error(result: Any, reference: np.ndarray) -> float:
        """How wrong a result is."""

    def time_call(self, *_: Any) -> None:
        self.call()

    def track_error(self, name: str, shape: tuple[int, ...], library: str) -> float:
        operation = OPERATIONS[name]
        data = operation.data(shape, mean=1e4, std=1)
        return rounded(self.error(operation.call(library, data)(), operation.reference(data)))
