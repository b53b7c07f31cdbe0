"""Memory of kernels: aligned, given back, and no reference counts around it."""

import ast
import inspect
import pkgutil
import resource
import sys
from importlib import import_module

import numpy as np
import pytest

from numbanorm.backends import cpu
from numbanorm.backends.cpu import _kernels, _masked_kernels
from numbanorm.backends.cpu._elements import flat_input
from numbanorm.backends.cpu._jit import kernel
from numbanorm.backends.cpu._lanes import LINE
from numbanorm.backends.cpu._memory import free, memory

MODULES = [import_module(f"{cpu.__name__}.{module.name}") for module in pkgutil.iter_modules(cpu.__path__)]


def names_of(call):
    return {argument.id for argument in call.args}


def taken_and_freed(function):
    """Names of what a kernel's body takes and gives back."""
    taken, freed = set(), set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            targets, values = (getattr(one, "elts", [one]) for one in (node.targets[0], node.value))
            for target, value in zip(targets, values, strict=False):
                if isinstance(value, ast.Call) and ast.unparse(value.func) == "memory":
                    taken.add(target.id)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "free":
            freed |= names_of(node)
    return taken, freed


def test_kernels_give_back_what_they_take():
    kernels = [
        function
        for module in MODULES
        for function in ast.parse(inspect.getsource(module)).body
        if isinstance(function, ast.FunctionDef) and "kernel" in map(ast.unparse, function.decorator_list)
    ]
    assert len(kernels) > 30
    for function in kernels:
        taken, freed = taken_and_freed(function)
        assert taken == freed, function.name
        assert not taken or ast.unparse(function.body[-1]).startswith("free("), function.name
        assert not any(isinstance(node, ast.Return) for node in ast.walk(function)), function.name


@kernel
def _starts(part, n_parts, n, out):
    numbers, table, flags = memory(n), memory((3, n), np.float32), memory(n, np.bool_)
    numbers[:] = 1
    table[:] = 2
    flags[:] = True
    out[0], out[1], out[2] = numbers.ctypes.data % LINE, table.ctypes.data % LINE, flags.ctypes.data % LINE
    out[3], out[4], out[5] = numbers.sum(), table[2, n - 1], flags[n - 1]
    free(numbers, table, flags)


@pytest.mark.parametrize("n", [1, 7, 64, 100_000])
def test_memory_begins_with_a_line(n):
    out = np.empty(6)
    _starts(1, n, out)
    if not hasattr(_starts.run, "py_func"):  # NumPy's memory has its own alignment
        out[:3] = 0
    assert list(out) == [0, 0, 0, n, 2, 1]


@pytest.mark.compiled
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_nothing_leaks():
    def most_memory():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    out = np.empty(6)
    _starts(1, 100_000, out)
    before = most_memory()
    for _ in range(1000):  # of 2 MB each
        _starts(1, 100_000, out)
    assert most_memory() - before < 500e6


@pytest.mark.compiled
@pytest.mark.parametrize("n_parts", [1, 3])
def test_no_memory_is_an_error(n_parts):
    with pytest.raises(MemoryError, match="scratch of a kernel"):
        _starts(n_parts, 1 << 60, np.empty(6))
    out = np.empty(6)
    _starts(n_parts, 5, out)
    assert out[3] == 5


@pytest.mark.compiled
def test_kernels_count_no_references():
    x, one, nothing = np.ones((4, 200), np.float32), np.ones(1, np.float32), np.empty(0, np.float32)
    y, scale = np.empty(800, np.float32), (1e-5, False, True)
    rows = flat_input(x), 200, 2, flat_input(one), flat_input(one)
    _kernels.norm_rows_kernel(1, *rows, scale, y, False, nothing, nothing)
    lines = flat_input(x), None, flat_input(np.full(4, 100)), (1, 200, 2), flat_input(one), flat_input(one), False
    masked = _masked_kernels.masked_norm_kernel
    masked(1, *lines, scale, 0.0, False, y, False, nothing, nothing)
    for compiled in (_kernels.norm_rows_kernel, masked):
        part = compiled.run.py_func.__globals__["part_function"]
        part.recompile()  # code from the cache cannot be inspected
        for code in part.inspect_llvm().values():
            assert "NRT_incref" not in code, compiled.name
