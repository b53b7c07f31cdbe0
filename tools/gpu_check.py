"""All that only a GPU can tell, in one command: ``python tools/gpu_check.py``.

On a machine with a CUDA device it runs the tests on it, a few of them under
``compute-sanitizer`` where that is on PATH, then the benchmarks beside torch,
torch.compile and CuPy, and writes ``benchmarks_gpu/<device>-<date>.json`` and ``.md``. It ends within
``--minutes``: each part has its share, results are written as they come, and what was left
out is listed. Times are medians of CUDA events with the L2 flushed before each call.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from gpu_cases import Case, Operands, cases
from gpu_report import rates, write

ROOT = Path(__file__).parents[1]
#: Shares of the time: device arrays, NumPy arrays through the device, sanitizer; benchmarks take what is left.
TEST_SHARES = {"tests/device": 0.15, "the suite with the cuda backend": 0.25, "compute-sanitizer": 0.1}
PACKAGES = (
    "numbanorm",
    "numpy",
    "numba",
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "torch",
)
FLUSH_BYTES = 256 << 20
#: Numbers that are made; odd, so that rows and channels differ.
NOISE = (1 << 20) + 7
#: A result further from torch's than this is wrong, and gets no time.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="end by then (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks_gpu", help="where results go")
    parser.add_argument("--only", choices=("tests", "benchmarks"), help="one half of it")
    parser.add_argument("--match", default="", help="benchmark only cases whose name contains this")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error(f"--minutes must be positive, but got {options.minutes:g}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; the exit status says whether tests failed (1) or there is no device (2)."""
    options = parse(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    missing = import_module("numbanorm.backends.cuda").availability()
    if missing:
        print(f"gpu_check needs a CUDA device: {missing}", file=sys.stderr)
        return 2
    from rich.console import Console

    console = Console()
    report: dict[str, Any] = {"facts": facts(), "tests": [], "benchmarks": [], "left out": []}
    if options.only != "benchmarks":
        run_tests(report, 60 * options.minutes, console)
        write(report, options.folder)
    if options.only != "tests":
        Benchmarks(report, deadline, options).run(console)
    for path in write(report, options.folder):
        console.print(f"wrote {path}")
    return int(any(part["failed"] for part in report["tests"]))


def facts() -> dict[str, str]:
    """Device, driver and versions."""
    cupy = import_module("cupy")
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    driver = cupy.cuda.runtime.driverGetVersion()
    found = {
        "device": properties["name"].decode(),
        "date": datetime.date.today().isoformat(),
        "memory": f"{properties['totalGlobalMem'] / 2**30:.0f} GiB",
        "multiprocessors": str(properties["multiProcessorCount"]),
        "CUDA of the driver": f"{driver // 1000}.{driver % 1000 // 10}",
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
        "python": sys.version.split()[0],
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _output(command: list[str]) -> str:
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return lines[0].strip() if lines else "unknown"


def test_commands() -> dict[str, list[str]]:
    """The commands of the parts that can run here, by name."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"]
    suite = ["tests/norms", "tests/layers", "tests/test_stats.py", "tests/test_moments.py", "tests/test_reduction.py"]
    commands = {
        "tests/device": [*pytest, "tests/device"],
        "the suite with the cuda backend": [*pytest, "-k", "cuda", *suite],
    }
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        few = ["tests/device/test_norms.py", "-k", "test_values_in_every_layout and float32"]
        commands["compute-sanitizer"] = [sanitizer, "--error-exitcode", "77", *pytest, *few]
    return commands


def run_tests(report: dict[str, Any], seconds: float, console: Any) -> None:
    """Each part within its share of the time; the last lines of what failed are kept."""
    environment = {**os.environ, "NUMBANORM_TEST_DEVICE": "cuda"}
    for name, command in test_commands().items():
        start = time.monotonic()
        with console.status(name):
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=seconds * TEST_SHARES[name],
                    check=False,
                )
                status, output = done.returncode, done.stdout + done.stderr
            except subprocess.TimeoutExpired as expired:
                status, output = -1, (expired.stdout or b"").decode(errors="replace") + "\nout of time"
        lines = [line for line in output.strip().splitlines() if line.strip()] or ["no output"]
        report["tests"].append(
            {
                "name": name,
                "failed": status > 0,
                "result": lines[-1].strip(" ="),
                "seconds": time.monotonic() - start,
                "output": lines[-60:] if status else [],
            }
        )
        console.print(f"{name}: {report['tests'][-1]['result']}")


class Benchmarks:
    """The benchmarks of one run."""

    def __init__(self, report: dict[str, Any], deadline: float, options: argparse.Namespace) -> None:
        self.report, self.deadline, self.folder = report, deadline, options.folder
        self.cases = [case for case in cases() if options.match in case.name]
        self.modules = {name: _module(name) for name in ("numbanorm", "cupy", "torch")}
        self.cupy = self.modules["cupy"]
        self.flush = self.cupy.empty(FLUSH_BYTES, "u1")
        noise = np.random.default_rng(0).standard_normal(NOISE, np.float32) * np.float32(2) + np.float32(1)
        halves = noise.astype(import_module("ml_dtypes").bfloat16).view(np.uint16)
        self.noise = {"float32": self.cupy.asarray(noise), "bfloat16": self.cupy.asarray(halves)}
        self.copy = 0.0

    def run(self, console: Any) -> None:
        """Every case in every library; then, while there is time, compiled by torch, which takes seconds a case."""
        from rich.progress import track

        self.copy = self.report["copy GB/s"] = self._copy_bandwidth()
        console.print(f"copy: {self.copy:.0f} GB/s")
        for case in track(self.cases, "benchmarks", console=console):
            row: dict[str, Any] = {"case": case.name, "libraries": {}}
            if self._time_is_up(20):
                self.report["left out"].append(case.name)
                continue
            if self._is_right(row, case):
                for library in ("numbanorm", "torch", "cupy"):
                    self._measure(row, case, library)
            self.report["benchmarks"].append(row)
            write(self.report, self.folder)
        if self.modules["torch"]:
            for case, row in zip(self.cases, list(self.report["benchmarks"]), strict=False):
                if self._time_is_up(40):
                    self.report["left out"].append(f"torch.compile from {case.name} on")
                    break
                self._measure(row, case, "torch.compile")
                write(self.report, self.folder)

    def _is_right(self, row: dict[str, Any], case: Case) -> bool:
        """Whether numbanorm agrees with torch, where there is torch to ask."""
        if self.modules["torch"] is None:
            return True
        try:
            row["difference from torch"] = self._difference(case)
        except Exception as problem:
            row["problem"] = f"{type(problem).__name__}: {problem}"[:300]
            return False
        return bool(row["difference from torch"] <= TOLERANCE[case.dtype])

    def _time_is_up(self, reserve: float) -> bool:
        return time.monotonic() + reserve > self.deadline

    def _measure(self, row: dict[str, Any], case: Case, library: str) -> None:
        """One library's time of a case, or why there is none."""
        base = library.partition(".")[0]
        module, function = self.modules[base], getattr(case.operation, base)
        if module is None or function is None:
            return
        try:
            operands = self._operands(case)
            if base == "torch":
                operands = Operands(*map(_as_torch, operands))
            call = lambda: function(module, operands)  # noqa: E731
            if library == "torch.compile":
                compiled = module.compile(function)
                call = lambda: compiled(module, operands)  # noqa: E731
            microseconds, host = self._time(call)
        except Exception as problem:
            row["libraries"][library] = {"problem": f"{type(problem).__name__}: {problem}"[:300]}
            return
        found = {"us": round(microseconds, 2), "host us": round(host, 2)}
        row["libraries"][library] = {**found, **rates(case.least_bytes, microseconds, self.copy)}

    def _operands(self, case: Case) -> Operands:
        """The same noise, mean 1 and std 2, repeated; made on the host so that CuPy need not compile for it."""
        n = prod(case.shape)
        x = self.cupy.tile(self.noise[case.dtype], -(-n // NOISE))[:n].reshape(case.shape)
        if case.dtype == "bfloat16":
            x = x.view(import_module("ml_dtypes").bfloat16)
        values = (np.full(case.channels, value, np.float32) for value in (1.5, 0.25, 1.0, 4.0))
        return Operands(x, *map(self.cupy.asarray, values))

    def _difference(self, case: Case) -> float:
        """Largest difference of numbanorm's result from torch's."""
        torch, operands = self.modules["torch"], self._operands(case)
        ours = case.operation.numbanorm(self.modules["numbanorm"], operands)
        theirs = case.operation.torch(torch, Operands(*map(_as_torch, self._operands(case))))
        if isinstance(ours, tuple):
            ours, theirs = ours[1], theirs[1]  # variances
        return float((_as_torch(ours).float() - theirs.float()).abs().max())

    def _time(self, call: Callable[[], Any]) -> tuple[float, float]:
        """Median microseconds on the device from a cold L2, and the host's microseconds a call."""
        cuda = self.cupy.cuda
        for _ in range(3):
            call()
        cuda.get_current_stream().synchronize()
        n = 20
        events = [(cuda.Event(), cuda.Event()) for _ in range(n)]
        for start, stop in events:
            self.flush.data.memset_async(0, FLUSH_BYTES)  # and the device is busy until the call is queued
            start.record()
            call()
            stop.record()
        cuda.get_current_stream().synchronize()
        microseconds = statistics.median(cuda.get_elapsed_time(*pair) * 1e3 for pair in events)
        begin = time.perf_counter()
        for _ in range(n):
            call()
        host = (time.perf_counter() - begin) / n * 1e6
        cuda.get_current_stream().synchronize()
        return microseconds, host

    def _copy_bandwidth(self) -> float:
        """GB/s of a device-to-device copy of 1 GiB, bytes read and written."""
        source, target = (self.cupy.zeros(1 << 30, "u1") for _ in range(2))
        call = lambda: target.data.copy_from_device_async(source.data, source.nbytes)  # noqa: E731
        return 2 * source.nbytes / self._time(call)[0] / 1e3


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _as_torch(array: Any) -> Any:
    """A CuPy array's memory as a tensor."""
    torch = import_module("torch")
    if array.dtype.name == "bfloat16":
        return torch.from_dlpack(array.view("i2")).view(torch.bfloat16)
    return torch.from_dlpack(array)


if __name__ == "__main__":
    sys.exit(main())
