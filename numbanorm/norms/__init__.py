"""Normalisation: statistics over some axes, parameters over some axes.

Every function here is the same operation, ``(x - mean) / sqrt(var + eps) * gamma + beta``;
they differ in the set of elements that shares one mean and variance:

================  =======================  =====================
norm              statistics over          parameters over
================  =======================  =====================
standardize       ``axis``                 whatever broadcasts
layer_norm        ``axis``                 ``axis``
rms_norm          ``axis`` (no mean)       ``axis`` (gamma only)
batch_norm        all but the channel      the channel
instance_norm     all but sample, channel  the channel
group_norm        a group of channels      the channel
================  =======================  =====================

The variance is always the biased one. x may be float16, bfloat16, float32 or float64, with
any memory layout; the result has its dtype, shape and layout. Parameters of any real dtype
are taken in float32 (float64 for float64 x).
"""

from __future__ import annotations

from numbanorm.norms._adaptive import adain, adaptive_instance_norm, conditional_instance_norm
from numbanorm.norms._batch import batch_norm
from numbanorm.norms._ghost import ghost_batch_norm
from numbanorm.norms._group import group_norm
from numbanorm.norms._instance import instance_norm
from numbanorm.norms._layer import layer_norm, rms_norm
from numbanorm.norms._local_response import local_response_norm
from numbanorm.norms._renorm import batch_renorm
from numbanorm.norms._scaling import l2_normalize, min_max_scale, weight_standardize, z_score
from numbanorm.norms._standardize import standardize
from numbanorm.norms._switchable import switchable_norm

__all__ = [
    "adain",
    "adaptive_instance_norm",
    "batch_norm",
    "batch_renorm",
    "conditional_instance_norm",
    "ghost_batch_norm",
    "group_norm",
    "instance_norm",
    "l2_normalize",
    "layer_norm",
    "local_response_norm",
    "min_max_scale",
    "rms_norm",
    "standardize",
    "switchable_norm",
    "weight_standardize",
    "z_score",
]
