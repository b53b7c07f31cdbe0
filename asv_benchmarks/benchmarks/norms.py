"""Norms: time, and error of the output; time of their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import GRADIENTS, NORMS, as_float64
from .common import Comparison, Prepared, parameters


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


class _Gradients(Prepared):
    """dx, dgamma and dbeta after a forward that is not timed."""

    def time_backward(self, *_: Any) -> None:
        self.call()


class RowGradients(_Gradients):
    params = parameters(GRADIENTS, "rows")


class ImageGradients(_Gradients):
    params = parameters(GRADIENTS, "images", "channels_last")
