"""The place of the CUDA backend. This release has no CUDA kernels.

:func:`availability` looks at the machine in the order in which things fail (device
driver, Python packages, device), so that its message names the first thing to mend.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec

name = "cuda"

_PACKAGES = {"numba_cuda": "numba-cuda", "cuda.core": "cuda-core", "cupy": "cupy-cuda13x"}
_INSTALL = 'pip install "numbanorm[cuda13]"'


def _missing_packages() -> list[str]:
    missing = []
    for module, package in _PACKAGES.items():
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            missing.append(package)
    return missing


def _driver_problem() -> str | None:
    """What keeps the driver from naming a device, or None."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"the NVIDIA driver is missing ({library} was not found): install it from your system's packages"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the driver is there, but shows no CUDA device: see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def availability() -> str | None:
    """None if CUDA kernels can run here, else what is missing and what to do."""
    problems = []
    driver = _driver_problem()
    if driver:
        problems.append(driver)
    packages = _missing_packages()
    if packages:
        problems.append(f"Python packages are missing ({', '.join(packages)}): {_INSTALL}")
    if not problems:
        problems.append("this release of numbanorm has no CUDA kernels: move the array to the host")
    return "the cuda backend cannot run: " + "; ".join(problems)
