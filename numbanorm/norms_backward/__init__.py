"""Gradients of the norms, written out.

For ``y = xhat * gamma + beta`` with ``xhat = (x - mean) * rstd``, and ``g = dy * gamma``::

    dx = rstd * (g - mean(g) - xhat * mean(g * xhat))
    dgamma = sum(dy * xhat)        dbeta = sum(dy)

with means over the elements that share statistics, and sums over those that share a
parameter (Ioffe & Szegedy 2015, section 3). Every function takes dy and what the forward had
and left: x, gamma, and the mean and rstd that ``return_stats=True`` returns::

    y, mean, rstd = layer_norm(x, gamma, beta, return_stats=True)
    dx, dgamma, dbeta = layer_norm_backward(dy, x, gamma, mean, rstd)

dx has x's dtype, shape and layout; dgamma and dbeta have gamma's shape, float32 (float64 for
float64 x), and are None without gamma. The same input gives the same bits on every run and for any
number of threads. A mean that was rounded to float32 is good enough: where it is x's own,
what the rounding left out is found again on the way.
"""

from __future__ import annotations

from numbanorm.norms_backward._adaptive import (
    adaptive_instance_norm_backward,
    conditional_instance_norm_backward,
)
from numbanorm.norms_backward._batch import batch_norm_backward
from numbanorm.norms_backward._ghost import ghost_batch_norm_backward
from numbanorm.norms_backward._group import group_norm_backward, instance_norm_backward
from numbanorm.norms_backward._layer import layer_norm_backward, rms_norm_backward
from numbanorm.norms_backward._local_response import local_response_norm_backward
from numbanorm.norms_backward._renorm import batch_renorm_backward
from numbanorm.norms_backward._scaling import l2_normalize_backward
from numbanorm.norms_backward._standardize import standardize_backward
from numbanorm.norms_backward._switchable import switchable_norm_backward

__all__ = [
    "adaptive_instance_norm_backward",
    "batch_norm_backward",
    "batch_renorm_backward",
    "conditional_instance_norm_backward",
    "ghost_batch_norm_backward",
    "group_norm_backward",
    "instance_norm_backward",
    "l2_normalize_backward",
    "layer_norm_backward",
    "local_response_norm_backward",
    "rms_norm_backward",
    "standardize_backward",
    "switchable_norm_backward",
]
