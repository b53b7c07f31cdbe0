import threading
from types import SimpleNamespace

import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _backend
from numbanorm.backends import cuda


class DeviceArray:
    """An array that says it lives on a GPU."""

    dtype, shape, ndim, size = np.dtype(np.float32), (2, 3), 2, 6

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": "<f4", "data": (0, False), "version": 3}


HOST, DEVICE = np.ones((2, 3), np.float32), DeviceArray()


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("NUMBANORM_BACKEND", raising=False)


def test_host_arrays_run_on_the_cpu_by_default():
    assert nn.get_backend().name == nn.get_backend(HOST).name == "cpu"


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_the_variable_selects(monkeypatch, name):
    monkeypatch.setenv("NUMBANORM_BACKEND", name)
    assert nn.get_backend(HOST).name == name
    assert nn.show_config("dict")["why"] == "selected by NUMBANORM_BACKEND"


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("NUMBANORM_BACKEND", "")
    assert nn.get_backend().name == "cpu"


def test_unknown_names_list_the_known_ones(monkeypatch):
    known = "'auto', 'cpu', 'cuda', 'reference'"
    monkeypatch.setenv("NUMBANORM_BACKEND", "gpu")
    with pytest.raises(ValueError, match=f"^NUMBANORM_BACKEND must be one of {known}, but got 'gpu'$"):
        nn.mean(HOST)
    with pytest.raises(ValueError, match=f"^backend must be one of {known}, but got 'tpu'$"), nn.use_backend("tpu"):
        pass


def test_use_backend_wins_and_is_undone(monkeypatch):
    monkeypatch.setenv("NUMBANORM_BACKEND", "cpu")
    with nn.use_backend("reference"):
        assert nn.get_backend().name == "reference"
        with nn.use_backend("auto"):
            assert nn.get_backend().name == "cpu"
        assert nn.get_backend().name == "reference"
    assert nn.get_backend().name == "cpu"
    with pytest.raises(KeyError), nn.use_backend("reference"):
        raise KeyError
    assert nn.get_backend().name == "cpu"


def test_use_backend_is_for_this_thread_only():
    seen = []
    with nn.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(nn.get_backend().name))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


def test_available_backends():
    available = nn.available_backends()
    assert {"cpu", "reference"} <= set(available)
    assert ("cuda" in available) == (cuda.availability() is None)


@pytest.mark.parametrize(
    ("driver", "packages", "said"),
    [
        ("the NVIDIA driver is missing", [], ["driver is missing"]),
        (None, ["numba-cuda"], ["numba-cuda", 'pip install "numbanorm[cuda13]"']),
        ("the driver is there, but shows no CUDA device", [], ["no CUDA device"]),
        ("the NVIDIA driver is missing", ["cupy-cuda13x"], ["driver is missing", "cupy-cuda13x", "pip install"]),
    ],
)
def test_cuda_says_what_is_missing(monkeypatch, driver, packages, said):
    monkeypatch.setattr(cuda, "_driver_problem", lambda: driver)
    monkeypatch.setattr(cuda, "_missing_packages", lambda: packages)
    monkeypatch.setenv("NUMBANORM_BACKEND", "cuda")
    _backend.load_backend.cache_clear()
    with pytest.raises(RuntimeError, match="the cuda backend cannot run") as error:
        nn.layer_norm(HOST)
    assert all(word in str(error.value) for word in said)
    with pytest.raises(RuntimeError, match="the cuda backend cannot run"), nn.use_backend("cuda"):
        pass


@pytest.mark.parametrize(
    ("init", "count", "problem"), [(0, 1, None), (0, 0, "no CUDA device"), (100, 0, "no CUDA device")]
)
def test_the_driver_is_asked_for_a_device(monkeypatch, init, count, problem):
    def device_count(pointer):
        pointer._obj.value = count
        return 0

    driver = SimpleNamespace(cuInit=lambda flags: init, cuDeviceGetCount=device_count)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: driver)
    found = cuda._driver_problem()
    assert found is None if problem is None else problem in found


def test_a_missing_driver(monkeypatch):
    def missing(name):
        raise OSError

    monkeypatch.setattr(cuda.ctypes, "CDLL", missing)
    assert "driver is missing" in cuda._driver_problem()


def test_device_arrays_are_never_copied_silently():
    for function in (nn.mean, nn.layer_norm, lambda x: nn.batch_norm(x, training=True)):
        with pytest.raises(RuntimeError, match="the cuda backend cannot run"):
            function(DEVICE)
        with nn.use_backend("cpu"), pytest.raises(TypeError, match=r"takes host arrays.*x\.get\(\)"):
            function(DEVICE)


def test_mixed_arrays_are_named():
    with pytest.raises(
        TypeError, match=r"x \(numpy.ndarray\) is on the host, gamma \(.*DeviceArray\) is on the device"
    ):
        nn.layer_norm(HOST, DEVICE)
    with pytest.raises(TypeError, match=r"running_var \(numpy.ndarray\) is on the host"):
        nn.batch_norm(DEVICE, None, None, None, np.ones(3), training=True)
    with pytest.raises(TypeError, match=r"argument 0 .* on the host, argument 1 .* on the device"):
        nn.get_backend(HOST, DEVICE)
