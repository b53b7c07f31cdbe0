"""Every number of ``numbanorm bench``, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from numbanorm._bench import contests
from numbanorm._bench.cases import LIBRARIES, OPERATIONS
from numbanorm._bench.cells import PROFILES, Cell
from numbanorm._bench.contests import STREAMED, Contest, memory
from numbanorm._bench.protocol import PACES, medians

#: A step's description, and the step.
Step = tuple[str, Callable[[], None]]
#: Elements of the arrays by which memory is measured, 4 bytes each: from the fastest cache to beyond the last.
LENGTHS = {
    "smoke": (64, 128),
    "quick": tuple(1 << power for power in range(13, 26, 2)),
    "user": tuple(1 << power for power in range(13, 27)),
}


@dataclass(frozen=True)
class Row:
    """A cell; seconds by library, beside a copy or a read, and with one and with two threads."""

    group: str
    cell: Cell
    seconds: dict[str, float]
    #: Libraries whose result is wrong.
    wrong: tuple[str, ...] = ()
    memory: dict[str, float] = field(default_factory=dict)
    threads: dict[str, float] = field(default_factory=dict)

    def ratio(self, library: str) -> float | None:
        """A library's time over ours."""
        return _ratio(self.seconds, library, "numbanorm")

    def share(self, output: str) -> float | None:
        """Of the speed of a copy or a read; `output` is "given" or "recycled"."""
        return _ratio(self.memory, "ceiling", "given" if output == "given" else "numbanorm")

    @property
    def scaling(self) -> float | None:
        """Speed with two threads over that with one."""
        return _ratio(self.threads, "one", "more")

    @property
    def limit(self) -> str:
        """What `share` is a share of."""
        if not OPERATIONS[self.cell.operation].is_norm:
            return "read"
        return "streaming copy" if self.cell.nbytes >= STREAMED else "copy"


@dataclass(frozen=True)
class Twin:
    """numbanorm beside itself: a cell, and its time over that of its twins by name."""

    cell: Cell
    ratios: dict[str, float]


class Line(NamedTuple):
    """Bytes moved a second by kernels that only copy or read, by bytes moved."""

    name: str
    moved: list[int]
    rates: list[float]


def _ratio(seconds: dict[str, float], over: str, under: str) -> float | None:
    return seconds[over] / seconds[under] if over in seconds and under in seconds else None


class Survey:
    """Measures the profile of that name; its lists fill up as the steps are taken."""

    def __init__(self, name: str) -> None:
        self.profile, self.pace, self.lengths = PROFILES[name], PACES[name], LENGTHS[name]
        self.libraries = tuple(library for library in LIBRARIES if find_spec(library))
        self.rows: list[Row] = []
        self.halves: list[Twin] = []
        self.formats: list[Twin] = []
        self.lines = {name: Line(name, [], []) for name in ("read", "copy", "streaming copy")}
        self.complaints: list[str] = []
        #: Whether a result of numbanorm's own was wrong.
        self.failed = False

    def steps(self) -> Iterator[Step]:
        """All that is to be done, in order."""
        for length in self.lengths:
            yield f"memory, {4 * length >> 10} KiB", partial(self._memory, length)
        for group, cells in self.profile.peers().items():
            for cell in cells:
                yield str(cell), partial(self._row, group, cell)
        dtypes = ["float32", "float16", "bfloat16"][: 3 if find_spec("ml_dtypes") else 2]
        for cell in self.profile.halves():
            yield f"{cell} in 16 bits", partial(self._twin, self.halves, cell, partial(contests.dtypes, names=dtypes))
        for cell in self.profile.formats():
            yield f"{cell} and channels last", partial(self._twin, self.formats, cell, contests.formats)

    def _memory(self, length: int) -> None:
        """One point of every line."""
        x, y = np.ones((2, length), np.float32)
        calls = {
            "read": memory(x, None),
            "copy": memory(x, y, past_caches=False),
            "streaming copy": memory(x, y, past_caches=True),
        }
        for name, seconds in medians(calls, self.pace).items():
            moved = x.nbytes * (1 if name == "read" else 2)
            self.lines[name].moved.append(moved)
            self.lines[name].rates.append(moved / seconds)

    def _row(self, group: str, cell: Cell) -> None:
        """A cell beside the other libraries and, where it is large enough, the memory and one thread."""
        one_thread = 1 if group == "small calls" else None
        bounded = group in ("norms", "mean_var") and cell in {*self.profile.copies(), *self.profile.reads()}
        contest = contests.contest(cell, self.libraries, ceiling=bounded, torch_threads=one_thread)
        self._note(contest, ours=("numbanorm", "given"))
        calls = {name: contest.calls[name] for name in self.libraries if name in contest.calls}
        if "numbanorm" not in calls:
            return
        seconds = medians(calls, self.pace)
        wrong = tuple(name for name in self.libraries if name in contest.complaints)
        sides: dict[str, float] = {}
        threads: dict[str, float] = {}
        if bounded:
            names = ("ceiling", "numbanorm", "given")
            sides = medians({name: contest.calls[name] for name in names if name in contest.calls}, self.pace)
        if group in ("norms", "mean_var") and cell in self.profile.threaded() and _can_use_two_threads():
            threads = medians(contests.threads(calls["numbanorm"]), self.pace)
        self.rows.append(Row(group, cell, seconds, wrong, sides, threads))

    def _twin(self, into: list[Twin], cell: Cell, twins: Callable[[Cell], Contest]) -> None:
        """A cell beside its like; the first of the contest is the measure of the others."""
        contest = twins(cell)
        self._note(contest, ours=tuple(contest.complaints))
        if contest.complaints:
            return
        first, *others = contest.calls
        seconds = medians(contest.calls, self.pace)
        into.append(Twin(cell, {name: seconds[first] / seconds[name] for name in others}))

    def _note(self, contest: Contest, ours: Sequence[str]) -> None:
        self.complaints.extend(contest.complaints.values())
        self.failed = self.failed or any(name in contest.complaints for name in ours)


def _can_use_two_threads() -> bool:
    return int(import_module("numba").get_num_threads()) >= 2
