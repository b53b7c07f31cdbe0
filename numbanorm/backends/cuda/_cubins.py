"""Machine code of kernels, and the folder in which it waits for the next process.

An entry's key covers every source file that a kernel is compiled from and the version of
every tool that compiles it, so an entry is never stale. Entries are written aside and
renamed, and checked when read: a damaged one is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Whose versions decide what is compiled, under the names that CUDA 13 and CUDA 12 give them.
_TOOLS = (
    "numba",
    "llvmlite",
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "nvidia-nvvm",
    "nvidia-nvjitlink",
    "nvidia-cuda-nvcc",
    "nvidia-cuda-nvcc-cu12",
    "nvidia-nvjitlink-cu12",
)


def link(ptx: str, cc: tuple[int, int]) -> bytes:
    """Assemble PTX by nvJitLink, which needs neither driver nor device."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(arch=f"sm_{cc[0]}{cc[1]}")
    return bytes(Program(ptx, "ptx", options).compile("cubin").code)


def entry_of(ptx: str) -> str:
    """The (mangled) name of the kernel in a PTX text."""
    found = re.search(r"\.visible \.entry (\w+)\(", ptx)
    assert found is not None
    return found[1]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@cache
def _source_key() -> str:
    """Everything but the kernel's name and the device that decides what is compiled."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), here.parents[1] / "_recurrences.py"]
    tools = [sys.version, os.environ.get("CUDA_HOME", ""), *map(_version, _TOOLS)]
    digest = hashlib.sha256("\0".join(tools).encode())
    for source in sources:
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def folder() -> Path:
    """Where entries lie: in ``NUMBA_CACHE_DIR`` or the user's cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen, "numbanorm-cuda")
    variable, otherwise = (
        ("LOCALAPPDATA", "~/AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", "~/.cache")
    )
    # A user without a home folder keeps the "~", which cannot be written to below, or is a folder like another.
    return Path(os.environ.get(variable) or os.path.expanduser(otherwise), "numbanorm", "cuda")


def _path(name: str, cc: tuple[int, ...]) -> Path:
    key = hashlib.sha256(repr((_source_key(), name, cc)).encode()).hexdigest()
    return folder() / f"{key[:40]}.cubin"


def _read(path: Path) -> tuple[str, bytes] | None:
    """An entry (digest, name, machine code), or None where there is none that is whole."""
    try:
        digest, body = path.read_bytes().split(b"\n", 1)
        entry, cubin = body.split(b"\n", 1)
    except (OSError, ValueError):
        return None
    whole = hashlib.sha256(body).hexdigest().encode() == digest
    return (entry.decode(), cubin) if whole else None


def _write(path: Path, entry: str, cubin: bytes) -> None:
    """Write aside, then rename; a folder that cannot be written to is no error."""
    body = entry.encode() + b"\n" + cubin
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            os.replace(aside, path)
        except OSError:
            os.unlink(aside)
            raise


def get(name: str, cc: tuple[int, int], compile_ptx: Callable[[], str]) -> tuple[str, bytes]:
    """Entry point and machine code of the kernel `name`, compiled only if no entry is there."""
    path = _path(name, cc)
    found = _read(path)
    if found is None:
        ptx = compile_ptx()
        found = entry_of(ptx), link(ptx, cc)
        _write(path, *found)
    return found
