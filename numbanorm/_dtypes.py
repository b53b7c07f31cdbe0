"""One table of dtypes: what may come in, what comes out, what is computed in between.

=====================  ===============  ==============  ================
x                      statistics       norm output     saved statistics
=====================  ===============  ==============  ================
float16                float16          float16         float32
bfloat16 (ml_dtypes)   bfloat16         bfloat16        float32
float32                float32          float32         float32
float64                float64          float64         float64
integers, bool         float64          TypeError       TypeError
=====================  ===============  ==============  ================

Sums are kept in float64 for every dtype (on a device in pairs of float32). A norm's output is
formed in the *compute dtype*: float32, or float64 for float64 input.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm._errors import integer_in_norm, unsupported_dtype

#: Names of the floating-point dtypes that norms take.
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@lru_cache(maxsize=256)
def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether norms take this dtype (cached, because ``dtype.name`` takes microseconds)."""
    return dtype.name in FLOATS


@lru_cache(maxsize=256)
def statistics_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype of mean and variance, as NumPy's; raises TypeError for what has none."""
    if dtype.name in FLOATS:
        return dtype.newbyteorder("=")
    if dtype.kind in "iub":
        return np.dtype(np.float64)
    raise unsupported_dtype("x", dtype)


@lru_cache(maxsize=256)
def norm_dtype(dtype: np.dtype[Any], name: str = "x") -> np.dtype[Any]:
    """Dtype of a norm's output: the (native) dtype of x."""
    if dtype.name in FLOATS:
        return dtype.newbyteorder("=")
    raise integer_in_norm(name, dtype) if dtype.kind in "iub" else unsupported_dtype(name, dtype)


@lru_cache(maxsize=256)
def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype in which outputs are formed, parameters are read and statistics are saved."""
    return np.dtype(np.float64 if dtype.name == "float64" else np.float32)
