"""What the commands have in common: tables, and files that are known to be writable before any work is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table


def writable(output: str, endings: Sequence[str] = ()) -> Path:
    """The path of a file to write, or the end of the program with a message.

    Its name must end in one of `endings`, if there are any.
    """
    path = Path(output)
    if endings and path.suffix.lower() not in endings:
        sys.exit(f"cannot write {output!r}: the name must end in one of {', '.join(endings)}")
    if not path.parent.is_dir():
        sys.exit(f"cannot write {output!r}: there is no folder {str(path.parent)!r}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        sys.exit(f"cannot write {output!r}: it is a folder, or writing there is not permitted")
    return path


def writable_picture(output: str) -> Path:
    """The same for a picture. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return writable(output, [f".{name}" for name in FigureCanvasAgg.get_supported_filetypes()])


def table(title: str, caption: str, *names: str) -> Table:
    """A table whose first columns, called `names`, say what a row is about."""
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in names:
        table.add_column(name, no_wrap=True)
    return table
