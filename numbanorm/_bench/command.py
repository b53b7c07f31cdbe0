"""``numbanorm bench``: the suite's tables, measured on the user's own machine."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from numbanorm._bench import tables
from numbanorm._bench.survey import Row, Survey, Twin
from numbanorm._config import show_config
from numbanorm._report import writable, writable_picture


def run(profile: str, plot: str | None = None, numbers: str | None = None) -> int:
    """Measure, print, and write the picture and the numbers where they are asked for.

    Exits with a message, before any work is done, if a file cannot be written. Returns the
    exit status: 1 if a result of numbanorm's own was wrong.
    """
    picture = writable_picture(plot) if plot else None
    file = writable(numbers) if numbers else None
    console = Console(highlight=False)
    survey = Survey(profile)
    try:
        facts = machine(survey.libraries)
    except (ValueError, RuntimeError) as error:  # the chosen backend is unknown or missing
        sys.exit(str(error))
    console.print(f"[bold]numbanorm bench[/bold] on {in_words(facts)}", soft_wrap=True)
    start = time.perf_counter()
    _take_steps(console, survey)
    facts["seconds"] = round(time.perf_counter() - start, 1)
    for part in tables.all_tables(survey):
        console.print()
        console.print(part)
    for complaint in survey.complaints:
        console.print(f"[red]{complaint}[/red]", soft_wrap=True)
    if picture:
        from numbanorm._bench import figure

        figure.draw(survey.lines.values(), survey.rows, in_words(facts)).savefig(picture)
        console.print(f"[bold]The picture is in {picture}.[/bold]", soft_wrap=True)
    if file:
        file.write_text(json.dumps(as_dict(survey, facts), indent=1) + "\n")
        console.print(f"[bold]The numbers are in {file}.[/bold]", soft_wrap=True)
    return int(survey.failed)


def _take_steps(console: Console, survey: Survey) -> None:
    """All of the survey, behind a progress bar where there is a terminal."""
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        steps = list(survey.steps())
        task = progress.add_task("", total=len(steps))
        for description, step in steps:
            progress.update(task, description=description)
            step()
            progress.advance(task)


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """What the numbers depend on."""
    facts: dict[str, Any] = show_config("dict") or {}
    names = dict.fromkeys(["numbanorm", "numpy", "numba", *libraries])
    return {
        "processor": _processor(str(facts["processor"])),
        "cores": facts["cores"],
        "system": platform.system(),
        "backend": facts["backend"],
        "threads": facts["threads"],
        "threading layer": facts["threading layer"],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


def _processor(architecture: str) -> str:
    """The model, where Linux says it; else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else architecture


def in_words(facts: dict[str, Any]) -> str:
    """The machine, threads and versions in a line."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{facts['processor']} with {facts['cores']} cores, {facts['system']}; backend {facts['backend']}, "
        f"{facts['threads']} threads ({facts['threading layer']}); {versions}"
    )


def as_dict(survey: Survey, facts: dict[str, Any]) -> dict[str, Any]:
    """All numbers, in what JSON knows."""
    return {
        "machine": facts,
        "rows": [_row(row) for row in survey.rows],
        "halves": [_twin(twin) for twin in survey.halves],
        "formats": [_twin(twin) for twin in survey.formats],
        "lines": [line._asdict() for line in survey.lines.values()],
        "means": [mean._asdict() for mean in tables.means(survey)],
        "complaints": survey.complaints,
    }


def _row(row: Row) -> dict[str, Any]:
    ratios = {name: row.ratio(name) for name in row.seconds if name != "numbanorm"}
    shares = {output: row.share(output) for output in ("given", "recycled") if row.share(output)}
    more = {"moved": row.cell.moved, "ratios": ratios, "shares": shares, "limit": row.limit, "scaling": row.scaling}
    return {**asdict(row), "cell": row.cell._asdict(), **more}


def _twin(twin: Twin) -> dict[str, Any]:
    return {"cell": twin.cell._asdict(), "ratios": twin.ratios}
