"""Fixtures of all tests. Outputs are poisoned, and compiled kernels can never be stale."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Numba's cache looks at the file of a kernel, not at the files of what it calls. A folder named
# after the whole source keeps an edited helper from meeting an old kernel. Set before numba loads.
_SOURCE = Path(__file__).parents[1] / "numbanorm"
_HASH = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_SOURCE.rglob("*.py"))))
_USER = os.getuid() if hasattr(os, "getuid") else 0
_FOLDER = f"numbanorm-kernels-{_USER}-{_HASH.hexdigest()[:16]}"
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir(), _FOLDER)))

JIT_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "1"

hypothesis.settings.register_profile(
    "numbanorm", deadline=None, max_examples=15 if JIT_DISABLED else 60, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("numbanorm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With the JIT off, skip what is about compiled code or would take minutes."""
    if JIT_DISABLED:
        skip = pytest.mark.skip(reason="needs compiled kernels")
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _poisoned_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill every output with NaN before a kernel sees it: what is not written shows."""
    from numbanorm import _engine, _engine_backward

    allocate = _engine.empty

    def poisoned(*args, **kwargs):
        array = allocate(*args, **kwargs)
        if isinstance(array, np.ndarray):  # others come from a poisoned allocator
            array[...] = np.nan
        return array

    monkeypatch.setattr(_engine, "empty", poisoned)
    of_parameters = _engine_backward.empty_parameter

    def poisoned_parameter(*args):
        array = of_parameters(*args)
        if isinstance(array, np.ndarray):
            array[...] = np.nan
        return array

    monkeypatch.setattr(_engine_backward, "empty_parameter", poisoned_parameter)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh random numbers for every test, the same on every run of it."""
    seed = int.from_bytes(hashlib.sha256(request.node.nodeid.encode()).digest()[:4], "little")
    return np.random.default_rng(seed)


# With NUMBANORM_TEST_DEVICE=cuda, on a machine with a device, tests of NumPy arrays run there too.
BACKENDS = ["cpu", "reference", *(["cuda"] if os.environ.get("NUMBANORM_TEST_DEVICE") == "cuda" else [])]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest):
    """Run the test on each backend."""
    import numbanorm as nn

    with nn.use_backend(request.param):
        yield request.param
