"""The benchmark suite: every benchmark runs, times what it names, and refuses what is wrong."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "asv_benchmarks"
sys.path.insert(0, str(ROOT))
os.environ["NUMBANORM_ASV_PROFILE"] = "smoke"  # read when the suite is imported

cases = import_module("benchmarks.cases")
norms = import_module("benchmarks.norms")
MODULES = [
    import_module(f"benchmarks.{name}")
    for name in ("stats", "norms", "peers", "roofline", "masks", "overhead", "startup")
]

#: Lengths that differ, so that a wrong axis shows.
SHAPES = {"rows": (5, 12), "columns": (12, 5), "images": (3, 8, 5, 2), "channels_last": (3, 8, 5, 2)}


def benchmarks() -> Iterator[tuple[str, type, str]]:
    """(asv's name, class, method) of every benchmark, by asv's rules."""
    for module in MODULES:
        for name, cls in vars(module).items():
            if name.startswith("_") or not inspect.isclass(cls) or inspect.isabstract(cls):
                continue
            for method, _ in inspect.getmembers(cls, inspect.isfunction):
                if method.startswith(("time_", "track_", "peakmem_")):
                    yield f"{module.__name__.removeprefix('benchmarks.')}.{name}.{method}", cls, method


def parameter_sets() -> list[Any]:
    return [
        pytest.param(cls, method, values, id="-".join([name, *map(str, values)]))
        for name, cls, method in benchmarks()
        for values in itertools.product(*getattr(cls, "params", []))
    ]


def skip_without(what: str) -> None:
    package = {"torch": "torch", "bfloat16": "ml_dtypes"}.get(what)
    if package:
        pytest.importorskip(package)


@pytest.mark.compiled
@pytest.mark.parametrize(("cls", "method", "values"), parameter_sets())
def test_runs(cls: type, method: str, values: tuple[Any, ...]) -> None:
    skip_without(values[-1] if values else "")
    benchmark = cls()
    if hasattr(benchmark, "setup"):
        benchmark.setup(*values)
    result = getattr(benchmark, method)(*values)
    if method.startswith("track_"):
        assert math.isfinite(result)
        assert result >= 0
    else:
        assert result is None


@pytest.mark.parametrize("library", cases.LIBRARIES)
@pytest.mark.parametrize("name", cases.OPERATIONS)
def test_agrees_with_reference(name: str, library: str) -> None:
    skip_without(library)
    operation = cases.OPERATIONS[name]
    data = operation.data(SHAPES[operation.layout])
    reference = operation.reference(data)
    np.testing.assert_allclose(cases.as_float64(operation.call(library, data)()), reference, rtol=2e-5, atol=2e-5)


def test_finds_what_asv_finds() -> None:
    discovery = pytest.importorskip("asv_runner.discovery")
    found = list(discovery.disc_benchmarks(str(ROOT / "benchmarks")))
    assert sorted(benchmark.name for benchmark in found) == sorted(name for name, _, _ in benchmarks())
    assert all(benchmark.check(str(ROOT)) for benchmark in found)


def test_asv_skips_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotImplementedError, match="torch is not installed"):
        norms.Rows().setup("layer_norm", (8, 64), "torch")
    discovery = pytest.importorskip("asv_runner.discovery")
    found = {benchmark.name: benchmark for benchmark in discovery.disc_benchmarks(str(ROOT / "benchmarks"))}
    benchmark = found["norms.Rows.time_call"]
    benchmark.set_param_idx(cases.LIBRARIES.index("torch"))
    assert benchmark.do_setup() is True  # asv's word for "skip"


def test_refuses_to_time_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(cases.OPERATIONS["layer_norm"], numbanorm=lambda nn, d: partial(nn.rms_norm, d.x, d.gamma))
    monkeypatch.setitem(cases.OPERATIONS, "layer_norm", wrong)
    with pytest.raises(AssertionError, match=r"layer_norm \(5, 12\) of numbanorm is off by"):
        norms.Rows().setup("layer_norm", SHAPES["rows"], "numbanorm")
