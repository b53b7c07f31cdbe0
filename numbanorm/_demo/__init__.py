"""``numbanorm demo``: compute, check and time everything on handwritten digits."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from numbanorm._config import show_config
from numbanorm._demo import _figure, _tables
from numbanorm._demo._libraries import libraries
from numbanorm._demo._measure import CASES, OFFSET, Row, measure
from numbanorm._digits import load_digits
from numbanorm._report import writable_picture

#: How often the digits are repeated; 24 times are 11 MB, more than most caches hold.
COPIES = 24


def run(output: str) -> None:
    """Print the demo's tables and write its picture to `output`.

    Exits with a message, before any work is done, if `output` cannot be written.
    """
    path = writable_picture(output)
    console = Console(highlight=False)
    digits = load_digits().images
    x = np.tile(digits, (COPIES, 1, 1))
    console.print(
        f"[bold]numbanorm demo[/bold]: statistics and norms of {len(digits)} handwritten digits, 8x8 pixels in "
        f"float32, {COPIES} times over ({x.nbytes / 1e6:.1f} MB). Where kernels must be compiled first, this "
        "takes some 20 seconds."
    )
    rows = _measured(console, x, len(digits))
    with console.status("drawing"):
        _figure.draw(digits + OFFSET, rows).savefig(path)
    for part in (_tables.errors(rows), _tables.times(rows), _tables.findings(rows)):
        console.print(part)
        console.print()
    console.print(f"[bold]The picture is in {path}.[/bold]", soft_wrap=True)


def _measured(console: Console, x: NDArray[Any], n_kept: int) -> list[Row]:
    """All rows, with a progress bar meanwhile and a line about the machine before and after."""
    rows = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting threads, importing libraries", total=len(CASES) + 1)
        start = time.perf_counter()
        facts: dict[str, Any] = show_config("dict") or {}
        compiling = time.perf_counter() - start
        installed = libraries()
        console.print(
            f"backend {facts['backend']} with {facts['threads']} threads, compared with "
            + " and ".join(f"{library.name} {library.version}" for library in installed[1:])
        )
        for case in CASES:
            progress.update(task, advance=1, description=f"{case.operation} of {case.sets}")
            rows.append(measure(case, installed, x, n_kept))
    compiling += sum(m.first - m.seconds for m in (row.by["numbanorm"] for row in rows))
    console.print(f"compiling (or loading from {facts['kernel cache']}) took {compiling:.1f} s", soft_wrap=True)
    return rows
