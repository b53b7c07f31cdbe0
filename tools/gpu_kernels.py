"""Compile kernels ahead, in many processes: what one process would do between launches takes minutes.

``python tools/gpu_kernels.py 9 0`` fills the cache folder for compute capability 9.0; no device is needed.
Those of the benchmarks come first, in case time is short.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PROCESSES = 16
#: In the order in which they are wanted; the benchmarks are in the first two.
KINDS = ("float32", "bfloat16", "float64", "float16")


@cache
def kernels() -> list[Any]:
    """Every kernel that plans choose, as the tests of compilation list them."""
    from numbanorm.backends.cuda._affine_kernels import prepare
    from tests.backends.cuda import test_compile_backward as backward
    from tests.backends.cuda import test_compile_moments as moments
    from tests.backends.cuda import test_compile_norms as norms

    found = [*(kernel for kind in KINDS[:2] for kernel in moments.some(kind)), *moments.OTHERS]
    found += [prepare("float32", "float32", "float32"), prepare("float64", "float64", "float64")]
    of_norms = [make(*arguments) for make, arguments, *_ in (*norms.kernels(), *backward.kernels())]
    for kind in KINDS:
        found += [kernel for kernel in of_norms if kind in kernel.name]
        found += moments.every(kind)
    return list({kernel.name: kernel for kernel in found}.values())


def compile_one(index: int, cc: tuple[int, int]) -> str:
    """Compile a kernel, unless its machine code is there; what went wrong, or nothing."""
    from numbanorm.backends.cuda import _cubins

    kernel = kernels()[index]
    device = SimpleNamespace(compute_capability=cc)  # which Numba asks for: with it, processes need no context
    try:
        with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
            _cubins.get(kernel.name, cc, lambda: kernel.ptx(cc))
    except Exception as problem:
        return f"{kernel.name}: {type(problem).__name__}: {problem}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile them all, or as many as are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cc", type=int, nargs=2, help="compute capability")
    parser.add_argument("--most", type=int, help="only so many")
    parser.add_argument("--processes", type=int, default=min(PROCESSES, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    cc = (options.cc[0], options.cc[1])
    indices = range(len(kernels()[: options.most]))
    if len(indices) == 1:
        problems = [compile_one(0, cc)]
    else:
        # Forked processes would inherit what compilers keep in threads.
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            problems = list(pool.map(compile_one, indices, [cc] * len(indices)))
    problems = [problem for problem in problems if problem]
    print(*problems, f"{len(indices) - len(problems)} of {len(indices)} kernels are compiled", sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
