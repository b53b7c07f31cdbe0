"""What the demo prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from numbanorm._demo._measure import RAISED, Measurement, Row
from numbanorm._report import table as report_table

#: Errors up to here are rounding, up to there a nuisance, beyond it wrong results.
ROUNDING, NUISANCE = 1e-6, 1e-3


def errors(rows: Sequence[Row]) -> Table:
    """The error of each library, on the pixels and far from zero."""
    table = report_table(
        "Largest error against float64, relative to the largest value",
        f"x: the pixels, 0 to 16; {RAISED}: the same on the dark level of a sensor. A row is 8 pixels "
        "of an image, a channel that row in all images, a half 4 rows. batch_norm: with running statistics.",
        "operation",
        "over",
    )
    columns: list[tuple[str, Callable[[Measurement], float]]] = [
        ("x", lambda m: m.error),
        (RAISED, lambda m: m.raised_error),
    ]
    for data, _ in columns:
        for library in rows[0].by:
            table.add_column(f"{library}\n{data}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.case.operation,
            row.case.sets,
            *(_coloured(value(m)) for _, value in columns for m in row.by.values()),
            end_section=_ends_section(row, rows),
        )
    return table


def times(rows: Sequence[Row]) -> Table:
    """The time of each library, and how it compares with NumPy's."""
    table = report_table(
        "Time of a call, ms",
        "The shortest of several calls after the first; the fastest library is bold.",
        "operation",
        "over",
    )
    names = list(rows[0].by)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("NumPy's time\nover ours", justify="right")
    for row in rows:
        seconds = [m.seconds for m in row.by.values()]
        cells = (f"[bold]{s * 1e3:.2f}[/bold]" if s == min(seconds) else f"{s * 1e3:.2f}" for s in seconds)
        ratio = row.by["NumPy"].seconds / row.by["numbanorm"].seconds
        table.add_row(row.case.operation, row.case.sets, *cells, f"{ratio:.1f}", end_section=_ends_section(row, rows))
    return table


def _ends_section(row: Row, rows: Sequence[Row]) -> bool:
    """Statistics and norms are set apart."""
    return row is [r for r in rows if not r.case.is_norm][-1]


def _coloured(error: float) -> str:
    style = "green" if error <= ROUNDING else "yellow" if error <= NUISANCE else "red"
    return f"[{style}]{error:.0e}[/{style}]" if error else f"[{style}]0[/{style}]"


def findings(rows: Sequence[Row]) -> str:
    """What to see, from the numbers of this run."""
    worst = {name: max(row.by[name].raised_error for row in rows) for name in rows[0].by}
    found = ", ".join(f"{error:.0e} for {name}" for name, error in worst.items())
    return (
        f"Far from zero ({RAISED}) the largest error of all rows is {found}: float32 sums drop what is small beside "
        "their total, and a mean rounded to float32 shifts every output. numbanorm sums differences in float64 and "
        "subtracts the mean in two parts, which leaves the last rounding. In the picture, see where the orange "
        "outlines (NumPy) leave the blue distributions, and that the bars of error are logarithmic."
    )
