"""Compiling once, launching cheaply: with a stand-in for the driver's few calls."""

import os
import threading
import timeit
from types import SimpleNamespace

import cupy as cp
import numpy as np
import pytest

from numbanorm.backends.cuda import _cubins, _jit, moments
from tests.backends.cuda import compile_checks, host_arrays
from tests.backends.cuda.test_intrinsics import copies


def test_makers_are_cached_and_named():
    assert copies("float32", True) is copies("float32", True)
    assert copies("float32", True).name == "test_intrinsics.copies(float32, True)"
    assert copies("float16", True).name != copies("float32", True).name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / "numbanorm-cuda"


PTX = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry nothing()\n{ ret; }\n"


def test_machine_code_is_kept(folder):
    calls = []

    def compile_ptx():
        calls.append(1)
        return PTX

    entry, cubin = _cubins.get("nothing", (8, 0), compile_ptx)
    assert entry == "nothing"
    assert cubin[:4] == b"\x7fELF"
    assert _cubins.get("nothing", (8, 0), compile_ptx) == (entry, cubin)
    assert len(calls) == 1
    _cubins.get("nothing", (9, 0), compile_ptx)
    assert len(calls) == 2
    assert len(os.listdir(folder)) == 2


@pytest.mark.parametrize("damage", [b"", b"abc", b"0\nnothing\nELF"])
def test_damaged_entries_are_made_again(folder, damage):
    whole = _cubins.get("nothing", (8, 0), lambda: PTX)
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    assert _cubins.get("nothing", (8, 0), lambda: PTX) == whole
    assert path.read_bytes() != damage


def test_a_folder_that_cannot_be_written_to_is_no_error(folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    assert _cubins.get("nothing", (8, 0), lambda: PTX)[0] == "nothing"


@pytest.fixture
def driver(monkeypatch):
    """Just enough of a device for a launch that does nothing."""
    stream = SimpleNamespace(ptr=7, is_capturing=lambda: False)
    launches = []
    monkeypatch.setattr(cp.cuda.runtime, "getDevice", lambda: 0)
    monkeypatch.setattr(cp.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(cp, "zeros", lambda n, dtype: host_arrays.array(np.zeros(n, dtype)))
    monkeypatch.setattr(_jit, "launch", lambda *args: launches.append(args))
    monkeypatch.setattr(_jit.Kernel, "load", lambda self, ordinal: self.loaded.setdefault(ordinal, self.name))
    monkeypatch.setattr(_jit, "_workspaces", {})
    monkeypatch.setattr(_jit, "_retired", [])
    monkeypatch.setattr(_jit, "_stream", lambda handle: handle)
    bound = []
    monkeypatch.setattr(cp.cuda, "Device", lambda ordinal: SimpleNamespace(use=lambda: bound.append(ordinal)))
    monkeypatch.setattr(_jit._thread, "ready", False)
    cp.cuda.set_allocator(host_arrays.allocate)
    yield SimpleNamespace(stream=stream, launches=launches, bound=bound)
    cp.cuda.set_allocator(None)


def test_a_launch(driver):
    kernel = copies("float32", True)
    kernel.loaded.clear()
    x = host_arrays.array(np.zeros(64, np.float32))
    _jit.run(kernel, 2, x, x, np.int64(64))
    ((stream, config, loaded, *values),) = driver.launches
    assert (stream, loaded) == (7, kernel.name)
    assert (config.grid, config.block, config.shmem_size) == ((2, 1, 1), (32, 1, 1), 0)
    assert values == [x.data.ptr, x.data.ptr, 64]
    kernel.loaded.clear()


def test_workspaces_belong_to_streams(driver):
    tickets, scratch = _jit.workspace(10)
    assert not host_arrays.as_numpy(tickets).any()
    assert scratch.dtype == np.float32
    assert _jit.workspace(scratch.size)[1] is scratch
    larger = _jit.workspace(scratch.size + 1)[1]
    assert larger.size >= 2 * scratch.size
    assert len(_jit._retired) == 1
    driver.stream.ptr = 8
    assert _jit.workspace(10)[1] is not larger


def test_workspaces_belong_to_threads(driver):
    """The two launches of a call may have those of another thread between them."""
    mine, others = _jit.workspace(10), []
    thread = threading.Thread(target=lambda: others.append(_jit.workspace(10)))
    thread.start()
    thread.join()
    assert others[0][0] is not mine[0]
    assert others[0][1] is not mine[1]
    assert _jit.workspace(10) is mine


def test_every_thread_has_a_context_before_its_first_launch(driver):
    kernel = copies("float32", True)
    kernel.loaded.clear()
    x = host_arrays.array(np.zeros(64, np.float32))

    def launch_twice():
        for _ in range(2):
            _jit.run(kernel, 2, x, x, np.int64(64))

    launch_twice()
    assert driver.bound == [0]
    thread = threading.Thread(target=launch_twice)
    thread.start()
    thread.join()
    assert driver.bound == [0, 0]
    kernel.loaded.clear()


@pytest.mark.parametrize("handle", [2, 7])
def test_a_workspace_that_a_graph_zeroes_serves_nothing_else(driver, handle):
    driver.stream.ptr = handle
    eager = _jit.workspace(10)
    driver.stream.is_capturing = lambda: True
    captured = _jit.workspace(10)
    assert captured[0] is not eager[0]
    assert captured[1] is not eager[1]
    assert _jit.workspace(10)[0] is not captured[0]
    driver.stream.is_capturing = lambda: False
    assert _jit.workspace(10) is eager


def test_old_devices_are_told_that_16_bits_are_too_new(monkeypatch):
    monkeypatch.setattr(_jit, "Device", lambda ordinal: SimpleNamespace(compute_capability=(7, 5)))
    with pytest.raises(RuntimeError, match=r"need compute capability 8\.0 or more, but device 0 has 7\.5"):
        copies("float16", True).load(0)


def test_what_runs_is_what_is_checked(monkeypatch):
    asked = []
    monkeypatch.setattr(_jit, "Device", lambda ordinal: SimpleNamespace(compute_capability=(9, 0)))
    monkeypatch.setattr(_jit.Kernel, "ptx", lambda self, cc: asked.append(cc))
    monkeypatch.setattr(_cubins, "get", lambda name, cc, compile_ptx: (compile_ptx(), cc))
    kernel = SimpleNamespace(get_kernel=lambda entry: "loaded")
    monkeypatch.setattr(_jit, "ObjectCode", SimpleNamespace(from_cubin=lambda cubin: kernel))
    made = copies("float32", True)
    assert made.load(0) == "loaded"
    assert asked == [compile_checks.ARCHITECTURES[0]]
    made.loaded.clear()


def test_host_time_of_a_call(driver):
    """12 microseconds at most on a quiet machine; here with room for a busy one."""
    x = host_arrays.array(np.zeros((64, 1024), np.float32))
    mean, var = (host_arrays.empty((64,), np.float32) for _ in range(2))
    moments.mean_var_rows(x, 0, False, mean, var)
    seconds = min(timeit.repeat(lambda: moments.mean_var_rows(x, 0, False, mean, var), number=1000, repeat=5))
    print(f"{seconds * 1e3:.1f} us")
    assert seconds < 30e-3
