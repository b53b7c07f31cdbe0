"""Mean, variance and normalisation over any axes, right and at the speed of memory.

The whole library is one sentence: a norm is statistics over some axes, then a
normalisation with parameters over some axes. See :mod:`numbanorm.stats`,
:mod:`numbanorm.norms` and :mod:`numbanorm.layers`, and :mod:`numbanorm.torch` for modules of torch,
which is imported there only.

Importing the package imports neither Numba nor CuPy; the backend that a call needs is
loaded by the first call.
"""

from __future__ import annotations

from typing import Any

from numbanorm import _process as _process
from numbanorm._backend import available_backends, get_backend, use_backend
from numbanorm._config import show_config
from numbanorm._pool import empty_cache
from numbanorm.layers import (
    BatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
    fold_batch_norm,
)
from numbanorm.norms import batch_norm, group_norm, instance_norm, layer_norm, rms_norm, standardize
from numbanorm.norms_backward import (
    batch_norm_backward,
    group_norm_backward,
    instance_norm_backward,
    layer_norm_backward,
    rms_norm_backward,
    standardize_backward,
)
from numbanorm.stats import MeanVar, Moments, mean, mean_var, moments, std, var

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "MeanVar",
    "Moments",
    "RMSNorm",
    "__version__",
    "available_backends",
    "batch_norm",
    "batch_norm_backward",
    "empty_cache",
    "fold_batch_norm",
    "get_backend",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "mean",
    "mean_var",
    "moments",
    "rms_norm",
    "rms_norm_backward",
    "show_config",
    "standardize",
    "standardize_backward",
    "std",
    "use_backend",
    "var",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("numbanorm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
