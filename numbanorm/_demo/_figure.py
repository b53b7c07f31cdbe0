"""The demo's picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from numbanorm._demo._measure import OFFSET, Measurement, Row

Array = NDArray[Any]

COLOURS = {"numbanorm": "#0072B2", "NumPy": "#E69F00", "torch": "#7A7A7A"}
#: Where bars of errors begin; a result without any error has no bar.
EXACT = 1e-9
#: Half the distance of neighbouring float32 numbers near 1.
ROUNDING = 2.0**-24
#: The image that is shown.
SHOWN = 0
LEGEND = """One digit, and the
distribution of all.

Where orange leaves
blue, the float32
sums of NumPy have
lost the digits that
matter."""


def draw(before: Array, rows: Sequence[Row]) -> Figure:
    """Digits and distributions before and after each norm of `before`; bars of error and time."""
    figure = Figure(figsize=(15, 11), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(
        f"{len(before)} handwritten digits + {OFFSET:,.0f} in float32, before and after each norm",
        fontsize=16,
        fontweight="bold",
    )
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(5, 6))
    norms = [row for row in rows if row.case.is_norm]
    _distributions(upper, before, norms)
    _bars(lower, rows)
    return figure


def _distributions(figure: SubFigure, before: Array, norms: Sequence[Row]) -> None:
    """One column per norm: a digit and a histogram, by this package and by NumPy."""
    axes = figure.subplots(3, 1 + len(norms), height_ratios=(1, 1, 1.3))
    _digit(axes[0, 0], before, before)
    axes[0, 0].set_title("before", fontsize=10)
    axes[1, 0].set_axis_off()
    axes[1, 0].text(0, 1, LEGEND, va="top", transform=axes[1, 0].transAxes)
    _histogram(axes[2, 0], {"before": before})
    for column, row in zip(axes.T[1:], norms, strict=True):
        outputs = {name: row.by[name].output for name in ("numbanorm", "NumPy")}
        column[0].set_title(f"{row.case.operation}\n{row.case.sets}", fontsize=10)
        for ax, output in zip(column, outputs.values(), strict=False):
            _digit(ax, output, outputs["numbanorm"])
        _histogram(column[2], outputs)
    for ax, name in zip(axes[:2, 1], outputs, strict=True):
        ax.set_ylabel(name, color=COLOURS[name], fontweight="bold")


def _digit(ax: Axes, images: Array, scale: Array) -> None:
    """One of the images; black and white are the extremes of the same one in `scale`."""
    ax.imshow(images[SHOWN], cmap="gray_r", vmin=scale[SHOWN].min(), vmax=scale[SHOWN].max())
    ax.set(xticks=[], yticks=[])


def _histogram(ax: Axes, values: dict[str, Array]) -> None:
    """Distributions over one range, which holds 99 % of the numbers of the first."""
    low, high = np.quantile(next(iter(values.values())), (0.005, 0.995))
    margin = 0.15 * (high - low)
    bins = np.linspace(low - margin, high + margin, 40).tolist()
    for name, array in values.items():
        colour = COLOURS.get(name, "0.2")
        filled = name != "NumPy"
        ax.hist(array.reshape(-1), bins, histtype="stepfilled" if filled else "step", color=colour, linewidth=1.5)
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=3)


def _bars(figure: SubFigure, rows: Sequence[Row]) -> None:
    """Error and time of every row, by every library."""
    errors, times = figure.subplots(1, 2, sharey=True)
    _grouped(errors, rows, lambda m: m.raised_error)
    errors.set(xlim=(EXACT, 3), title="largest error against float64, relative to the largest value (no bar: exact)")
    errors.axvline(ROUNDING, color="0.3", linestyle=":", label="half a unit in the last place of float32")
    errors.set_yticks(range(len(rows)), [f"{row.case.operation}, {row.case.sets}" for row in rows])
    errors.invert_yaxis()
    _grouped(times, rows, lambda m: m.seconds * 1e3)
    times.set(xlim=(times.get_xlim()[0] / 2, None), title="time of a call in ms")
    times.xaxis.set_major_formatter("{x:g}")
    handles, labels = errors.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _grouped(ax: Axes, rows: Sequence[Row], value: Callable[[Measurement], float]) -> None:
    """Horizontal bars on a logarithmic scale: a group per row, a colour per library."""
    names = list(rows[0].by)
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        positions = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * height
        ax.barh(positions, [value(row.by[name]) for row in rows], height, color=COLOURS[name], label=name)
    ax.set_xscale("log")
    ax.margins(y=0.01)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
