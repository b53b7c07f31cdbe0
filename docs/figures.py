"""Draw docs/norms.png: the elements that share one mean and variance, in the (N, C, S) cube, for each norm.

    python docs/figures.py [OUTPUT]

The file is the same on every run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

#: Lengths of samples, channels, spatial positions.
N, C, S = 4, 6, 5
SHARED, REST, EDGE = "#1f77b4", "#f2f2f2", "#8c8c8c"


def _whole():
    return np.zeros((N, C, S), bool)


def _set(samples, channels, positions=slice(None)):
    """The cube with one set marked."""
    marked = _whole()
    marked[samples, channels, positions] = True
    return marked


#: Title, what is below it, and the set that holds the element nearest to the viewer.
FIRST, ALL = slice(0, 1), slice(None)
PANELS = (
    ("batch", "a channel of all samples", _set(ALL, FIRST)),
    ("ghost batch", "... of a virtual batch", _set(slice(0, 2), FIRST)),
    ("instance", "a channel of a sample\nadaptive, conditional: the same", _set(FIRST, FIRST)),
    ("group", "some channels of a sample", _set(FIRST, slice(0, 3))),
    ("layer over (C, S)", "a sample", _set(FIRST, ALL)),
    ("layer, RMS over C", "a position", _set(FIRST, ALL, slice(S - 1, S))),
    ("local response", "a window of channels\nat a position", _set(FIRST, slice(0, 3), slice(S - 1, S))),
)


def draw(axes, title, note, marked):
    """One cube: channels to the right, samples to the back, positions upwards."""
    colours = np.where(marked, SHARED, REST).transpose(1, 0, 2)
    axes.voxels(np.ones(colours.shape, bool), facecolors=colours, edgecolor=EDGE, linewidth=0.4, shade=False)
    axes.set_box_aspect((C, N, S))
    axes.view_init(elev=24, azim=-58)
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, fontweight="bold", y=0.97)
    axes.text2D(0.5, -0.02, note, transform=axes.transAxes, ha="center", va="top", fontsize=8)


def main(output):
    """Write the figure."""
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(12, 2.4))
    for i, panel in enumerate(PANELS):
        draw(figure.add_subplot(1, len(PANELS), i + 1, projection="3d"), *panel)
    first = figure.axes[0]
    for label, place in (("C", (0.40, 0.0)), ("N", (0.93, 0.12)), ("S", (-0.02, 0.5))):
        first.text2D(*place, label, transform=first.transAxes, fontsize=9, color=EDGE)
    figure.subplots_adjust(0.01, 0.16, 0.99, 0.92, wspace=0.05)
    figure.savefig(output, dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("norms.png"))
