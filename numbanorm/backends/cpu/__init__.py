"""Numba kernels for the CPU, parallel and serial. See :mod:`numbanorm.backends` for the contract."""

from __future__ import annotations

from numbanorm.backends.cpu.affine import affine_cols, affine_rows
from numbanorm.backends.cpu.masked import masked_affine, masked_norm_groups, masked_norm_rows
from numbanorm.backends.cpu.masked_backward import (
    masked_channels_backward,
    masked_groups_backward,
    masked_rows_backward,
)
from numbanorm.backends.cpu.mean_var import mean_var_channels, mean_var_cols, mean_var_rows
from numbanorm.backends.cpu.moments import combine_moments, finish_moments, moments_cols, moments_rows, update_running
from numbanorm.backends.cpu.normalize import norm_channels, norm_groups, norm_rows
from numbanorm.backends.cpu.normalize_backward import (
    norm_channels_backward,
    norm_groups_backward,
    norm_rows_backward,
)
from numbanorm.backends.cpu.normalize_from_output import norm_rows_backward_from_output
from numbanorm.backends.cpu.response import local_response, local_response_backward

name = "cpu"


def availability() -> None:
    """Numba is a dependency of the package, so it is always there."""


__all__ = [
    "affine_cols",
    "affine_rows",
    "availability",
    "combine_moments",
    "finish_moments",
    "local_response",
    "local_response_backward",
    "masked_affine",
    "masked_channels_backward",
    "masked_groups_backward",
    "masked_norm_groups",
    "masked_norm_rows",
    "masked_rows_backward",
    "mean_var_channels",
    "mean_var_cols",
    "mean_var_rows",
    "moments_cols",
    "moments_rows",
    "name",
    "norm_channels",
    "norm_channels_backward",
    "norm_groups",
    "norm_groups_backward",
    "norm_rows",
    "norm_rows_backward",
    "norm_rows_backward_from_output",
    "update_running",
]
