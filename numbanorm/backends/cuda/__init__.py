"""CUDA kernels written in Python for CuPy's arrays. See :mod:`numbanorm.backends` for the contract.

Importing this package costs nothing: the launchers, and with them Numba's CUDA, CuPy and
cuda.core, are imported when the first of them is asked for.

:func:`availability` looks at the machine in the order in which things fail (device
driver, Python packages, device), so that its message names the first thing to mend.
"""

from __future__ import annotations

import ctypes
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

name = "cuda"

_PACKAGES = {"numba_cuda": "numba-cuda", "cuda.core": "cuda-core", "cupy": "cupy-cuda13x"}
_INSTALL = 'pip install "numbanorm[cuda13]"'

_HOMES = {
    "affine": ("affine_cols", "affine_rows"),
    "response": ("local_response", "local_response_backward"),
    "moments": (
        "combine_moments",
        "finish_moments",
        "mean_var_channels",
        "mean_var_cols",
        "mean_var_rows",
        "moments_cols",
        "moments_rows",
        "update_running",
    ),
    "normalize": ("norm_channels", "norm_groups", "norm_rows"),
    "normalize_backward": ("norm_channels_backward", "norm_groups_backward", "norm_rows_backward"),
}
_HOME_OF = {launcher: home for home, launchers in _HOMES.items() for launcher in launchers}

__all__ = ["availability", "name", *_HOME_OF]


def __getattr__(attribute: str) -> Any:
    """A launcher, at its first use."""
    if attribute not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    launcher = getattr(import_module(f"{__name__}.{_HOME_OF[attribute]}"), attribute)
    globals()[attribute] = launcher
    return launcher


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
    return "the cuda backend cannot run: " + "; ".join(problems) if problems else None
