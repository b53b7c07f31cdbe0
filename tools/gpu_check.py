"""All that only a GPU can tell, in one command: ``python tools/gpu_check.py``.

On a machine with a CUDA device it compiles the kernels in many processes, runs the tests on
the device, a few of them under ``compute-sanitizer`` where that is, then the benchmarks
beside torch, torch.compile and CuPy, and writes ``benchmarks_gpu/<device>-<date>.json`` and
``.md``. It ends within ``--minutes``: each part has its share, results are written as they come,
and what was left out is listed. Each test file and each operation is a process of its own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import gpu_parts
from gpu_bench import LOST, chosen
from gpu_cases import TABLE, cases
from gpu_report import rates, write

ROOT = Path(__file__).parents[1]
TOOLS = Path(__file__).parent

#: Shares of the time; benchmarks take what is left.
COMPILING, TESTS, SANITIZER = 0.2, 0.35, 0.1
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
    "triton",
)
#: Seconds that a process is given to end after its last case began, and that are kept for writing results.
GRACE, RESERVE = 10, 5
#: Seconds of a process of benchmarks: a call that hangs costs the others no more.
MOST = 80
NO_COMPILER = """a kernel cannot be compiled here, so nothing can run:
{}
Numba needs libnvvm, and cuda.core needs libnvJitLink: pip install "cuda-toolkit[nvvm,nvjitlink]", or a CUDA toolkit
in /usr/local/cuda or where CUDA_HOME says."""


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
    """Run it all; the exit status says whether something failed (1) or it cannot run here (2)."""
    options = parse(arguments)
    start, seconds = time.monotonic(), 60 * options.minutes
    os.environ.update(gpu_parts.environment())
    missing = import_module("numbanorm.backends.cuda").availability()
    if missing:
        print(f"gpu_check needs a CUDA device: {missing}", file=sys.stderr)
        return 2
    report: dict[str, Any] = {"facts": facts(), "tests": [], "benchmarks": [], "left out": []}
    compiling = gpu_parts.run_part("a first kernel", compile_command(report["facts"], "--most", "1"), 60)
    if compiling["failed"]:
        print(NO_COMPILER.format("\n".join(compiling["output"])), file=sys.stderr)
        return 2
    compiling = {"kernels": compile_command(report["facts"])}
    report["tests"] += gpu_parts.run_parts(compiling, seconds * COMPILING)
    if options.only != "benchmarks":
        report["tests"] += gpu_parts.run_parts(gpu_parts.test_commands(), seconds * TESTS)
        write(report, options.folder)
        report["tests"] += gpu_parts.run_parts(gpu_parts.sanitizer_commands(), seconds * SANITIZER)
        write(report, options.folder)
    if options.only != "tests":
        benchmark(report, start + seconds, options)
    for path in write(report, options.folder):
        print(f"wrote {path}")
    return int(failed(report))


def failed(report: dict[str, Any]) -> bool:
    """Whether a part did not pass, or numbanorm did not do a case, or not rightly."""
    rows = report["benchmarks"]
    wrong = any("problem" in row or "problem" in row["libraries"].get("numbanorm", {}) for row in rows)
    return wrong or any(part["failed"] for part in report["tests"])


def compile_command(found: dict[str, str], *more: str) -> list[str]:
    """For this device's compute capability."""
    return [sys.executable, str(TOOLS / "gpu_kernels.py"), *found["compute capability"].split("."), *more]


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
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "CUDA of the driver": f"{driver // 1000}.{driver % 1000 // 10}",
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
        "python": sys.version.split()[0],
        "compute-sanitizer": "here" if gpu_parts.sanitizer_commands() else "not here, so not run",
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


def benchmark(report: dict[str, Any], deadline: float, options: argparse.Namespace) -> None:
    """Every operation; then, while there is time, compiled by torch, which takes seconds a case."""
    deadline -= RESERVE
    rows, part = bench_rows(["--copy"], deadline - time.monotonic())
    if not rows:
        report["tests"].append(part)
        return
    report["copy GB/s"] = rows[0]["copy GB/s"]
    print(f"copy: {report['copy GB/s']:.0f} GB/s")
    least = {case.name: case.least_bytes for case in cases()}
    by_case: dict[str, dict[str, Any]] = {}
    for compiled in (False, True) if find_spec("torch") else (False,):
        for operation, _ in TABLE:
            for row in rows_of(operation.name, compiled, report, deadline, options.match):
                for found in row["libraries"].values():
                    if "us" in found:
                        found.update(rates(least[row["case"]], found["us"], report["copy GB/s"]))
                if row["case"] in by_case:
                    by_case[row["case"]]["libraries"].update(row["libraries"])
                else:
                    by_case[row["case"]] = row
            report["benchmarks"] = list(by_case.values())
            write(report, options.folder)


def rows_of(name: str, compiled: bool, report: dict[str, Any], deadline: float, match: str) -> list[dict[str, Any]]:
    """An operation's rows. Where a process ended early, the next one goes on after the case that ended it."""
    wanted = chosen(name, match)
    found: list[dict[str, Any]] = []
    more = ["--operation", name, "--match", match, *(["--compiled"] if compiled else [])]
    while len(found) < len(wanted) and deadline - time.monotonic() > 2 * GRACE:
        seconds = min(deadline - time.monotonic(), MOST)
        rows, part = bench_rows([*more, "--skip", str(len(found))], seconds)
        found += rows
        if part["failed"] and part["status"] != LOST and len(found) < len(wanted):
            problem = {"problem": f"{part['state']}: {part['result']}"[:300]}
            row = {"case": wanted[len(found)].name, "libraries": {}}
            found.append({**row, "libraries": {"torch.compile": problem}} if compiled else {**row, **problem})
    kind = "torch.compile of " if compiled else ""
    report["left out"] += [kind + case.name for case in wanted[len(found) :]]
    print(f"{kind}{name}: {len(found)} of {len(wanted)} cases", flush=True)
    return found


def bench_rows(arguments: list[str], seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a process of benchmarks wrote, whole or not, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        command = [sys.executable, str(TOOLS / "gpu_bench.py"), str(path), "--seconds", f"{seconds - GRACE:.1f}"]
        part = gpu_parts.run_part("benchmarks", [*command, *arguments], seconds)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")], part


if __name__ == "__main__":
    sys.exit(main())
