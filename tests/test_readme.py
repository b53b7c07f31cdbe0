"""README promises commands and code: they are what it says."""

import re
from pathlib import Path

import numpy as np

import numbanorm as nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_come_first():
    blocks = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
    assert blocks[0] == ("bash", 'pip install ".[demo]" && numbanorm demo\n')
    assert blocks[1] == ("bash", 'pip install ".[test]" && pytest\n')
    assert len(README.splitlines()) <= 120


def test_the_examples_run():
    code, training = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["y"].shape == names["x"].shape
    assert np.isfinite(names["y"]).all()
    assert names["bn"].num_batches_tracked == 1
    exec(training, names)
    assert names["dx"].shape == names["x"].shape
    assert set(names["bn"].grad) == {"gamma", "beta"}


def test_every_norm_is_in_the_table():
    for name in (*nn.norms.__all__, *nn.layers.__all__):
        family = re.sub(r"[123]d$", "", name)
        assert f"`{family}" in README, name


def test_every_relative_link_leads_somewhere():
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / document).read_text()):
            assert (ROOT / target).exists(), f"{document}: {target}"
