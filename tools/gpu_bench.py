"""The benchmarks of one operation, in a process of its own, which ``gpu_check.py`` starts.

A row for each case, as a line of JSON in the file that it is told, as soon as it is there.
Times are medians of CUDA events with the L2 flushed before each call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from gpu_cases import Case, Operands, cases

#: 200 microseconds or more of an H200's memory: longer than a host takes to queue a call.
FLUSH_BYTES = 1 << 30
#: Numbers that are made; odd, so that rows and channels differ.
NOISE = (1 << 20) + 7
#: A result further from torch's than this is wrong, and gets no time.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
#: Exit status when the device took no more work after an error.
LOST = 3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Which cases, and for how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="file that rows are added to")
    parser.add_argument("--copy", action="store_true", help="measure a copy only")
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile only")
    parser.add_argument("--operation", default="")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--skip", type=int, default=0, help="as many cases are there already")
    parser.add_argument("--seconds", type=float, default=60.0, help="no case begins after that")
    return parser.parse_args(arguments)


def chosen(operation: str, match: str) -> list[Case]:
    """The cases of an operation."""
    return [case for case in cases() if case.operation.name == operation and match in case.name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write each row at once."""
    options = parse(arguments)
    end = time.monotonic() + options.seconds
    benchmarks = Benchmarks()
    with options.rows.open("a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=file, flush=True)

        if options.copy:
            write({"copy GB/s": benchmarks.copy_bandwidth()})
            return 0
        for case in chosen(options.operation, options.match)[options.skip :]:
            if time.monotonic() > end:
                break
            write(benchmarks.compiled_row(case) if options.compiled else benchmarks.row(case))
            if benchmarks.is_lost():
                return LOST
    return 0


class Benchmarks:
    """What times cases in each library."""

    def __init__(self) -> None:
        self.modules = {name: _module(name) for name in ("numbanorm", "cupy", "torch")}
        self.cupy = self.modules["cupy"]
        self.flush = self.cupy.empty(FLUSH_BYTES, "u1")
        noise = np.random.default_rng(0).standard_normal(NOISE, np.float32) * np.float32(2) + np.float32(1)
        halves = noise.astype(import_module("ml_dtypes").bfloat16).view(np.uint16)
        self.noise = {"float32": self.cupy.asarray(noise), "bfloat16": self.cupy.asarray(halves)}

    def is_lost(self) -> bool:
        """Whether an error stays with the device, so that nothing runs in this process any more."""
        try:
            self.cupy.cuda.get_current_stream().synchronize()
        except Exception:
            return True
        return False

    def row(self, case: Case) -> dict[str, Any]:
        """A case in every library but torch.compile; no times where results differ."""
        row: dict[str, Any] = {"case": case.name, "libraries": {}}
        if self.is_right(row, case):
            for library in ("numbanorm", "torch", "cupy"):
                self._measure(row, case, library)
        return row

    def compiled_row(self, case: Case) -> dict[str, Any]:
        """A case compiled by torch, which takes seconds."""
        row: dict[str, Any] = {"case": case.name, "libraries": {}}
        self._measure(row, case, "torch.compile")
        return row

    def is_right(self, row: dict[str, Any], case: Case) -> bool:
        """Whether numbanorm agrees with torch, where there is torch to ask."""
        if self.modules["torch"] is None:
            return True
        try:
            row["difference from torch"] = self._difference(case)
        except Exception as problem:
            row["problem"] = f"{type(problem).__name__}: {problem}"[:300]
            return False
        # Not a comparison the other way round: NaN is wrong.
        if row["difference from torch"] <= TOLERANCE[case.dtype]:
            return True
        row["problem"] = f"differs from torch by {row['difference from torch']:.3g}"
        return False

    def _measure(self, row: dict[str, Any], case: Case, library: str) -> None:
        """One library's time of a case, or why there is none."""
        base = library.partition(".")[0]
        module, function = self.modules[base], getattr(case.operation, base)
        if module is None or function is None or (library == "torch.compile" and case.operation.backward):
            return
        try:
            operands = self._operands(case)
            if base == "torch":
                operands = _in_torch(operands)
            call = lambda: function(module, operands)  # noqa: E731
            if library == "torch.compile":
                # Else torch compiles for any shape from the second one on, and gives up after a few.
                module._dynamo.reset()
                compiled = module.compile(lambda o: function(module, o), dynamic=False, fullgraph=True)
                call = lambda: compiled(operands)  # noqa: E731
            microseconds, host = self._time(call)
        except Exception as problem:
            row["libraries"][library] = {"problem": f"{type(problem).__name__}: {problem}"[:300]}
            return
        row["libraries"][library] = {"us": round(microseconds, 2), "host us": round(host, 2)}

    def _operands(self, case: Case) -> Operands:
        """The same noise, mean 1 and std 2, repeated; made on the host so that CuPy need not compile for it."""
        n = prod(case.shape)
        x = self.cupy.tile(self.noise[case.dtype], -(-n // NOISE))[:n].reshape(case.shape)
        if case.dtype == "bfloat16":
            x = x.view(import_module("ml_dtypes").bfloat16)
        dy = None
        if case.operation.backward:
            # The same noise from another number on.
            dy = self.cupy.tile(self.noise[case.dtype], -(-(n + 5) // NOISE))[5 : n + 5].copy().reshape(case.shape)
            dy = dy.view(x.dtype) if case.dtype == "bfloat16" else dy
        values = (np.full(case.channels, value, np.float32) for value in (1.5, 0.25, 1.0, 4.0))
        return Operands(x, *map(self.cupy.asarray, values), dy)

    def _difference(self, case: Case) -> float:
        """Largest difference of numbanorm's result from torch's."""
        torch, operands = self.modules["torch"], self._operands(case)
        ours = case.operation.numbanorm(self.modules["numbanorm"], operands)
        theirs = case.operation.torch(torch, _in_torch(self._operands(case)))
        if isinstance(ours, tuple):
            ours, theirs = ours[1], theirs[1]  # variances
        return float((_as_torch(ours).float() - theirs.float()).abs().max())

    def _time(self, call: Callable[[], Any]) -> tuple[float, float]:
        """Median microseconds on the device from a cold L2, and the host's microseconds a call."""
        # Meanwhile the device is busy until the call is queued: the host's time is not in the device's.
        cuda = self.cupy.cuda
        for _ in range(3):
            call()
        cuda.get_current_stream().synchronize()
        n = 20
        events = [(cuda.Event(), cuda.Event()) for _ in range(n)]
        for start, stop in events:
            self.flush.data.memset_async(0, FLUSH_BYTES)
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

    def copy_bandwidth(self) -> float:
        """GB/s of a device-to-device copy of 1 GiB, bytes read and written."""
        source, target = (self.cupy.zeros(1 << 30, "u1") for _ in range(2))
        call = lambda: target.data.copy_from_device_async(source.data, source.nbytes)  # noqa: E731
        return 2 * source.nbytes / self._time(call)[0] / 1e3


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _in_torch(operands: Operands) -> Operands:
    """The same memory; what is not there is last."""
    return Operands(*(_as_torch(array) for array in operands if array is not None))


def _as_torch(array: Any) -> Any:
    """A CuPy array's memory as a tensor."""
    torch = import_module("torch")
    if array.dtype.name == "bfloat16":
        return torch.from_dlpack(array.view("i2")).view(torch.bfloat16)
    return torch.from_dlpack(array)


if __name__ == "__main__":
    sys.exit(main())
