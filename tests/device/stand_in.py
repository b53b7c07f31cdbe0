"""A cuda backend without CUDA: the reference's launchers on CuPy arrays over host memory, which they check."""

from __future__ import annotations

from functools import partial

import cupy as cp
import numpy as np

from numbanorm._dtypes import compute_dtype, is_float
from numbanorm.backends import LAUNCHERS, reference
from tests.device.places import numpy_view

name = "cuda"
launches: list[str] = []


def availability():
    return None


def _checked(array):
    assert isinstance(array, cp.ndarray)
    assert array.flags.c_contiguous
    assert array.data.ptr % array.itemsize == 0
    assert array.dtype.isnative
    assert is_float(array.dtype) or array.dtype == bool
    return numpy_view(array)


def _launch(launcher, *args):
    launches.append(launcher)
    x = args[0]
    assert x.size
    if launcher.startswith(("norm", "affine")) and not launcher.endswith("_backward"):
        operands = [a for a in args[1:] if isinstance(a, cp.ndarray) and a.shape != x.shape]
        if launcher.startswith("affine"):
            mean, var, _, _, *operands = args[1:-1]
            assert mean.dtype == var.dtype in (np.float32, np.float64), launcher
        assert all(a.dtype == compute_dtype(x.dtype) for a in operands), launcher
    views = [_checked(a) if isinstance(a, cp.ndarray) else a for a in args]
    assert not any(isinstance(a, np.ndarray) and not isinstance(a, cp.ndarray) for a in args)
    with np.errstate(all="ignore"):
        getattr(reference, launcher)(*views)


for _launcher in LAUNCHERS:
    globals()[_launcher] = partial(_launch, _launcher)
