"""The place of the tests of device arrays; without CuPy there is none."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

REAL = os.environ.get("NUMBANORM_TEST_DEVICE", "") == "cuda"

if not find_spec("cupy"):
    collect_ignore_glob = ["*.py"]


def hosted(monkeypatch):
    """CuPy's arrays lie in host memory."""
    import cupy

    from numbanorm import _arrays
    from tests.backends.cuda import host_arrays
    from tests.device.places import HostedDevice

    device = HostedDevice()
    monkeypatch.setattr(_arrays, "device", lambda: device)
    cupy.cuda.set_allocator(host_arrays.allocate)
    return device


@pytest.fixture
def place(monkeypatch):
    """Device arrays, and a cuda backend that takes them."""
    from numbanorm import _arrays, _backend
    from tests.device.places import Place

    monkeypatch.delenv("NUMBANORM_BACKEND", raising=False)
    if REAL:
        yield Place("cuda", _arrays.device())
        return
    import cupy

    device = hosted(monkeypatch)
    monkeypatch.setitem(_backend._BACKENDS, "cuda", "tests.device.stand_in")
    _backend.load_backend.cache_clear()
    yield Place("stand-in", device)
    _backend.load_backend.cache_clear()
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


@pytest.fixture
def emulated(monkeypatch):
    """The real launchers, their kernels thread by thread."""
    pytest.importorskip("greenlet")
    pytest.importorskip("numba_cuda")
    import cupy

    from numbanorm import _backend
    from numbanorm.backends import cuda
    from tests.backends.cuda.simulator import Simulator
    from tests.device.places import Place

    monkeypatch.delenv("NUMBANORM_BACKEND", raising=False)
    device = hosted(monkeypatch)
    Simulator().install(monkeypatch)
    monkeypatch.setattr(cuda, "availability", lambda: None)
    _backend.load_backend.cache_clear()
    yield Place("emulated", device)
    _backend.load_backend.cache_clear()
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


@pytest.fixture
def launching(request):
    """Where kernels of the cuda backend are run: a real device, or thread by thread."""
    return request.getfixturevalue("place" if REAL else "emulated")
