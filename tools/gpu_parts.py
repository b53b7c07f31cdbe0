"""The parts of ``gpu_check.py`` that are processes of their own: an error of the device ends one part only."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = Path(__file__).parent
#: A toolkit is here where it is installed as NVIDIA says.
TOOLKIT = Path("/usr/local/cuda")
#: Processes of a test file, by pytest-xdist, and files at once, with it and without.
WORKERS, FILES_AT_ONCE, FILES_ALONE = 8, 2, 8
#: Pool memory hides what lies beyond an array's end.
WITHOUT_POOL = (
    "import sys, cupy, pytest; cupy.cuda.set_allocator(None); cupy.cuda.set_pinned_memory_allocator(None); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
#: A test that takes the fixture, directly or by its class.
USES_BACKEND = re.compile(r"def test\w*\([^)]*\bbackend\b|usefixtures\(\"backend\"\)")


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of all parts: this source, one folder of compiled kernels, and the toolkit."""
    found = dict(os.environ if given is None else given)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), found.get("PYTHONPATH", ""))))
    found["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    found["NUMBANORM_TEST_DEVICE"] = "cuda"
    found.pop("NUMBANORM_BACKEND", None)
    found.setdefault("NUMBA_CACHE_DIR", str(_cache_folder()))
    if not found.get("CUDA_HOME") and not found.get("CUDA_PATH") and TOOLKIT.is_dir():
        found["CUDA_HOME"] = str(TOOLKIT)
    return found


def _cache_folder() -> Path:
    """Named after the source, because Numba's own cache misses changes of what a kernel calls."""
    source = b"".join(path.read_bytes() for path in sorted((ROOT / "numbanorm").rglob("*.py")))
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir(), f"numbanorm-gpu-{user}-{hashlib.sha256(source).hexdigest()[:16]}")


def run_part(name: str, command: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run a command; `state` is passed, failed or out of time, and what is kept of its output are the last lines.

    It has a session of its own, so that out of time ends its children too.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(max(seconds, 0.01))
            state = "passed" if status == 0 else "failed"
        except subprocess.TimeoutExpired:
            status, state = -1, "out of time"
        finally:
            _end(process)
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()] or ["no output"]
    return {
        "name": name,
        "state": state,
        "failed": state != "passed",
        "status": status,
        "result": _result(lines, status if state == "failed" else 0),
        "seconds": time.monotonic() - start,
        "output": lines[-60:] if state != "passed" else [],
    }


def _result(lines: list[str], status: int) -> str:
    """The last line; and the signal that ended it, of which the last line says nothing."""
    last = lines[-1].strip(" =")
    return f"crashed, {signal.Signals(-status).name}: {last}" if status < 0 else last


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and its children."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def pytest_arguments() -> list[str]:
    """Of every run of pytest."""
    return ["-q", "-p", "no:cacheprovider", "--no-header", "--color=no"]


def test_commands() -> dict[str, list[str]]:
    """A command for each file of tests of device arrays, and of tests that take a backend."""
    pytest = [sys.executable, "-m", "pytest", *pytest_arguments()]
    if find_spec("xdist"):
        pytest += ["-p", "xdist", "-n", str(WORKERS)]
    of_device = sorted(path for path in (ROOT / "tests/device").glob("test_*.py") if path.stem != "test_emulated")
    files = {path: [] for path in of_device} | {path: ["-k", "cuda"] for path in suite_files()}
    return {str(path.relative_to(ROOT)): [*pytest, *more, str(path)] for path, more in files.items()}


def suite_files() -> list[Path]:
    """Files of the suite with tests that run once for each backend."""
    found = (
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.parent.name not in ("device", "backends")
    )
    return [path for path in found if USES_BACKEND.search(path.read_text(encoding="utf-8"))]


def sanitizer_commands() -> dict[str, list[str]]:
    """A few tests under compute-sanitizer, where it is."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(str(TOOLKIT / "bin" / "compute-sanitizer"))
    if not sanitizer:
        return {}
    few = [*pytest_arguments(), "tests/device/test_norms.py", "-k", "test_values_in_every_layout and float32"]
    python = [sys.executable, "-c", WITHOUT_POOL]
    return {
        f"compute-sanitizer, {tool}": [sanitizer, "--tool", tool, "--error-exitcode", "77", *python, *few]
        for tool in ("memcheck", "racecheck")
    }


def run_parts(commands: Mapping[str, Sequence[str]], seconds: float) -> list[dict[str, Any]]:
    """All parts, a few at a time, within the seconds; each says its result when it has one."""
    end = time.monotonic() + seconds

    def run(name: str) -> dict[str, Any]:
        part = run_part(name, commands[name], end - time.monotonic())
        print(f"{name}: {part['state']}, {part['result']} ({part['seconds']:.0f} s)", flush=True)
        return part

    at_once = FILES_AT_ONCE if find_spec("xdist") else FILES_ALONE
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(run, commands))
