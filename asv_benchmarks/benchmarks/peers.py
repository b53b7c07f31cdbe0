"""Ratios to torch and NumPy: a library's time divided by numbanorm's. Above 1, numbanorm is faster.

The column of numbanorm compares it with itself: how far that is from 1 is the noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from numbanorm._bench.contests import contest

from .cases import LIBRARIES
from .common import PROFILE, names, prepare_library, ratio

_CELLS = PROFILE.peers()


class _Peers(ABC):
    """Cells of one group. Abstract, and so ignored by asv, until a subclass says which."""

    param_names = ("cell", "library")
    timeout = 600
    #: torch's threads; None for as many as Numba has.
    threads: int | None = None

    @property
    @abstractmethod
    def group(self) -> str:
        """Key of the group's cells."""

    def setup(self, name: str, library: str) -> None:
        prepare_library(library)
        cell = {str(cell): cell for cell in _CELLS[self.group]}[name]
        # Each library once, though numbanorm is its own peer too.
        calls = contest(cell, dict.fromkeys([library, "numbanorm"]), torch_threads=self.threads).all_right()
        self.calls = {"theirs": calls[library], "ours": calls["numbanorm"]}

    def track_ratio(self, *_: Any) -> float:
        return ratio(self.calls, "theirs", "ours")

    track_ratio.unit = "times numbanorm's time"


class Norms(_Peers):
    """Layer, RMS, batch, group and instance norm."""

    group = "norms"
    params = (names(_CELLS[group]), list(LIBRARIES))


class Gradients(_Peers):
    """Those of the same norms, torch's by its autograd."""

    group = "gradients"
    params = (names(_CELLS[group]), list(LIBRARIES))


class Standardize(_Peers):
    """Which torch has no single call for."""

    group = "standardize"
    params = (names(_CELLS[group]), list(LIBRARIES))


class MeanVar(_Peers):
    """Over the last, the first, a middle one, several and all axes."""

    group = "mean_var"
    params = (names(_CELLS[group]), list(LIBRARIES))


class Var(_Peers):
    """The variance alone, as NumPy's users call it."""

    group = "var"
    params = (names(_CELLS[group]), list(LIBRARIES))


class VarFloat16(_Peers):
    """The same of half as many bytes."""

    group = "var of float16"
    params = (names(_CELLS[group]), list(LIBRARIES))


class SmallCalls(_Peers):
    """Whole calls on few numbers, Python included.

    torch is at its best with one thread here: with more, waking those that sleep would be
    most of the call. numbanorm uses one by itself.
    """

    group = "small calls"
    params = (names(_CELLS[group]), list(LIBRARIES))
    threads = 1
