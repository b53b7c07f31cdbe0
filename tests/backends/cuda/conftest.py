"""Fixtures of the tests that run CUDA kernels without a device; without the packages there are none."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if not all(map(find_spec, ("numba_cuda", "cupy", "greenlet"))):
    collect_ignore_glob = ["test_*.py"]


def _simulated(monkeypatch, order):
    import cupy

    from tests.backends.cuda.simulator import Simulator

    yield Simulator(order).install(monkeypatch)
    cupy.cuda.set_allocator(None)


@pytest.fixture
def simulator(monkeypatch):
    """Launchers take CuPy arrays over host memory; kernels run thread by thread."""
    yield from _simulated(monkeypatch, "forward")


@pytest.fixture(params=["forward", "reverse", "random:1"])
def every_order(request, monkeypatch):
    """The same, once for each order of threads and blocks."""
    yield from _simulated(monkeypatch, request.param)
