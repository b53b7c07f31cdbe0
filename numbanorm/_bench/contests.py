"""Calls whose times are compared, on the same data, each checked against float64 first."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from numbanorm._bench.cases import OPERATIONS, Array, dtype_named
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


class _Entry(NamedTuple):
    """A call, what it computes and what should come out."""

    name: str
    cell: Cell
    call: Call
    reference: Array
    library: str = "numbanorm"


def _right(entries: Iterable[_Entry]) -> Contest:
    """The entries whose results are right. Their calls are warm, then."""
    contest = Contest({}, {})
    for name, cell, call, reference, library in entries:
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
    reference = operation.reference(data)
    libraries = tuple(libraries)
    if "torch" in libraries:
        share_threads(torch_threads)
    entries = [_Entry(name, cell, operation.call(name, data), reference, name) for name in libraries]
    y = None
    if ceiling and operation.is_norm:
        y = np.empty_like(data.x)
        ours: Any = operation.call("numbanorm", data)
        entries.append(_Entry("given", cell, partial(ours, out=y), reference))
    right = _right(entries)
    if ceiling:
        right.calls["ceiling"] = memory(data.x, y)
    return right


def memory(x: Array, y: Array | None, past_caches: bool | None = None) -> Call:
    """A read of x, or its copy to y: past the caches as large outputs are written, or as asked. Warm."""
    roofline = import_module("numbanorm.backends.cpu.roofline")
    if y is None:
        call = partial(roofline.read, x)
    else:
        call = partial(roofline.copy, x, y, y.nbytes >= STREAMED if past_caches is None else past_caches)
    call()
    return call


def threads(call: Call, most: int = 2) -> dict[str, Call]:
    """The same call with one thread and with `most`. Warm."""
    calls = {"one": with_threads(1, call), "more": with_threads(most, call)}
    for limited in calls.values():
        limited()
    return calls


def dtypes(cell: Cell, names: Iterable[str]) -> Contest:
    """The cell's operation on the same numbers in each dtype."""
    operation = OPERATIONS[cell.operation]
    data = operation.data(cell.shape)
    # As precise as the shortest of the dtypes, so that one result is right for all.
    data = data._replace(x=(data.x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32))
    reference = operation.reference(data)

    def entry(name: str) -> _Entry:
        """The call on x in this dtype; parameters stay as they are."""
        call = operation.call("numbanorm", data._replace(x=data.x.astype(dtype_named(name))))
        return _Entry(name, cell._replace(dtype=name), call, reference)

    return _right(map(entry, names))


def formats(cell: Cell) -> Contest:
    """A norm of the same images by memory format: "first" and "last" say where the channels are."""
    first, last = (OPERATIONS[name] for name in (cell.operation, f"{cell.operation}_nhwc"))
    data = first.data(cell.shape)
    reference = first.reference(data)
    moved = data._replace(x=np.ascontiguousarray(np.moveaxis(data.x, 1, -1)))
    return _right(
        [
            _Entry("first", cell, first.call("numbanorm", data), reference),
            _Entry("last", Cell(last.name, cell.shape), last.call("numbanorm", moved), np.moveaxis(reference, 1, -1)),
        ]
    )
