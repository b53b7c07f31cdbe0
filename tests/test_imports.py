"""Importing costs nothing that the caller did not ask for."""

import subprocess
import sys

import pytest

import numbanorm as nn


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


HEAVY = ("numba", "llvmlite", "cupy", "torch", "rich", "matplotlib", "ml_dtypes")


def test_nothing_heavy_is_imported():
    assert run(f"import sys, numbanorm; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_the_reference_backend_needs_no_numba():
    code = """
import sys, numpy, numbanorm as nn
with nn.use_backend("reference"):
    nn.layer_norm(numpy.ones((2, 3)))
print("numba" in sys.modules)
"""
    assert run(code) == "False"


@pytest.mark.compiled
def test_import_is_quick():
    """At most 0.15 s; NumPy alone takes most of it. The best of ten, since machines are shared."""
    code = "import time; t = time.perf_counter(); import numbanorm; print(time.perf_counter() - t)"
    assert any(float(run(code)) < 0.15 for _ in range(10))


@pytest.mark.compiled
def test_a_first_call_from_a_warm_cache_is_quick():
    """At most 0.5 s, Numba's own import included."""
    code = (
        "import numpy, numbanorm as nn, time; x = numpy.ones((8, 16), 'f4'); t = time.perf_counter();"
        "nn.layer_norm(x); print(time.perf_counter() - t)"
    )
    assert any(float(run(code)) < 0.5 for _ in range(10))


@pytest.mark.compiled
@pytest.mark.parametrize("call", ["batch_norm(x, training=True)", "layer_norm(x, axis=0)", "layer_norm(x)"])
def test_a_first_call_from_an_empty_cache_is_quick(call, tmp_path, monkeypatch):
    """At most 4 s with threads, Numba's import and compilation included. The slowest calls there are."""
    code = (
        "import numpy, numbanorm as nn, time; x = numpy.ones((300, 400), 'f4'); t = time.perf_counter();"
        f"nn.{call}; print(time.perf_counter() - t)"
    )

    def seconds(trial):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / str(trial)))
        return float(run(code))

    assert any(seconds(trial) < 4 for trial in range(10))


def test_public_names():
    for name in nn.__all__:
        assert getattr(nn, name) is not None
    for module in (nn.stats, nn.norms, nn.layers):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
