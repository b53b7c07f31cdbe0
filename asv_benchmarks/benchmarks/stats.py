"""Mean and variance: time, error of the variance, memory."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from .cases import LIBRARIES, OPERATIONS, STATISTICS
from .common import SMOKE, Comparison, parameters, prepare_library, prepared


class _Statistics(Comparison):
    """`track_error` is the worst relative error of a variance at mean 1e4, std 1."""

    unit = "relative error"

    @staticmethod
    def error(result: Any, reference: np.ndarray) -> float:
        if isinstance(result, tuple):
            result, reference = result[1], reference[1]
        return float((np.abs(np.asarray(result, np.float64) - reference) / reference).max())


class Rows(_Statistics):
    params = parameters(STATISTICS, "rows")


class Columns(_Statistics):
    params = parameters(STATISTICS, "columns")


class Images(_Statistics):
    params = parameters(STATISTICS, "images")


class Memory:
    """mean_var of 1 GB of float32 numbers, or 16 MB in the smoke profile.

    `peakmem` is that of the process: interpreter, libraries and array included. The extra
    memory is what the call alone adds to it.
    """

    params = (["mean_var_all_axes", "mean_var_first_axis"], list(LIBRARIES))
    param_names = ("operation", "library")
    timeout = 300

    def setup(self, name: str, library: str) -> None:
        prepare_library(library)
        # Compilation and threads take memory once: outside the measurement, in arrays of
        # more than one part so that the parallel kernels are the ones that are loaded.
        prepared(name, (4096, 64), library)
        operation = OPERATIONS[name]
        self.call = operation.call(library, operation.data((4_000 if SMOKE else 250_000, 1000)))

    def peakmem_call(self, *_: Any) -> None:
        self.call()

    def track_extra_memory(self, *_: Any) -> float:
        before = _peak_memory()
        self.call()
        return _peak_memory() - before

    track_extra_memory.unit = "bytes"


def _peak_memory() -> float:
    """The largest resident memory that this process has had; the array above makes it the present one."""
    if sys.platform == "win32":
        return math.nan  # asv's "not available"
    from resource import RUSAGE_SELF, getrusage

    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
