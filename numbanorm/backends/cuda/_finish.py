"""The last step of every statistic: from sums to a mean and a variance, in any dtype."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numba import int32
from numba.cuda import libdevice, types

from numbanorm.backends.cuda._arithmetic import m2_of, mean_of, quotient, scaled_variance
from numbanorm.backends.cuda._intrinsics import power_of_two, real, scalar_store
from numbanorm.backends.cuda._jit import device


def parameters(kind: str) -> tuple[Any, ...]:
    """Types of what :func:`arguments` gives, as parameters of a kernel."""
    return (*[real(kind)] * 5, types.int32)


def arguments(kind: str, n: int, ddof: float, root: bool, wants_mean: bool, wants_var: bool) -> tuple[Any, ...]:
    """n as a pair, 1 / n, ``1 / (n - ddof)`` as a pair, and what is wanted: mean 1, var 2, its root 4."""
    number = np.float64 if kind == "float64" else np.float32
    divisor = Fraction(n) - Fraction(ddof)
    inverse = _pair(1 / divisor, number) if divisor > 0 else (number(np.inf), number(0))
    wanted = np.int32(wants_mean + 2 * wants_var + 4 * root)
    return (*_pair(Fraction(n), number), number(1 / n), *inverse, wanted)


def _pair(value: Fraction, number: Any) -> tuple[Any, Any]:
    high = number(float(value))
    return high, number(float(value - Fraction(float(high))))


@cache
def writer(kind: str) -> Any:
    """``write(i, c, k, a, al, b, bl, mean, var, n, nl, inverse, inverse_divisor, its low part, wanted)``."""
    store = scalar_store(kind)
    square_root = libdevice.sqrt if kind == "float64" else libdevice.fsqrt_rn

    @device
    def write(i, c, k, a, al, b, bl, mean, var, n, nl, inverse, divisor, divisorl, wanted):
        q, ql = quotient(a, al, n, nl, inverse)
        rounded = mean_of(c, k, q, ql)[0]
        store(mean, i, rounded, wanted & int32(1) != 0)
        m2, m2l = m2_of(a, al, b, bl, q, ql)
        v = scaled_variance(m2, m2l, divisor, divisorl)
        unit = power_of_two(int32(-k))
        if wanted & int32(4) != 0:
            v = square_root(v) * unit
        else:
            v = v * unit * unit
        store(var, i, v, wanted & int32(2) != 0)

    return write
