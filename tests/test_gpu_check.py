"""What of ``tools/gpu_check.py`` needs no device."""

import json
import os
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


def test_arguments(tool, capsys):
    options = tool.parse([])
    assert options.minutes == 9
    assert options.folder.name == "benchmarks_gpu"
    for wrong in (["--minutes", "0"], ["--only", "x"]):
        with pytest.raises(SystemExit):
            tool.parse(wrong)
    assert "--minutes must be positive" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.parse(["--help"])
    assert "benchmarks_gpu" in capsys.readouterr().out


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
    "tests": [{"name": "tests/device", "state": "passed", "result": "200 passed in 9s", "seconds": 9.4}],
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
    assert "| tests/device | passed | 200 passed in 9s | 9 |" in text
    assert "time was up: group_norm 8x8 float32" in text
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)


PYTHON = [sys.executable, "-c"]
CRASHED = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANGING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "seconds", "state", "result"),
    [
        ("import os; print(os.environ['NUMBANORM_TEST_DEVICE'])", 60, "passed", "cuda"),
        ("print('1 failed'); raise SystemExit(1)", 60, "failed", "1 failed"),
        (CRASHED, 60, "failed", "crashed, SIGSEGV: no output"),
        ("import time; print('slow', flush=True); time.sleep(60)", 2, "out of time", "slow"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_parts_say_how_they_ended(tool, code, seconds, state, result):
    part = tool.gpu_parts.run_part("a part", [*PYTHON, code], seconds)
    assert (part["state"], part["result"], part["failed"]) == (state, result, state != "passed")
    assert bool(part["output"]) == part["failed"]
    assert tool.failed({"tests": [part], "benchmarks": []}) == part["failed"]


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_out_of_time_ends_the_children_too(tool):
    part = tool.gpu_parts.run_part("a part", [*PYTHON, HANGING], 3)
    assert part["state"] == "out of time"
    status = Path(f"/proc/{part['result']}/status")
    time.sleep(0.5)
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_every_file_has_its_command(tool, monkeypatch):
    parts = tool.gpu_parts
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    commands = parts.test_commands()
    assert {"tests/device/test_real.py", "tests/test_nist.py", "tests/test_seeds.py"} <= set(commands)
    assert not any("-n" in command for command in commands.values())
    monkeypatch.setattr(parts, "find_spec", lambda name: name)
    assert all("xdist" in command for command in parts.test_commands().values())
    monkeypatch.setattr(parts.shutil, "which", lambda name: None)
    assert not parts.sanitizer_commands()
    monkeypatch.setattr(parts.shutil, "which", lambda name: f"/bin/{name}")
    commands = parts.sanitizer_commands()
    assert [command[2] for command in commands.values()] == ["memcheck", "racecheck"]
    assert tool.COMPILING + tool.TESTS + tool.SANITIZER < 0.7


def test_environment(tool, monkeypatch, tmp_path):
    parts = tool.gpu_parts
    monkeypatch.setattr(parts, "TOOLKIT", tmp_path)
    found = parts.environment({"PYTHONPATH": "there", "NUMBANORM_BACKEND": "cpu"})
    assert found["PYTHONPATH"].split(parts.os.pathsep) == [str(TOOLS.parent), "there"]
    assert found["CUDA_HOME"] == str(tmp_path)
    assert "NUMBANORM_BACKEND" not in found
    kept = {"CUDA_PATH": "mine", "NUMBA_CACHE_DIR": "kernels"}
    found = parts.environment(kept)
    assert kept.items() <= found.items()
    assert "CUDA_HOME" not in found


def test_without_an_installed_package(tmp_path):
    """The source beside the tool is what it checks: nothing is on the path but what numbanorm needs."""
    places = [str(Path(np.__file__).parents[1])]
    code = f"""
import runpy, sys
sys.path[:] = [p for p in sys.path if p and "numbanorm" not in p] + {places!r}
sys.argv = ["gpu_check.py", "--folder", {str(tmp_path)!r}]
runpy.run_path({str(TOOLS / "gpu_check.py")!r}, run_name="__main__")
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "needs a CUDA device" in done.stderr


def test_a_compiler_is_asked_for_first(tool, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cuda, "availability", lambda: None)
    monkeypatch.setattr(tool, "facts", lambda: {"compute capability": "9.0"})
    monkeypatch.setattr(tool, "compile_command", lambda *_: [*PYTHON, "raise SystemExit('no nvvm.so')"])
    assert tool.main(["--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no nvvm.so" in error
    assert "libnvvm" in error
    assert not list(tmp_path.iterdir())


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


def bench(monkeypatch, **modules):
    found = import_module("gpu_bench")
    modules = {"cupy": cupy_on_the_host(), "numbanorm": nn, **modules}
    monkeypatch.setattr(found, "_module", modules.get)
    return found


def small(operation, shapes, dtype):
    shape = (16, 8) if len(shapes[0]) == 2 else (3, 4, 5, 4)
    return import_module("gpu_cases").Case(operation, shape, dtype)


def test_benchmarks(monkeypatch, tmp_path):
    """Every operation on a small shape, with NumPy in CuPy's place."""
    gpu_bench = bench(monkeypatch)
    gpu_cases = import_module("gpu_cases")
    found = [small(*entry, dtype) for entry in gpu_cases.TABLE for dtype in gpu_cases.DTYPES]
    monkeypatch.setattr(gpu_bench, "cases", lambda: found)
    path = tmp_path / "rows"
    for operation, _ in gpu_cases.TABLE:
        assert gpu_bench.main([str(path), "--operation", operation.name]) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["case"] for row in rows] == [case.name for case in found]
    for row in rows:
        assert row["libraries"]["numbanorm"]["us"] > 0, row
        assert "torch" not in row["libraries"]
    gpu_bench.main([str(path), "--operation", "layer_norm", "--skip", "1", "--compiled"])
    assert json.loads(path.read_text().splitlines()[-1]) == {"case": found[1].name, "libraries": {}}
    monkeypatch.setattr(gpu_bench.Benchmarks, "is_lost", lambda self: True)
    assert gpu_bench.main([str(path), "--operation", "layer_norm"]) == gpu_bench.LOST
    assert len(path.read_text().splitlines()) == len(found) + 2


def test_wrong_results_get_no_time(monkeypatch):
    torch = pytest.importorskip("torch")
    gpu_bench = bench(monkeypatch, torch=torch)
    gpu_cases = import_module("gpu_cases")
    as_torch = gpu_bench._as_torch
    monkeypatch.setattr(gpu_bench, "_as_torch", lambda array: as_torch(np.array(array)))  # NumPy's scalars too
    benchmarks = gpu_bench.Benchmarks()
    for entry in gpu_cases.TABLE:
        for dtype in gpu_cases.DTYPES:
            row, case = {}, small(*entry, dtype)
            assert benchmarks.is_right(row, case), (row, case.name)
    wrong = gpu_cases.Operation("wrong", 2, -1, lambda nn, o: o.x, lambda torch, o: o.x + 1)
    row = benchmarks.row(gpu_cases.Case(wrong, (4, 8), "float32"))
    assert row["problem"] == "differs from torch by 1"
    assert not row["libraries"]
    broken = gpu_cases.Operation("broken", 2, -1, lambda nn, o: o.y, lambda torch, o: o.x)
    assert "AttributeError" in benchmarks.row(gpu_cases.Case(broken, (4, 8), "float32"))["problem"]


def test_a_lost_process_costs_one_case(tool, monkeypatch, tmp_path):
    """The next one goes on behind it; what was measured stays."""
    calls = []

    def rows(arguments, seconds):
        calls.append(arguments)
        if "--copy" in arguments:
            return [{"copy GB/s": 4000.0}], {"failed": False}
        skip, name = int(arguments[-1]), arguments[1]
        names = [case.name for case in tool.chosen(name, "float32")]
        made = [{"case": case, "libraries": {"numbanorm": {"us": 10.0, "host us": 1.0}}} for case in names[skip:]]
        if name != "rms_norm" or skip:
            return made, {"failed": False, "status": 0}
        return made[:2], {"failed": True, "status": -11, "state": "failed", "result": "crashed"}

    monkeypatch.setattr(tool, "bench_rows", rows)
    monkeypatch.setattr(tool, "find_spec", lambda name: None)
    report = {"facts": REPORT["facts"], "tests": [], "benchmarks": [], "left out": []}
    options = tool.parse(["--folder", str(tmp_path), "--match", "float32"])
    tool.benchmark(report, time.monotonic() + 60, options)
    names = [case.name for case in tool.cases() if "float32" in case.name]
    assert [row["case"] for row in report["benchmarks"]] == names
    lost = [row["case"] for row in report["benchmarks"] if "problem" in row]
    assert lost == [[name for name in names if name.startswith("rms_norm")][2]]
    assert tool.failed(report)
    assert not report["left out"]
    assert report["benchmarks"][0]["libraries"]["numbanorm"]["GB/s"] > 0
    tool.benchmark(report, time.monotonic(), options)
    assert report["left out"] == names
    assert len(list(tmp_path.iterdir())) == 2
