"""The rows of the demo's tables, and how one is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._demo._libraries import IMAGE, Library, NumPy

Array = NDArray[Any]

#: What is added to the pixels to see who keeps their digits, as a sensor's dark level would; and its name in a table.
OFFSET = np.float32(1e4)
RAISED = "+1e4"
#: Calls of each kind that are timed, and the seconds that they may take together.
FEWEST_CALLS = 3
BUDGET = 0.05


@dataclass(frozen=True)
class Case:
    """An operation, and the sets of numbers that share one mean and variance."""

    operation: str
    sets: str
    arguments: tuple[Any, ...] = ()

    @property
    def is_norm(self) -> bool:
        """Whether the result is as large as x."""
        return self.operation != "mean_var"


CASES = (
    Case("mean_var", "everything", (None,)),
    Case("mean_var", "each pixel", (0,)),
    Case("mean_var", "each image", (IMAGE,)),
    Case("mean_var", "each row", (2,)),
    Case("mean_var", "each channel", ((0, 2),)),
    Case("standardize", "everything", (None,)),
    Case("standardize", "each pixel", (0,)),
    Case("layer_norm", "each image"),
    Case("rms_norm", "each image"),
    Case("batch_norm", "each channel"),
    Case("instance_norm", "each row"),
    Case("group_norm", "each half"),
)


@dataclass(frozen=True)
class Measurement:
    """What one library made of one case; errors are relative to the largest value."""

    #: Seconds of the first call, which may compile, and of a later one.
    first: float
    seconds: float
    #: Largest error for the pixels, and for the pixels + OFFSET.
    error: float
    raised_error: float
    #: A norm of the first pixels + OFFSET, for the picture.
    output: Array


@dataclass(frozen=True)
class Row:
    """One case, measured by each library."""

    case: Case
    by: dict[str, Measurement]


def measure(case: Case, libraries: Iterable[Library], x: Array, n_kept: int) -> Row:
    """Run `case` by each library on the images x and on x + OFFSET."""
    raised = x + OFFSET
    reference, raised_reference = (_call(NumPy(), case, data.astype(np.float64))() for data in (x, raised))
    by = {}
    for library in libraries:
        call = _call(library, case, x)
        first = _seconds(call)
        raised_result = _call(library, case, raised)()
        by[library.name] = Measurement(
            first=first,
            seconds=_shortest(call),
            error=_error(call(), reference),
            raised_error=_error(raised_result, raised_reference),
            output=_arrays(raised_result)[0][:n_kept].copy() if case.is_norm else x[:0],
        )
    return Row(case, by)


def _call(library: Library, case: Case, x: Array) -> Callable[[], Any]:
    array = library.array(x)
    operation = getattr(library, case.operation)
    return lambda: operation(array, *case.arguments)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _shortest(call: Callable[[], Any]) -> float:
    """The time of the fastest call: the others tell who else uses the machine."""
    times: list[float] = []
    while len(times) < FEWEST_CALLS or sum(times) < BUDGET:
        times.append(_seconds(call))
    return min(times)


def _arrays(result: Any) -> list[Array]:
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def _error(result: Any, reference: Any) -> float:
    """The worst over the arrays of a result: largest error over largest value."""
    pairs = zip(_arrays(result), _arrays(reference), strict=True)
    return max(float(np.max(np.abs(mine - true)) / np.max(np.abs(true))) for mine, true in pairs)
