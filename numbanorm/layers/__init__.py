"""Layers: parameters and running statistics over the functions of :mod:`numbanorm.norms`.

Names, defaults and state dictionaries are torch's, so that trained weights pass both ways::

    layer.load_state_dict(torch_layer.state_dict())
    torch_layer.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
"""

from __future__ import annotations

from numbanorm.layers._adaptive import AdaptiveInstanceNorm, ConditionalInstanceNorm
from numbanorm.layers._batch import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from numbanorm.layers._folding import fold_batch_norm
from numbanorm.layers._group import GroupNorm
from numbanorm.layers._instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from numbanorm.layers._local_response import LocalResponseNorm
from numbanorm.layers._switchable import SwitchableNorm
from numbanorm.layers._trailing import LayerNorm, RMSNorm
from numbanorm.layers._variants import BatchRenorm, GhostBatchNorm

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
    "RMSNorm",
    "SwitchableNorm",
    "fold_batch_norm",
]
