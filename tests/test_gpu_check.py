"""What of ``tools/gpu_check.py`` needs no device."""

import io
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import numbanorm as nn
from numbanorm.backends import cuda

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture
def tool():
    return import_module("gpu_check")


def test_help():
    shown = subprocess.run(
        [sys.executable, TOOLS / "gpu_check.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "benchmarks_gpu" in shown.stdout


def test_arguments(tool, capsys):
    options = tool.parse([])
    assert options.minutes == 9
    assert options.folder.name == "benchmarks_gpu"
    for wrong in (["--minutes", "0"], ["--only", "x"]):
        with pytest.raises(SystemExit):
            tool.parse(wrong)
    assert "--minutes must be positive" in capsys.readouterr().err


def test_without_a_device(tool, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cuda, "availability", lambda: "the cuda backend cannot run: no device")
    assert tool.main(["--folder", str(tmp_path)]) == 2
    assert "needs a CUDA device: the cuda backend cannot run: no device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bytes():
    cases = {case.name: case for case in import_module("gpu_cases").cases()}
    assert cases["layer_norm 8192x4096 float32"].least_bytes == 2 * 8192 * 4096 * 4
    assert cases["mean_var_last_axis 8192x4096 bfloat16"].least_bytes == 8192 * 4096 * 2
    assert cases["batch_norm_training 64x256x56x56 float32"].least_bytes == 3 * 64 * 256 * 56 * 56 * 4
    assert cases["batch_norm_training 32x512x7x7 float32"].least_bytes == 2 * 32 * 512 * 7 * 7 * 4
    assert len(cases) == len(import_module("gpu_cases").cases())


def test_every_operation_runs_and_agrees(rng):
    """On small NumPy arrays, and torch's tensors of them."""
    gpu_cases = import_module("gpu_cases")
    torch = pytest.importorskip("torch")
    for operation, shapes in gpu_cases.TABLE:
        shape = (4, 8) if len(shapes[0]) == 2 else (3, 4, 5, 4)
        channels = shape[operation.channel_axis]
        x = rng.standard_normal(shape).astype("f4")
        parameters = [np.full(channels, value, "f4") for value in (1.5, 0.25, 1, 4)]
        ours = operation.numbanorm(nn, gpu_cases.Operands(x, *(p.copy() for p in parameters)))
        theirs = operation.torch(torch, gpu_cases.Operands(*map(torch.from_numpy, (x, *parameters))))
        if not isinstance(ours, tuple):
            ours, theirs = (ours,), (theirs,)
        for actual, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(actual, expected, atol=2e-5, err_msg=operation.name)
        if operation.cupy:
            np.testing.assert_allclose(operation.cupy(np, gpu_cases.Operands(x, *parameters)), ours[1], rtol=1e-4)


REPORT = {
    "facts": {"device": "NVIDIA H200", "date": "2026-01-31", "driver": "580.1"},
    "copy GB/s": 4300.0,
    "tests": [{"name": "tests/device", "failed": False, "result": "200 passed in 9s", "seconds": 9.4, "output": []}],
    "benchmarks": [
        {
            "case": "layer_norm 8x8 float32",
            "libraries": {
                "numbanorm": {"us": 10.0, "host us": 9.5, "GB/s": 51.2, "share of copy": 0.012},
                "torch": {"us": 15.0, "host us": 4.0, "GB/s": 34.1, "share of copy": 0.008},
                "torch.compile": {"problem": "no compiler"},
            },
        },
        {"case": "rms_norm 8x8 float32", "libraries": {}, "difference from torch": 1.0},
    ],
    "left out": ["group_norm 8x8 float32"],
}


def test_tables(tmp_path):
    report = import_module("gpu_report")
    paths = report.write(REPORT, tmp_path / "results")
    assert [path.name for path in paths] == ["nvidia-h200-2026-01-31.json", "nvidia-h200-2026-01-31.md"]
    assert json.loads(paths[0].read_text()) == REPORT
    text = paths[1].read_text()
    assert "| layer_norm 8x8 float32 | 10.0 | 15.0 |  |  | 51 | 0.01 | 9.5 | 1.50 |" in text
    assert "not timed: differs from torch" in text
    assert "| tests/device | 200 passed in 9s | 9 |" in text
    assert "time was up: group_norm 8x8 float32" in text
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)


def test_parts_of_the_tests_have_shares_of_the_time(tool, monkeypatch):
    console = pytest.importorskip("rich.console").Console(file=io.StringIO())
    monkeypatch.setattr(tool.shutil, "which", lambda name: f"/bin/{name}")
    commands = tool.test_commands()
    assert set(commands) == set(tool.TEST_SHARES)
    assert sum(tool.TEST_SHARES.values()) <= 0.5
    python = [sys.executable, "-c"]
    quick = {
        "tests/device": [*python, "import os; print(os.environ['NUMBANORM_TEST_DEVICE'])"],
        "the suite with the cuda backend": [*python, "print('1 failed'); raise SystemExit(1)"],
        "compute-sanitizer": [*python, "import time; print('slow', flush=True); time.sleep(60)"],
    }
    monkeypatch.setattr(tool, "test_commands", lambda: quick)
    monkeypatch.setattr(tool, "TEST_SHARES", {name: 1.0 if name != "compute-sanitizer" else 0.1 for name in quick})
    report = {"tests": []}
    tool.run_tests(report, 10, console)
    assert [part["result"] for part in report["tests"]] == ["cuda", "1 failed", "out of time"]
    assert [part["failed"] for part in report["tests"]] == [False, True, False]


class Event:
    def record(self):
        self.time = time.perf_counter()


def cupy_on_the_host():
    """As much of CuPy as the benchmarks use."""
    flush = SimpleNamespace(data=SimpleNamespace(memset_async=lambda value, size: None))
    cuda = SimpleNamespace(
        Event=Event,
        get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
        get_elapsed_time=lambda start, stop: (stop.time - start.time) * 1e3,
    )
    return SimpleNamespace(empty=lambda *_: flush, asarray=np.asarray, tile=np.tile, cuda=cuda)


@pytest.mark.parametrize("minutes", [2, 0])
def test_benchmarks(tool, monkeypatch, tmp_path, minutes):
    """Every operation on a small shape, with NumPy in CuPy's place."""
    console = pytest.importorskip("rich.console").Console(file=io.StringIO())
    gpu_cases = import_module("gpu_cases")
    small = [
        gpu_cases.Case(operation, (4, 8) if len(shapes[0]) == 2 else (3, 4, 5, 4), dtype)
        for operation, shapes in gpu_cases.TABLE
        for dtype in ("float32", "bfloat16")
    ]
    modules = {"cupy": cupy_on_the_host()}
    monkeypatch.setattr(tool, "_module", lambda name: modules.get(name) or (nn if name == "numbanorm" else None))
    monkeypatch.setattr(tool, "cases", lambda: small)
    monkeypatch.setattr(tool.Benchmarks, "_copy_bandwidth", lambda self: 4000.0)
    report = {"facts": REPORT["facts"], "tests": [], "benchmarks": [], "left out": []}
    tool.Benchmarks(report, time.monotonic() + 60 * minutes, tool.parse(["--folder", str(tmp_path)])).run(console)
    assert len(report["benchmarks"]) + len(report["left out"]) == len(small)
    assert bool(report["benchmarks"]) == bool(minutes)
    for row in report["benchmarks"]:
        assert row["libraries"]["numbanorm"]["us"] > 0, row
        assert "torch" not in row["libraries"]
    assert len(list(tmp_path.iterdir())) == 2 * bool(minutes)


def test_wrong_results_get_no_time(tool, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    gpu_cases = import_module("gpu_cases")
    modules = {"cupy": cupy_on_the_host(), "numbanorm": nn, "torch": torch}
    monkeypatch.setattr(tool, "_module", modules.get)
    as_torch = tool._as_torch
    monkeypatch.setattr(tool, "_as_torch", lambda array: as_torch(np.array(array)))  # NumPy's scalars too
    report = {"facts": REPORT["facts"], "tests": [], "benchmarks": [], "left out": []}
    benchmarks = tool.Benchmarks(report, 0, tool.parse(["--folder", str(tmp_path)]))
    for operation, shapes in gpu_cases.TABLE:
        for dtype in ("float32", "bfloat16"):
            row = {}
            case = gpu_cases.Case(operation, (16, 8) if len(shapes[0]) == 2 else (3, 4, 5, 4), dtype)
            assert benchmarks._is_right(row, case), (row, case.name)
    wrong = gpu_cases.Operation("wrong", 2, -1, lambda nn, o: o.x, lambda torch, o: o.x + 1)
    assert not benchmarks._is_right(row, gpu_cases.Case(wrong, (4, 8), "float32"))
    broken = gpu_cases.Operation("broken", 2, -1, lambda nn, o: o.y, lambda torch, o: o.x)
    assert not benchmarks._is_right(row, gpu_cases.Case(broken, (4, 8), "float32"))
    assert "AttributeError" in row["problem"]
