"""What ``numbanorm bench`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import geometric_mean
from typing import NamedTuple

from rich.table import Table

from numbanorm._bench.cases import OPERATIONS
from numbanorm._bench.cells import Cell
from numbanorm._bench.survey import Row, Survey, Twin
from numbanorm._report import table

WHAT = ("operation", "shape")
#: Order of the operations' names in a table.
_ORDER = list(OPERATIONS)


class Mean(NamedTuple):
    """Many ratios in three numbers."""

    what: str
    n: int
    geometric: float
    smallest: float


def all_tables(survey: Survey) -> Iterator[Table]:
    """Those that have rows."""
    bounded = [row for row in survey.rows if row.memory]
    norms = [row for row in bounded if row.group == "norms"]
    statistics = [row for row in bounded if row.group == "mean_var"]
    if norms:
        yield shares_of_copy(norms)
    if statistics:
        yield shares_of_read(statistics)
    if survey.halves:
        yield twins("Elements a second in 16 bits over float32", "The same numbers in each dtype.", survey.halves)
    if survey.formats:
        caption = "Batch norm of the same images with the channels last and first."
        yield twins("Speed with channels last over channels first", caption, survey.formats)
    for group in dict.fromkeys(row.group for row in survey.rows):
        yield peers(group, [row for row in survey.rows if row.group == group], survey.libraries[1:])
    yield summary(means(survey))


def shares_of_copy(rows: Sequence[Row]) -> Table:
    """Large norms, and what stays in cache, beside a copy."""
    result = table(
        "Norms: share of the speed of a copy of the same bytes",
        "From 64 MiB on the copy bypasses the caches. given: into out=; recycled: into memory "
        "of results that died. 2 threads: speed over that of one.",
        *WHAT,
    )
    _numeric(result, "GB/s", "given", "recycled", "2 threads")
    for row in _by_operation(rows):
        shares = (_share(row.share(output)) for output in ("given", "recycled"))
        result.add_row(*_what(row.cell), _rate(row), *shares, _times(row.scaling))
    return result


def shares_of_read(rows: Sequence[Row]) -> Table:
    """Large statistics beside a read."""
    result = table(
        "Mean and variance: share of the speed of reading the same bytes",
        "A read only sums float32 numbers. 2 threads: speed over that of one.",
        *WHAT,
    )
    _numeric(result, "GB/s", "share", "2 threads")
    for row in _by_operation(rows):
        result.add_row(*_what(row.cell), _rate(row), _share(row.share("recycled")), _times(row.scaling))
    return result


def twins(title: str, caption: str, rows: Sequence[Twin]) -> Table:
    """numbanorm beside itself."""
    result = table(title, caption, *WHAT)
    names = list(rows[0].ratios)
    _numeric(result, *(name.replace("last", "last / first") for name in names))
    for row in rows:
        result.add_row(*_what(row.cell), *(_times(row.ratios.get(name)) for name in names))
    return result


def peers(group: str, rows: Sequence[Row], libraries: Sequence[str]) -> Table:
    """Each library's time over numbanorm's."""
    small = group == "small calls"
    caption = "Python included." if small else ""
    if small and "torch" in libraries:
        caption += " torch has one thread, its best here."
    result = table(f"Time over numbanorm's: {group}", caption, *WHAT)
    _numeric(result, "ms", *libraries)
    ordered = _by_operation(rows)
    ends = [not small and row.cell.operation != after.cell.operation for row, after in pairwise(ordered)]
    for row, end in zip(ordered, [*ends, False], strict=True):
        ratios = ("[red]wrong[/red]" if name in row.wrong else _times(row.ratio(name)) for name in libraries)
        milliseconds = f"{row.seconds['numbanorm'] * 1e3:.3g}"
        result.add_row(*_what(row.cell), milliseconds, *ratios, end_section=end)
    return result


def summary(rows: Sequence[Mean]) -> Table:
    """The geometric means."""
    caption = "Of times over ours: above 1, numbanorm is faster. No number is given for a wrong result."
    result = table("Geometric means", caption, "what")
    _numeric(result, "cells", "mean", "smallest")
    for row in rows:
        result.add_row(row.what, str(row.n), f"[bold]{row.geometric:.2f}[/bold]", _times(row.smallest))
    return result


def means(survey: Survey) -> list[Mean]:
    """What the tables come to."""
    groups: dict[str, list[float | None]] = {}
    for row in survey.rows:
        for library in survey.libraries[1:]:
            groups.setdefault(f"{row.group}: time of {library} over ours", []).append(row.ratio(library))
        limit = f"{row.group}: share of a {row.limit}"
        if "given" in row.memory:
            groups.setdefault(f"{limit}, out= given", []).append(row.share("given"))
            limit += ", recycled"
        groups.setdefault(limit, []).append(row.share("recycled"))
        groups.setdefault(f"{row.group}: two threads over one", []).append(row.scaling)
    for twin in survey.halves:
        for name, ratio in twin.ratios.items():
            groups.setdefault(f"elements a second in {name} over float32", []).append(ratio)
    for twin in survey.formats:
        groups.setdefault("batch norm: channels last over first", []).extend(twin.ratios.values())
    found = {what: [value for value in values if value is not None] for what, values in groups.items()}
    return [Mean(what, len(v), geometric_mean(v), min(v)) for what, v in found.items() if v]


def _by_operation(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: _ORDER.index(row.cell.operation))


def _numeric(result: Table, *names: str) -> None:
    for name in names:
        result.add_column(name, justify="right", no_wrap=True)


def _what(cell: Cell) -> tuple[str, str]:
    return cell.operation, "x".join(map(str, cell.shape))


def _rate(row: Row) -> str:
    """Bytes moved a second where the output is recycled."""
    return f"{row.cell.moved / row.memory['numbanorm'] / 1e9:.1f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
