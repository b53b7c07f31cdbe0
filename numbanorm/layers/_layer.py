"""What every layer has: a mode, parameters, and a state in torch's words."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._backend import load_backend
from numbanorm._dtypes import is_float
from numbanorm._errors import ShapeError

Array = NDArray[Any]

#: torch's key for each attribute, in torch's order.
_KEYS = {
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
}


class Layer:
    """Base of all layers.

    Attributes
    ----------
    training : bool
        Set by :meth:`train` and :meth:`eval`.
    gamma, beta, running_mean, running_var, num_batches_tracked : array or None
        None where the layer has no such thing.
    """

    gamma: Array | None = None
    beta: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    num_batches_tracked: Array | None = None

    def __init__(self, dtype: DTypeLike, device: str | None) -> None:
        self.dtype = np.dtype(dtype)
        if not is_float(self.dtype):
            raise TypeError(f"dtype must be a floating-point dtype, but got {self.dtype}")
        self.training = True
        self.to(device or "cpu")

    def train(self, mode: bool = True) -> Layer:
        """Switch to training (or, with False, to evaluation); returns self."""
        self.training = bool(mode)
        return self

    def eval(self) -> Layer:
        """Switch to evaluation; returns self."""
        return self.train(False)

    def to(self, device: str) -> Layer:
        """Move parameters and statistics to "cpu" or "cuda"; returns self.

        Raises
        ------
        RuntimeError
            For "cuda" where it cannot run; the message says what is missing.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device must be 'cpu' or 'cuda', but got {device!r}")
        if device == "cuda":
            load_backend("cuda")
        self.device = device
        return self

    def parameters(self) -> list[Array]:
        """The learnable arrays themselves: gamma and beta, as far as the layer has them."""
        return [p for p in (self.gamma, self.beta) if p is not None]

    def num_parameters(self, buffers: bool = False) -> int:
        """Number of learnable values; with `buffers`, running mean and variance count too."""
        arrays = self.parameters()
        if buffers:
            arrays += [s for s in (self.running_mean, self.running_var) if s is not None]
        return sum(array.size for array in arrays)

    def state_dict(self) -> OrderedDict[str, Array]:
        """Copies of all arrays under torch's keys, in torch's order."""
        pairs = ((key, getattr(self, name)) for name, key in _KEYS.items())
        return OrderedDict((key, array.copy()) for key, array in pairs if array is not None)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy all arrays from `state` (NumPy arrays, or whatever :func:`numpy.asarray` takes).

        Raises
        ------
        KeyError
            If keys are missing or unexpected.
        ValueError
            If a shape differs. In either case nothing is changed.
        """
        own = {key: getattr(self, name) for name, key in _KEYS.items() if getattr(self, name) is not None}
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise KeyError(
                f"Error(s) in loading state_dict for {type(self).__name__}: "
                f"missing keys {missing}, unexpected keys {unexpected}"
            )
        arrays = {key: np.asarray(state[key]) for key in own}
        for key, array in arrays.items():
            if array.shape != own[key].shape:
                raise ShapeError(f"{key} should have shape {own[key].shape}, but has {array.shape}")
            if array.dtype.kind not in "iuf" and not is_float(array.dtype):
                raise TypeError(f"{key} should be real and numeric, but has dtype {array.dtype}")
            if own[key].dtype.kind == "i" and not float(array).is_integer():
                raise ValueError(f"{key} should be a whole number, but is {array}")
        with np.errstate(over="ignore"):  # all are cast before the first is copied
            cast = {key: array.astype(own[key].dtype) for key, array in arrays.items()}
        for key, array in cast.items():
            own[key][...] = array

    def _settings(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()})"
