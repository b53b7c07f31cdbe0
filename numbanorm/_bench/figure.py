"""The picture of ``numbanorm bench``: what was achieved, under what the memory allows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from matplotlib.figure import Figure

from numbanorm._bench.survey import Line, Row

#: Colours that the colour-blind tell apart, and marks for who sees none.
MARKS = {
    "layer_norm": ("#0072B2", "o"),
    "rms_norm": ("#56B4E9", "o"),
    "batch_norm_training": ("#D55E00", "s"),
    "batch_norm_evaluation": ("#E69F00", "s"),
    "batch_norm_training_nhwc": ("#D55E00", "D"),
    "batch_norm_evaluation_nhwc": ("#E69F00", "D"),
    "group_norm": ("#009E73", "^"),
    "instance_norm": ("#CC79A7", "v"),
}
#: Statistics, whatever their axes.
STATISTICS = ("0.25", "x")
LINES = {"read": ":", "copy": "--", "streaming copy": "-"}


def draw(lines: Iterable[Line], rows: Iterable[Row], machine: str) -> Figure:
    """Bytes a second of each float32 cell against bytes moved, with the lines of read and copy."""
    figure = Figure(figsize=(12, 7), dpi=100, layout="constrained")
    ax = figure.add_subplot()
    for line in lines:
        rates = [rate / 1e9 for rate in line.rates]
        ax.plot([moved / 1e6 for moved in line.moved], rates, LINES[line.name], color="0.4", label=line.name)
    for name, (colour, marker) in {**MARKS, "mean_var": STATISTICS}.items():
        found = [row for row in rows if row.group in ("norms", "mean_var") and _name(row) == name]
        if found:
            moved = [row.cell.moved / 1e6 for row in found]
            rates = [row.cell.moved / row.seconds["numbanorm"] / 1e9 for row in found]
            ax.scatter(moved, rates, color=colour, marker=marker, label=name)
    ax.set(xscale="log", yscale="log", xlabel="MB moved: x once, and a norm's output", ylabel="GB moved a second")
    ax.set_title(textwrap.fill(machine, 120), fontsize=9)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _name(row: Row) -> str:
    return "mean_var" if row.group == "mean_var" else row.cell.operation
