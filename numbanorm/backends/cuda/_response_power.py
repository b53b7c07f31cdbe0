"""Powers of sums of squares, of which local response norm and its gradient are made."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba.cuda import libdevice

from numbanorm.backends.cuda._intrinsics import real
from numbanorm.backends.cuda._jit import device
from numbanorm.backends.cuda._norm_arithmetic import compute_kind

#: Ways to raise to the power of -beta.
POWERS = {0.75: 1, 0.5: 2, 1.0: 3}
#: Sums of squares below this did not overflow.
LARGEST = {"float32": 2.0**120, "float64": 2.0**1000}


@device
def _raised(base, exponent):
    """``base ** exponent`` in float64, whose own function would not be inlined."""
    return libdevice.exp2(exponent * libdevice.log2(base))


@cache
def power(kind: str) -> Any:
    """``base ** -beta``; `way` is an entry of ``POWERS`` or 0."""
    number = real(kind)
    wide = compute_kind(kind) == "float64"
    rsqrt = libdevice.rsqrt if wide else libdevice.rsqrtf
    sqrt = libdevice.sqrt if wide else libdevice.fsqrt_rn
    raised = _raised if wide else libdevice.powf
    one = number(1)

    @device
    def power(base, beta, way):
        if way == 1:
            root = rsqrt(base)
            return root * sqrt(root)
        if way == 2:
            return rsqrt(base)
        if way == 3:
            return one / base
        return raised(base, -beta)

    return power


def to_the_power(kind: str) -> Any:
    """``base ** exponent``."""
    return _raised if compute_kind(kind) == "float64" else libdevice.powf
