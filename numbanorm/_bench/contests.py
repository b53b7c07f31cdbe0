"""Calls whose times are compared, on the same data, each checked against float64 first."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from numbanorm._bench.cases import OPERATIONS, Array, Data
from numbanorm._bench.cells import Cell
from numbanorm._bench.protocol import Call, WrongResult, share_threads, verify, with_threads

#: Bytes of an output from which the copy to compare with bypasses the caches.
STREAMED = 64 << 20


class Contest(NamedTuple):
    """Calls by name, and what was wrong with those that are missing."""

    calls: dict[str, Call]
    complaints: list[str]

    def all_right(self) -> dict[str, Call]:
        """The calls, if nothing was wrong."""
        if self.complaints:
            raise WrongResult(self.complaints[0])
        return self.calls


def _contest(cell: Cell, reference: Array, calls: Iterable[tuple[str, str, Call]]) -> Contest:
    """Those of (name, library, call) whose results are right. Each is warm, then."""
    contest = Contest({}, [])
    for name, library, call in calls:
        try:
            verify(str(cell), library, call(), reference, cell.dtype)
        except WrongResult as wrong:
            contest.complaints.append(str(wrong))
        else:
            contest.calls[name] = call
    return contest


def _data(cell: Cell) -> tuple[Data, Array]:
    """Operands, and the result in float64."""
    operation = OPERATIONS[cell.operation]
    data = operation.data(cell.shape, dtype=cell.dtype)
    return data, operation.reference(data)


def peers(cell: Cell, libraries: Iterable[str], torch_threads: int | None = None) -> Contest:
    """Each library on the cell, by the library's name. ImportError if one is missing."""
    libraries = tuple(libraries)
    if "torch" in libraries:
        share_threads(torch_threads)
    data, reference = _data(cell)
    operation = OPERATIONS[cell.operation]
    return _contest(cell, reference, ((library, library, operation.call(library, data)) for library in libraries))


def ceiling(cell: Cell) -> Contest:
    """The cell beside what the memory allows.

    For norms "ceiling" is a copy of x, "given" writes to the copy's target and "recycled" to
    memory of the pool, as calls do whose results die; for statistics it is a read of x.
    """
    data, reference = _data(cell)
    call: Any = OPERATIONS[cell.operation].call("numbanorm", data)
    calls = [("recycled", "numbanorm", call)]
    y = None
    if OPERATIONS[cell.operation].is_norm:
        y = np.empty_like(data.x)
        calls.append(("given", "numbanorm", partial(call, out=y)))
    right, complaints = _contest(cell, reference, calls)
    return Contest({"ceiling": memory(data.x, y), **right}, complaints)


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
    merged = Contest({}, [])
    for name, cell in cells.items():
        right, complaints = peers(cell, ["numbanorm"])
        if right:
            merged.calls[name] = right["numbanorm"]
        merged.complaints.extend(complaints)
    return merged
