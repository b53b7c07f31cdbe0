"""The digits that ship with the package, and the demo that runs on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numbanorm import __main__, _demo
from numbanorm._demo import _libraries, _measure
from numbanorm._digits import Digits, load_digits

PNG = b"\x89PNG\r\n\x1a\n"


def test_digits():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.float32
    assert (images.min(), images.max(), images.sum(dtype=np.float64)) == (0, 16, 561718)
    assert np.array_equal(images, images.round())
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    images, labels = load_digits()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)


def assert_is_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = np.frombuffer(content[16:24], ">u4")
    assert width > 1000
    assert height > 700
    assert 30_000 < len(content) < 1_000_000


@pytest.mark.compiled
def test_demo_writes_tables_and_a_picture(tmp_path, capsys, monkeypatch):
    # Narrow, and not a terminal: everything must fit, and nothing may blink.
    monkeypatch.setenv("COLUMNS", "80")
    output = tmp_path / "demo.png"
    assert __main__.main(["demo", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    for word in ("mean_var", "batch_norm", "numbanorm", "NumPy", "each pixel", "The picture is in"):
        assert word in printed
    assert "…" not in printed
    assert "\x1b" not in printed
    assert_is_picture(output)


@pytest.fixture
def few_digits(monkeypatch) -> Digits:
    """Digits enough for threads and few enough for interpreted kernels, measured in a hurry."""
    digits = Digits(*(array[:600] for array in load_digits()))
    monkeypatch.setattr(_demo, "load_digits", lambda: digits)
    monkeypatch.setattr(_demo, "COPIES", 1)
    monkeypatch.setattr(_measure, "FEWEST_CALLS", 1)
    monkeypatch.setattr(_measure, "BUDGET", 0)
    return digits


def test_demo_runs_without_torch(tmp_path, capsys, monkeypatch, few_digits):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.chdir(tmp_path)
    _demo.run("demo.png")
    assert "torch" not in capsys.readouterr().out
    assert_is_picture(tmp_path / "demo.png")


@pytest.mark.parametrize("case", _measure.CASES, ids=lambda case: f"{case.operation}, {case.sets}")
def test_libraries_agree(case, few_digits):
    row = _measure.measure(case, _libraries.libraries(), few_digits.images, n_kept=2)
    assert max(measurement.error for measurement in row.by.values()) < 1e-4
    assert row.by["numbanorm"].raised_error < 2e-7
    assert len(row.by["numbanorm"].output) == 2 * case.is_norm


@pytest.mark.parametrize("output", ["missing/demo.png", ".", "demo.txt", "demo"])
def test_output_is_checked_before_any_work(tmp_path, capsys, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"cannot write"):
        __main__.main(["demo", "--output", output])
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_folder_without_permission_is_refused(tmp_path, monkeypatch):
    # Asked of os.access alone, because a superuser may write anywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SystemExit, match="not permitted"):
        _demo.run(str(tmp_path / "demo.png"))


@pytest.mark.parametrize(("arguments", "expected"), [(["info"], "kernel cache"), (["demo", "--help"], "--output")])
def test_command_line(arguments, expected):
    command = [sys.executable, "-m", "numbanorm", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert expected in finished.stdout
