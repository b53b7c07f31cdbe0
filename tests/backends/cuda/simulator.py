"""Launches of kernels that run thread by thread instead, on CuPy arrays over host memory."""

from __future__ import annotations

from functools import partial

import cupy as cp
import numpy as np

from numbanorm import _recorder
from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._launch_norms import LARGEST_SHARED
from tests.backends.cuda import host_arrays, simt


class Simulator:
    """Stands in for a device; `launches` says which kernels ran, `order` in what order threads do."""

    def __init__(self, order="forward"):
        self.order = order
        self.launches = []
        self.tickets = host_arrays.array(np.zeros(_jit.N_TICKETS, np.uint32))

    def run(self, kernel, grid, *args, shared=0, threads=0):
        """What `_jit.run` does."""
        _recorder.launched(partial(self.run, kernel, grid, shared=shared, threads=threads), *args, by="")
        self.launches.append((kernel, grid, shared))
        assert len(args) == len(kernel.signature.args), kernel
        assert threads <= kernel.threads
        memory = [host_arrays.as_numpy(arg).reshape(-1) if isinstance(arg, cp.ndarray) else arg for arg in args]
        simt.launch(kernel.function, grid, threads or kernel.threads, *memory, shared=shared, order=self.order)

    def workspace(self, n_reals, kind="float32"):
        """Fresh NaN scratch for each call; the tickets stay, as a kernel must leave them at zero."""
        assert not host_arrays.as_numpy(self.tickets).any()
        return self.tickets, host_arrays.empty((n_reals,), kind)

    def install(self, monkeypatch):
        """Take the device's place."""
        cp.cuda.set_allocator(host_arrays.allocate)
        monkeypatch.setattr(_jit, "run", self.run)
        monkeypatch.setattr(_jit, "workspace", self.workspace)
        monkeypatch.setattr(_jit, "shared_limit", lambda: LARGEST_SHARED)
        return self
