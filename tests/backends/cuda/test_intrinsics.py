"""What intrinsics become in PTX, and that their twins in the emulator do the same."""

import numpy as np
import pytest
from numba import cuda, float32, int64, uint32

from numbanorm.backends.cuda import _intrinsics as intrinsics
from numbanorm.backends.cuda import _jit
from numbanorm.backends.cuda._intrinsics import exponent_of, power_of_two, product, take_ticket
from tests.backends.cuda import simt
from tests.backends.cuda.compile_checks import compile_kernel
from tests.backends.cuda.test_moments import KINDS, dtype_of

STORES = {"float32": "v4.b32", "float16": "cvt.rn.f16x2.f32", "bfloat16": "cvt.rn.bf16x2.f32", "float64": "v2.b64"}


@_jit.kernel
def copies(kind, vector):
    """y = x by vectors or by elements."""
    load = intrinsics.vector_load(kind) if vector else intrinsics.scalar_load(kind, intrinsics.ORDERED)
    store = intrinsics.vector_store(kind, ".cs") if vector else intrinsics.scalar_store(kind)
    step = intrinsics.VECTOR[kind] if vector else 1

    def copies(x, y, n):
        i = int64(cuda.blockIdx.x * 32 + cuda.threadIdx.x) * step
        store(y, i, load(x, i, i < n), i < n)

    return copies, (intrinsics.pointer(kind), intrinsics.pointer(kind), intrinsics.types.int64), 32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vector", [True, False])
def test_copies(kind, vector):
    x = np.random.default_rng(0).standard_normal(64).astype(dtype_of(kind))
    y = np.full_like(x, np.nan)
    simt.launch(copies(kind, vector).function, 2, 32, x, y, np.int64(64 if vector else 60))
    np.testing.assert_array_equal(y[:60].astype(float), x[:60].astype(float))
    assert vector or np.isnan(y[60:].astype(float)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_one_instruction(kind):
    compiled = compile_kernel(copies(kind, True), (9, 0))
    assert "ld.global.L1::no_allocate.v" in compiled.ptx
    assert STORES[kind] in compiled.ptx
    assert compiled.count(r"LDG\.E(?:\.\w+)*\.128") == compiled.count(r"STG\.E(?:\.\w+)*\.128") == 1


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("vector", [True, False])
def test_older_devices(kind, vector):
    assert compile_kernel(copies(kind, vector), (7, 5)).spills == 0


@_jit.kernel
def bits():
    """Everything that is about one number."""

    def bits(tickets, x, words, y):
        x[0] = product(x[0], x[1]) + x[2]
        x[1] = power_of_two(exponent_of(x[1]))
        x[3] = float32(take_ticket(tickets, 0, uint32(1)))
        first, second = expand(words[0])
        y[0], y[1] = first, second

    expand = intrinsics.unpack("bfloat16")
    pointer = intrinsics.pointer
    return bits, (pointer("uint32"), pointer("float32"), pointer("uint32"), pointer("float32")), 32


def test_bits():
    x, tickets = np.array([3, -10, 1, 9], np.float32), np.zeros(1, np.uint32)
    words, y = np.array([0x40003F80], np.uint32), np.empty(2, np.float32)
    simt.launch(bits().function, 1, 1, tickets, x, words, y)
    assert x.tolist() == [-29, 8, 1, 0]
    assert y.tolist() == [1, 2]
    assert tickets[0] == 1
    simt.launch(bits().function, 1, 1, tickets, x, words, y)
    assert x[3] == 1
    assert tickets[0] == 0
    ptx = compile_kernel(bits(), (9, 0)).ptx
    assert "mul.rn.f32" in ptx
    assert "fma" not in ptx
    assert "atom.acq_rel.gpu.global.inc.u32" in ptx


@pytest.mark.parametrize("value", [0, 1e-38, 1, 1.99, -3, 3e38, np.inf, np.nan])
def test_exponents(value):
    exponent = int(simt.TWINS["exponent_of"](np.float32(value)))
    assert exponent == (128 if not np.isfinite(value) else -127 if abs(value) < 1.2e-38 else np.frexp(value)[1] - 1)
