"""What would run here, and why."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from typing import Any

from numbanorm import _arrays
from numbanorm._backend import _BACKENDS, available_backends, load_backend, selected
from numbanorm._pool import pool


def _installed(package: str) -> str:
    # Imported here because it takes as long as the rest of `import numbanorm`.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _reason() -> str:
    name, source = selected()
    if name == "auto":
        return "auto: host arrays run on the cpu backend, device arrays on cuda"
    return f"selected by {source}"


def _state(name: str) -> str:
    """The name of the backend that host arrays run on; with the reason if it cannot run."""
    try:
        return str(load_backend("cpu" if name == "auto" else name).name)
    except RuntimeError as missing:
        return f"{name}, which cannot run here: {missing}"


def _describe() -> dict[str, Any]:
    import numba

    jit = import_module("numbanorm.backends.cpu._jit")
    missing = {other: import_module(path).availability() for other, path in _BACKENDS.items()}
    packages = (
        "numbanorm",
        "numpy",
        "numba",
        "llvmlite",
        "tbb",
        "ml_dtypes",
        "numba-cuda",
        "cuda-core",
        "cupy-cuda13x",
    )
    available = list(available_backends())
    return {
        "versions": {"python": platform.python_version(), **{package: _installed(package) for package in packages}},
        "backend": _state(selected()[0]),
        "why": _reason(),
        "available": available,
        "unavailable": {other: reason for other, reason in missing.items() if reason},
        "threading layer": jit.start_threads(),
        "threads": numba.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        **({"devices": _arrays.device().names()} if "cuda" in available else {}),
        "kernel cache": jit.cache_folder(),
        "memory kept for results": f"{pool().held / 2**20:.0f} MiB of at most {pool().limit / 2**20:.0f} MiB",
    }


def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Print versions, the backend and why it was chosen, threads and the kernel cache.

    Parameters
    ----------
    mode : {"print", "dict"}
        "dict" returns the facts instead of printing them.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.show_config("dict")["backend"]
    'cpu'
    """
    if mode not in ("print", "dict"):
        raise ValueError(f"mode must be 'print' or 'dict', but got {mode!r}")
    facts = _describe()
    if mode == "dict":
        return facts
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, fact in value.items():
                print(f"  {name}: {fact}")
        else:
            print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return None
