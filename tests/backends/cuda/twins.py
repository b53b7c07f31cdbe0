"""What a kernel's intrinsics and libdevice functions do, in Python: the emulator's half of each."""

from __future__ import annotations

import math

import numpy as np


class SimulationError(RuntimeError):
    """The kernel did what a device would hang or stumble over."""


class Pointer:
    """What a CPointer is to a kernel; never reaches beyond its array."""

    def __init__(self, array):
        self.array = array

    def span(self, index, count, aligned=True):
        index = int(index)
        if not 0 <= index <= self.array.size - count:
            raise IndexError(f"elements {index} to {index + count - 1} of {self.array.size}")
        if aligned and (self.array.ctypes.data + index * self.array.itemsize) % 16:
            raise SimulationError(f"16 bytes at element {index} are not aligned")
        return self.array[index : index + count]

    def __getitem__(self, index):
        return self.span(index, 1, aligned=False)[0]

    def __setitem__(self, index, value):
        self.span(index, 1, aligned=False)[0] = value


def _real(kind):
    return np.float64 if kind == "float64" else np.float32


def _vector_load(kind):
    count, real = 16 // (2 if "16" in kind else np.dtype(kind).itemsize), _real(kind)

    def load(pointer, index, wanted):
        if not wanted:
            return (real(0),) * count
        return tuple(pointer.span(index, count).astype(real))

    return load


def _vector_store(kind):
    count = 16 // (2 if "16" in kind else np.dtype(kind).itemsize)

    def store(pointer, index, values, wanted):
        assert len(values) == count
        assert all(type(value) is _real(kind) for value in values), values
        if wanted:
            span = pointer.span(index, count)
            span[:] = np.array(values).astype(span.dtype)

    return store


def _words_load(kind):
    count = 8 if "16" in kind else 4

    def load(pointer, index, wanted):
        if not wanted:
            return (np.uint32(0),) * 4
        return tuple(pointer.span(index, count).view(np.uint32))

    return load


def _unpack(kind):
    def expand(word):
        bits = np.array([word], np.uint32)
        if kind == "float16":
            return tuple(bits.view(np.float16).astype(np.float32))
        return tuple((bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32))

    return expand


def _scalar_load(kind):
    def load(pointer, index, wanted):
        return _real(kind)(pointer[index]) if wanted else _real(kind)(0)

    return load


def _scalar_store(kind):
    def store(pointer, index, value, wanted):
        assert type(value) is _real(kind), type(value)
        if wanted:
            pointer[index] = pointer.array.dtype.type(value)

    return store


def _take_ticket(tickets, index, last):
    old = tickets[index]
    tickets[index] = 0 if old >= last else old + 1
    return np.uint32(old)


def _product(a, b):
    assert type(a) is type(b), (type(a), type(b))
    return a * b


def _power_of_two(exponent):
    assert -126 <= exponent <= 127, exponent
    return np.float32(math.ldexp(1.0, int(exponent)))


def _exponent_of(value):
    bits = int(np.float32(value).view(np.uint32))
    return np.int32((bits >> 23 & 255) - 127)


TWINS = {
    "forgotten": lambda value: value,
    "take_ticket": _take_ticket,
    "product": _product,
    "power_of_two": _power_of_two,
    "exponent_of": _exponent_of,
}
for _kind in ("float16", "bfloat16", "float32", "float64"):
    for _make in (_vector_load, _vector_store, _words_load, _unpack, _scalar_load, _scalar_store):
        TWINS[f"{_make.__name__[1:]}_{_kind}"] = _make(_kind)


def fma(a, b, c):
    """Numbers, or arrays of them, of one type."""
    assert a.dtype == b.dtype == c.dtype, (a, b, c)
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)) or abs(a * b) > 1e290:
        return a * b + c
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    high = a * b
    low = ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
    return np.float64(math.fsum([high, low, c]))


def _halves(a):
    high = a * np.float64(2**27 + 1)
    high = high - (high - a)
    return high, a - high


class Libdevice:
    """Names that are not here raise; they never return None silently."""

    rsqrtf = staticmethod(lambda x: np.float32(1) / np.sqrt(np.float32(x)))
    rsqrt = staticmethod(lambda x: np.float64(1) / np.sqrt(np.float64(x)))
    sqrtf = staticmethod(lambda x: np.sqrt(np.float32(x)))
    sqrt = staticmethod(lambda x: np.sqrt(np.float64(x)))
    fsqrt_rn = sqrtf
    fast_fdividef = staticmethod(lambda x, y: np.float32(x) / np.float32(y))
    fdiv_rn = fast_fdividef
    frcp_rn = staticmethod(lambda x: np.float32(1) / np.float32(x))
    powf = staticmethod(lambda x, y: np.float32(np.float64(x) ** np.float64(y)))
    exp2 = staticmethod(lambda x: np.exp2(np.float64(x)))
    log2 = staticmethod(lambda x: np.log2(np.float64(x)))
    fmul_rn = staticmethod(lambda x, y: np.float32(x) * np.float32(y))
    fadd_rn = staticmethod(lambda x, y: np.float32(x) + np.float32(y))
