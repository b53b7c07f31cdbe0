"""Calls whose times are compared, on the same data, each checked against float64 first."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from numbanorm._bench.cases import OPERATIONS, Array
from numbanorm._bench.cells import Cell
from numbanorm._bench.protocol import Call, WrongResult, share_threads, verify, with_threads

#: Bytes of an output from which the copy to compare with bypasses the caches.
STREAMED = 64 << 20


class Contest(NamedTuple):
    """Calls by name, and what was wrong with those that are missing."""

    calls: dict[str, Call]
    complaints: dict[str, str]

    def all_right(self) -> dict[str, Call]:
        """The calls, if nothing was wrong."""
        if self.complaints:
            raise WrongResult(next(iter(self.complaints.values())))
        return self.calls


def _right(cell: Cell, reference: Array, calls: Iterable[tuple[str, str, Call]]) -> Contest:
    """Those of (name, library, call) whose results are right. Each is warm, then."""
    contest = Contest({}, {})
    for name, library, call in calls:
        try:
            verify(str(cell), library, call(), reference, cell.dtype)
        except WrongResult as wrong:
            contest.complaints[name] = str(wrong)
        else:
            contest.calls[name] = call
    return contest


def contest(
    cell: Cell, libraries: Iterable[str] = ("numbanorm",), *, ceiling: bool = False, torch_threads: int | None = None
) -> Contest:
    """The cell by each library. ImportError if one is missing.

    With `ceiling` also "ceiling", what the memory allows: for statistics a read of x; for
    norms a copy of x, and then "given" is a call that writes to the copy's target. The other
    calls write to memory that the pool recycles, since their results die.
    """
    operation = OPERATIONS[cell.operation]
    data = operation.data(cell.shape, dtype=cell.dtype)
    libraries = tuple(libraries)
    if "torch" in libraries:
        share_threads(torch_threads)
    calls: list[tuple[str, str, Call]] = [(name, name, operation.call(name, data)) for name in libraries]
    y = None
    if ceiling and operation.is_norm:
        y = np.empty_like(data.x)
        ours: Any = operation.call("numbanorm", data)
        calls.append(("given", "numbanorm", partial(ours, out=y)))
    right = _right(cell, operation.reference(data), calls)
    if ceiling:
        right.calls["ceiling"] = memory(data.x, y)
    return right


def memory(x: Array, y: Array | None, past_caches: bool | None = None) -> Call:
    """A read of x, or its copy to y: past the caches as large outputs are written, or as asked."""
    roofline = import_module("numbanorm.backends.cpu.roofline")
    if y is None:
        return partial(roofline.read, x)
    return partial(roofline.copy, x, y, y.nbytes >= STREAMED if past_caches is None else past_caches)


def threads(call: Call, most: int = 2) -> dict[str, Call]:
    """The same call with one thread and with `most`."""
    return {"one": with_threads(1, call), "more": with_threads(most, call)}


def dtypes(cell: Cell, names: Iterable[str]) -> Contest:
    """The cell's operation on as many elements of each dtype."""
    return _merged({name: cell._replace(dtype=name) for name in names})


def formats(cell: Cell) -> Contest:
    """A norm of images by memory format: "first" and "last" say where the channels are."""
    return _merged({"first": cell, "last": cell._replace(operation=f"{cell.operation}_nhwc")})


def _merged(cells: dict[str, Cell]) -> Contest:
    """numbanorm on each of the cells."""
    merged = Contest({}, {})
    for name, cell in cells.items():
        calls, complaints = contest(cell)
        merged.calls.update((name, call) for call in calls.values())
        merged.complaints.update((name, complaint) for complaint in complaints.values())
    return merged
