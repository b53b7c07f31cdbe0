"""Shares of what the memory allows, and what layouts, dtypes and threads make of a call.

All are ratios of times that were taken in turns in one process; more is better.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numba

from numbanorm._bench import contests
from numbanorm._bench.cells import Cell

from .common import PROFILE, names, ratio, require, rounded


def _of(cells: Iterable[Cell], name: str) -> Cell:
    return next(cell for cell in cells if str(cell) == name)


class Copy:
    """The time of a copy of x divided by that of a norm of x, into memory that is given or recycled.

    From 64 MiB on, the copy bypasses the caches.
    """

    params = (names(PROFILE.copies()), ["given", "recycled"])
    param_names = ("cell", "output")
    timeout = 600

    def setup(self, name: str, output: str) -> None:
        self.calls = contests.contest(_of(PROFILE.copies(), name), ceiling=True).all_right()

    def track_share(self, name: str, output: str) -> float:
        return ratio(self.calls, "ceiling", "given" if output == "given" else "numbanorm")

    track_share.unit = "of the copy's speed"


class CopyOfGradient:
    """The time of a copy of as many bytes as a gradient must move, half as many again as x's copy, over its own."""

    params = (names(PROFILE.large_gradients()),)
    param_names = ("cell",)
    timeout = 600

    def setup(self, name: str) -> None:
        self.cell = _of(PROFILE.large_gradients(), name)
        self.calls = contests.contest(self.cell, ceiling=True).all_right()

    def track_share(self, *_: Any) -> float:
        passes = self.cell.moved / self.cell.nbytes
        return rounded(passes / 2 * ratio(self.calls, "ceiling", "numbanorm"))

    track_share.unit = "of the copy's speed"


class Read:
    """The time of reading x once divided by that of its mean and variance."""

    params = (names(PROFILE.reads()),)
    param_names = ("cell",)
    timeout = 600

    def setup(self, name: str) -> None:
        self.calls = contests.contest(_of(PROFILE.reads(), name), ceiling=True).all_right()

    def track_share(self, *_: Any) -> float:
        return ratio(self.calls, "ceiling", "numbanorm")

    track_share.unit = "of the read's speed"


class ChannelsLast:
    """The time of a batch norm of channels-first images divided by that of channels-last ones."""

    params = (names(PROFILE.formats()),)
    param_names = ("cell",)
    timeout = 600

    def setup(self, name: str) -> None:
        self.calls = contests.formats(_of(PROFILE.formats(), name)).all_right()

    def track_ratio(self, *_: Any) -> float:
        return ratio(self.calls, "first", "last")

    track_ratio.unit = "of the speed of channels first"


class HalfPrecision:
    """The time in float32 divided by that in 16 bits: elements a second."""

    params = (names(PROFILE.halves()), ["float16", "bfloat16"])
    param_names = ("cell", "dtype")
    timeout = 600

    def setup(self, name: str, dtype: str) -> None:
        if dtype == "bfloat16":
            require("ml_dtypes")
        self.calls = contests.dtypes(_of(PROFILE.halves(), name), ["float32", dtype]).all_right()

    def track_ratio(self, name: str, dtype: str) -> float:
        return ratio(self.calls, "float32", dtype)

    track_ratio.unit = "of the speed in float32"


class Threads:
    """The time with one thread divided by that with two."""

    params = (names(PROFILE.threaded()),)
    param_names = ("cell",)
    timeout = 600

    def setup(self, name: str) -> None:
        if numba.config.NUMBA_NUM_THREADS < 2:
            raise NotImplementedError("Numba has one thread here")
        call = contests.contest(_of(PROFILE.threaded(), name)).all_right()["numbanorm"]
        self.calls = contests.threads(call)

    def track_ratio(self, *_: Any) -> float:
        return ratio(self.calls, "one", "more")

    track_ratio.unit = "times the speed of one thread"
