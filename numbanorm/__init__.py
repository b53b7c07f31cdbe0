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
    AdaptiveInstanceNorm,
    BatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm,
    ConditionalInstanceNorm,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
    SwitchableNorm,
    fold_batch_norm,
)
from numbanorm.norms import (
    adain,
    adaptive_instance_norm,
    batch_norm,
    batch_renorm,
    conditional_instance_norm,
    ghost_batch_norm,
    group_norm,
    instance_norm,
    l2_normalize,
    layer_norm,
    local_response_norm,
    min_max_scale,
    rms_norm,
    standardize,
    switchable_norm,
    weight_standardize,
    z_score,
)
from numbanorm.norms_backward import (
    adaptive_instance_norm_backward,
    batch_norm_backward,
    batch_renorm_backward,
    conditional_instance_norm_backward,
    ghost_batch_norm_backward,
    group_norm_backward,
    instance_norm_backward,
    l2_normalize_backward,
    layer_norm_backward,
    local_response_norm_backward,
    rms_norm_backward,
    standardize_backward,
    switchable_norm_backward,
)
from numbanorm.stats import MeanVar, Moments, mean, mean_var, moments, std, var

__all__ = [
    "AdaptiveInstanceNorm",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm",
    "ConditionalInstanceNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "MeanVar",
    "Moments",
    "RMSNorm",
    "SwitchableNorm",
    "__version__",
    "adain",
    "adaptive_instance_norm",
    "adaptive_instance_norm_backward",
    "available_backends",
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "conditional_instance_norm",
    "conditional_instance_norm_backward",
    "empty_cache",
    "fold_batch_norm",
    "get_backend",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "l2_normalize",
    "l2_normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "mean",
    "mean_var",
    "min_max_scale",
    "moments",
    "rms_norm",
    "rms_norm_backward",
    "show_config",
    "standardize",
    "standardize_backward",
    "std",
    "switchable_norm",
    "switchable_norm_backward",
    "use_backend",
    "var",
    "weight_standardize",
    "z_score",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("numbanorm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
