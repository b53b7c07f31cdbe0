"""Norms: time, and error of the output."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import NORMS, as_float64
from .common import Comparison, parameters


class _Norms(Comparison):
    """`track_error` is the worst absolute error of an output at mean 1e4, std 1."""

    unit = "absolute error"

    @staticmethod
    def error(result: Any, reference: np.ndarray) -> float:
        return float(np.abs(as_float64(result) - reference).max())


class Rows(_Norms):
    params = parameters(NORMS, "rows")


class Columns(_Norms):
    params = parameters(NORMS, "columns")


class Images(_Norms):
    params = parameters(NORMS, "images", "channels_last")
