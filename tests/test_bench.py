"""``numbanorm bench``: what it measures, prints, writes and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from math import isfinite

import numpy as np
import pytest

from numbanorm import __main__
from numbanorm._bench import cases, command, contests, protocol, survey, tables
from numbanorm._bench.cells import PROFILES, Cell
from numbanorm._bench.protocol import PACES, Pace, WrongResult, error, medians, verify

PNG = b"\x89PNG\r\n\x1a\n"
#: Every group, at its smallest.
SMALLEST = {
    "norms": [Cell("layer_norm", (8, 64)), Cell("batch_norm_training_nhwc", (2, 16, 8, 8))],
    "mean_var": [Cell("mean_var_first_axis", (64, 8))],
    "var of float16": [Cell("var_last_axis", (8, 64), "float16")],
    "small calls": [Cell("layer_norm", (8, 64))],
}


@pytest.fixture
def _little(monkeypatch):
    """A survey of few cells, of tiny size, once each."""
    monkeypatch.setattr(type(PROFILES["smoke"]), "peers", lambda self: SMALLEST)
    monkeypatch.setattr(type(PROFILES["smoke"]), "halves", lambda self: SMALLEST["norms"][:1])
    monkeypatch.setattr(type(PROFILES["smoke"]), "formats", lambda self: [Cell("batch_norm_training", (2, 16, 8, 8))])
    for profile in ("quick", "user"):
        monkeypatch.setitem(PROFILES, profile, PROFILES["smoke"])
        monkeypatch.setitem(PACES, profile, PACES["smoke"])
        monkeypatch.setitem(survey.LENGTHS, profile, survey.LENGTHS["smoke"])
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def _without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("_little")
@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_tables_picture_and_numbers(options, tmp_path, capsys):
    picture, numbers = tmp_path / "plot.png", tmp_path / "numbers.json"
    assert __main__.main(["bench", *options, "--plot", str(picture), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "backend cpu",
        "threads",
        "numpy ",
        "share of the speed of a copy",
        "share of the speed of reading",
        "float16  bfloat16",
        "last / first",
        "Time over numbanorm's: norms",
        "batch_norm_training_nhwc  2x16x8x8",
        "Geometric means",
        f"The picture is in {picture}",
        f"The numbers are in {numbers}",
    ):
        assert words in printed
    assert "…" not in printed
    assert "\x1b" not in printed
    assert picture.read_bytes().startswith(PNG)
    found = json.loads(numbers.read_text())
    assert found["machine"]["versions"]["numpy"] == np.__version__
    assert [row["group"] for row in found["rows"]] == [group for group, cells in SMALLEST.items() for _ in cells]
    first = found["rows"][0]
    assert first["cell"] == {"operation": "layer_norm", "shape": [8, 64], "dtype": "float32"}
    assert first["moved"] == 2 * 8 * 64 * 4
    assert first["ratios"]["numpy"] == pytest.approx(first["seconds"]["numpy"] / first["seconds"]["numbanorm"])
    assert first["shares"]["given"] == pytest.approx(first["memory"]["ceiling"] / first["memory"]["given"])
    assert all(mean["n"] and isfinite(mean["geometric"]) for mean in found["means"])
    assert all(len(line["moved"]) == len(line["rates"]) == 2 for line in found["lines"])
    assert found["complaints"] == []


@pytest.mark.usefixtures("_little", "_without_torch")
def test_without_torch_its_column_is_absent(capsys):
    assert command.run("smoke") == 0
    printed = capsys.readouterr().out
    assert "torch" not in printed
    assert "time of numpy over ours" in printed


@pytest.mark.usefixtures("_little", "_without_torch")
def test_no_number_for_a_wrong_peer(monkeypatch, capsys):
    wrong = replace(cases.OPERATIONS["layer_norm"], numpy=_right_in_float64_only)
    monkeypatch.setitem(cases.OPERATIONS, "layer_norm", wrong)
    assert command.run("smoke") == 0
    printed = capsys.readouterr().out
    assert "layer_norm (8, 64) of numpy is off by" in printed
    # After operation and shape, our own milliseconds and no ratio.
    assert re.search(r"^layer_norm +8x64 +\S+ +wrong *$", printed, re.MULTILINE)


def _right_in_float64_only(module, data):
    call = partial(module.add, data.x, 1)
    return cases.NORMS[0].numpy(module, data) if data.x.dtype == np.float64 else call


@pytest.mark.usefixtures("_little", "_without_torch")
def test_our_own_wrong_result_is_a_failure(monkeypatch, capsys):
    wrong = replace(cases.OPERATIONS["layer_norm"], numbanorm=lambda nn, d: partial(nn.rms_norm, d.x, d.gamma))
    monkeypatch.setitem(cases.OPERATIONS, "layer_norm", wrong)
    assert command.run("smoke") == 1
    printed = capsys.readouterr().out
    assert "layer_norm (8, 64) of numbanorm is off by" in printed
    assert not re.search(r"^layer_norm +8x64", printed, re.MULTILINE)
    assert "batch_norm_training_nhwc" in printed


def test_a_wrong_out_is_a_failure(monkeypatch):
    def call(x, *parameters, out=None):
        return cases.numpy_result if out is None else out.fill(0) or out

    cell = Cell("layer_norm", (8, 64))
    operation = cases.OPERATIONS["layer_norm"]
    monkeypatch.setattr(cases, "numpy_result", operation.reference(operation.data(cell.shape)), raising=False)
    wrong = replace(operation, numbanorm=lambda nn, d: partial(call, d.x))
    monkeypatch.setitem(cases.OPERATIONS, "layer_norm", wrong)
    contest = contests.contest(cell, ceiling=True)
    assert list(contest.calls) == ["numbanorm", "ceiling"]
    with pytest.raises(WrongResult, match="off by"):
        contest.all_right()


@pytest.mark.parametrize("option", ["--plot", "--json"])
@pytest.mark.parametrize("output", ["missing/file.png", "."])
def test_files_are_checked_before_any_work(option, output, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"cannot write"):
        __main__.main(["bench", option, output])
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_a_picture_needs_an_ending():
    with pytest.raises(SystemExit, match=r"must end in one of .*\.png"):
        command.run("smoke", plot="picture")


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
@pytest.mark.parametrize("subcommand", ["bench", "demo"])
def test_missing_packages_are_named(subcommand, package, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; from numbanorm.__main__ import main; sys.exit(main())"
    option = "--plot" if subcommand == "bench" else "--output"
    command = [sys.executable, "-c", code, subcommand, option, str(tmp_path / "picture.png")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert finished.stdout == f'numbanorm {subcommand} needs {package}: pip install "numbanorm[{subcommand}]"\n'
    assert finished.stderr == ""


@pytest.mark.parametrize("package", ["rich", "numbanorm.nowhere"])
def test_only_missing_extras_are_explained(package, monkeypatch, capsys):
    def missing(options):
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr(__main__, "_bench", missing)
    if package == "rich":
        assert __main__.main(["bench"]) == 1
        assert "bench needs rich" in capsys.readouterr().out
    else:
        with pytest.raises(ModuleNotFoundError):
            __main__.main(["bench"])


def test_an_unknown_backend_is_a_message(monkeypatch):
    monkeypatch.setenv("NUMBANORM_BACKEND", "nope")
    with pytest.raises(SystemExit, match="nope"):
        command.run("smoke")


def test_cells_are_those_that_were_promised():
    peers = PROFILES["regular"].peers()
    norms = {cell.operation for cell in peers["norms"]}
    assert len(norms) == 8
    assert len(peers["norms"]) == 2 * 7 + 6 * 5
    assert {cell.shape for cell in peers["small calls"]} == {(1, 768), (2, 16, 8, 8)}
    large = PROFILES["regular"].copies()
    assert large[0] == Cell("layer_norm", (512, 768))
    assert all(cell.nbytes >= 64e6 for cell in large[1:])
    assert {cell.operation for cell in large} == norms
    assert all(cell._replace(dtype="float16").nbytes >= 16e6 for cell in PROFILES["regular"].halves())
    assert all(cell.moved == cell.nbytes for cell in PROFILES["regular"].reads())


def test_medians_alternate_and_repeat_what_is_short():
    calls = []
    names = {name: partial(calls.append, name) for name in "ab"}
    found = medians(names, Pace(0, 3, 9, 0))
    assert calls == list("ababab")
    assert set(found) == {"a", "b"}
    calls.clear()
    medians(names, Pace(1e-4, 1, 1, 0))
    assert len(calls) > 10


def test_errors_of_results():
    reference = np.arange(6.0).reshape(2, 3)
    assert error(reference.astype(np.float32), reference) == 0
    assert error(reference + np.eye(2, 3), reference) == 1
    assert np.isnan(error(reference * np.nan, reference))
    assert error(reference[:1], reference) == np.inf
    assert error((np.float32(1), np.float32(2)), np.array([1.0, 2.5])) == 0.5
    verify("this", "numbanorm", reference + 4e-3, reference, "float16")
    for wrong in (reference + 4e-3, reference * np.nan, reference.T):
        with pytest.raises(WrongResult, match="this of numbanorm is off by"):
            verify("this", "numbanorm", wrong, reference)


def test_errors_are_found_in_every_block(monkeypatch):
    monkeypatch.setattr(protocol, "BLOCK", 7)
    reference = np.zeros((10, 3))
    for i in range(10):
        result = reference.copy()
        result[i, 1] = 1
        assert error(result, reference) == 1


def test_threads_are_restored():
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    seen = []
    for call in contests.threads(lambda: seen.append(numba.get_num_threads()), before).values():
        call()
    assert seen == [1, before] * 2  # warm, then called
    assert numba.get_num_threads() == before


def test_ratios_in_words():
    assert [tables._times(value) for value in (None, 0.123, 9.994, 12.3)] == ["", "0.12", "9.99", "12"]
