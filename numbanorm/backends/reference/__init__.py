"""Plain NumPy in float64: the oracle of the tests and the baseline of the benchmarks.

Every launcher says in NumPy what its formula says on paper, with temporaries as large
as it likes. See :mod:`numbanorm.backends` for the contract.
"""

from __future__ import annotations

from numbanorm.backends.reference.affine import affine_cols, affine_rows
from numbanorm.backends.reference.masked import masked_affine, masked_norm_groups, masked_norm_rows
from numbanorm.backends.reference.masked_backward import (
    masked_channels_backward,
    masked_groups_backward,
    masked_rows_backward,
)
from numbanorm.backends.reference.mean_var import mean_var_channels, mean_var_cols, mean_var_rows
from numbanorm.backends.reference.moments import (
    combine_moments,
    finish_moments,
    moments_cols,
    moments_rows,
    update_running,
)
from numbanorm.backends.reference.normalize import norm_channels, norm_groups, norm_rows
from numbanorm.backends.reference.normalize_backward import (
    norm_channels_backward,
    norm_groups_backward,
    norm_rows_backward,
)
from numbanorm.backends.reference.normalize_from_output import norm_rows_backward_from_output
from numbanorm.backends.reference.response import local_response, local_response_backward

name = "reference"


def availability() -> None:
    """NumPy is always there."""


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
