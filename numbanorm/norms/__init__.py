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

from numbanorm.norms._batch import batch_norm
from numbanorm.norms._group import group_norm
from numbanorm.norms._instance import instance_norm
from numbanorm.norms._layer import layer_norm, rms_norm
from numbanorm.norms._standardize import standardize

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "standardize"]
