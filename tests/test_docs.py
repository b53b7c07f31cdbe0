"""The table of norms names every norm and no launcher that is not there; its figure can be drawn."""

import re
import runpy
from pathlib import Path

import pytest

import numbanorm as nn
from numbanorm.backends import LAUNCHERS

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "norms.md").read_text()


def test_every_norm_has_its_row():
    for name in set(nn.norms.__all__) - {"adain"}:
        assert re.search(rf"^\| [^|]*`{name}`", TEXT, re.MULTILINE), name


def test_launchers_are_those_of_the_contract():
    for row in re.findall(r"^\| [^|]*`.*$", TEXT, re.MULTILINE):
        cells = row.split("|")
        if len(cells) == 8:
            for launcher in re.findall(r"`(\w+)\*?`", cells[5]):
                assert any(known.startswith(launcher) for known in (*LAUNCHERS, *nn.norms.__all__)), launcher


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target


def test_the_figure_is_what_the_script_draws(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    main = runpy.run_path(str(DOCS / "figures.py"))["main"]
    main(tmp_path / "norms.png")
    drawn, kept = (pyplot.imread(path) for path in (tmp_path / "norms.png", DOCS / "norms.png"))
    assert drawn.shape == kept.shape
    # Other versions of matplotlib may place a letter a pixel aside.
    assert abs(drawn - kept).mean() < 0.02
