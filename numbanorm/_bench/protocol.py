"""How anything is measured: results first, then calls that alternate in one process, medians, ratios.

Machines are shared, and their clocks change: a time says little, and neither do two that
were taken a minute apart. Calls that are compared take turns, and what is reported is the
ratio of their medians.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from numbanorm._bench.cases import Array, as_float64

Call = Callable[[], Any]

#: Largest error, on data near zero, of a result that may be timed. A peer's float32 sums of a
#: million numbers are off by 2e-3; a wrong axis or formula is off by more than 1e-2.
TOLERANCE = {"numbanorm": 1e-5, "numpy": 1e-2, "torch": 1e-2}
#: Distance of neighbouring numbers at 1: no result can be right beyond that.
EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: Elements that are compared at a time, so that the check of a large result takes little memory.
BLOCK = 1 << 20


class Pace(NamedTuple):
    """How long to measure.

    Short calls are repeated until a sample takes `sample` seconds. Samples are taken in
    turns until `seconds` are spent, `fewest` to `most` of each call.
    """

    sample: float
    fewest: int
    most: int
    seconds: float


PACES = {
    "smoke": Pace(0, 1, 1, 0),
    "quick": Pace(1e-3, 3, 9, 0.05),
    "user": Pace(2e-3, 3, 15, 0.3),
    "regular": Pace(2e-3, 5, 25, 2.0),
}


def medians(calls: Mapping[str, Call], pace: Pace) -> dict[str, float]:
    """Median seconds of each call, from samples that alternate."""
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    first = {name: timer.timeit(1) for name, timer in timers.items()}
    numbers = {name: 1 + int(pace.sample / max(seconds, 1e-9)) for name, seconds in first.items()}
    samples = {name: [seconds] if numbers[name] == 1 else [] for name, seconds in first.items()}
    spent = 0.0
    while min(map(len, samples.values())) < (pace.fewest if spent > pace.seconds else pace.most):
        for name, timer in timers.items():
            seconds = timer.timeit(numbers[name])
            samples[name].append(seconds / numbers[name])
            spent += seconds
    return {name: median(times) for name, times in samples.items()}


class WrongResult(AssertionError):
    """A result that must not be timed."""


def verify(what: str, library: str, result: Any, reference: Array, dtype: str = "float32") -> None:
    """Raise :class:`WrongResult` if `result` is not what `reference` says."""
    off = error(result, reference)
    if not off <= max(TOLERANCE[library], EPSILON[dtype] * float(np.abs(reference).max())):
        raise WrongResult(f"{what} of {library} is off by {off:.1e}: no time is given for it")


def error(result: Any, reference: Array) -> float:
    """The largest difference; NaN if there is one."""
    array = as_float64(result) if isinstance(result, tuple) else np.asarray(result)
    if array.shape != reference.shape:
        return float("inf")
    mine, true = np.atleast_1d(array, reference)
    step = max(1, BLOCK * len(mine) // mine.size)
    blocks = (slice(i, i + step) for i in range(0, len(mine), step))
    return float(np.max([np.abs(mine[block].astype(np.float64) - true[block]).max() for block in blocks]))


def share_threads(threads: int | None = None) -> None:
    """Give torch as many threads as Numba has, or `threads`."""
    numba = import_module("numba")
    import_module("torch").set_num_threads(threads or numba.get_num_threads())


def with_threads(threads: int, call: Call) -> Call:
    """`call` with that many of Numba's threads."""
    numba = import_module("numba")

    def limited() -> Any:
        """The number of threads is set back, also after an error."""
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            return call()
        finally:
            numba.set_num_threads(before)

    return limited
