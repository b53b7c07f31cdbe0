"""What a process pays once: the import, and the first call of each operation.

Every measurement is made in a fresh interpreter, by the interpreter's own clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .cases import OPERATIONS
from .common import SMOKE, rounded

_IMPORT = """
import time
start = time.perf_counter()
import numbanorm
print(time.perf_counter() - start)
"""

_FIRST_CALL = """
import sys, time
from benchmarks.cases import OPERATIONS
operation = OPERATIONS[sys.argv[1]]
call = operation.call("numbanorm", operation.data(tuple(map(int, sys.argv[2:]))))
start = time.perf_counter()
call()
print(time.perf_counter() - start)
"""

#: Few numbers take the serial kernels; more take the parallel ones, which compile longer.
_SHAPES = {
    "serial": {"rows": (4, 64), "columns": (64, 4), "images": (2, 16, 8, 8), "channels_last": (2, 16, 8, 8)},
    "parallel": {
        "rows": (512, 768),
        "columns": (768, 512),
        "images": (8, 64, 28, 28),
        "channels_last": (8, 64, 28, 28),
    },
}


def _seconds(code: str, *arguments: str, **environment: str) -> float:
    """What a fresh interpreter prints at the end of `code`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    command = [sys.executable, "-c", code, *arguments]
    return rounded(float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout))


class Import:
    """`import numbanorm`, NumPy included."""

    def track_import(self) -> float:
        return min(_seconds(_IMPORT) for _ in range(2 if SMOKE else 10))

    track_import.unit = "s"


class FirstCall:
    """The first call of an operation after the import: Numba's import, then loading or compiling kernels."""

    params = (["layer_norm"] if SMOKE else list(OPERATIONS), ["serial"] if SMOKE else list(_SHAPES))
    param_names = ("operation", "kernels")
    timeout = 300

    def setup(self, name: str, kernels: str) -> None:
        self.arguments = (name, *map(str, _SHAPES[kernels][OPERATIONS[name].layout]))

    def track_empty_cache(self, *_: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return _seconds(_FIRST_CALL, *self.arguments, NUMBA_CACHE_DIR=folder)

    def track_warm_cache(self, *_: str) -> float:
        # The best of several, as the first may have had to fill the cache.
        return min(_seconds(_FIRST_CALL, *self.arguments) for _ in range(2 if SMOKE else 5))

    track_empty_cache.unit = "s"
    track_warm_cache.unit = "s"
