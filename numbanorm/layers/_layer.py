"""What every layer has: a mode, parameters, and a state in torch's words."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm import _arrays
from numbanorm._arrays import place_of
from numbanorm._backend import load_backend
from numbanorm._dtypes import is_float
from numbanorm._errors import ShapeError
from numbanorm._guests import as_host
from numbanorm.layers._gradients import Differentiable

Array = NDArray[Any]

#: torch's key for each attribute, in torch's order.
_KEYS = {
    "gamma": "weight",
    "beta": "bias",
    "mean_weights": "mean_weight",
    "var_weights": "var_weight",
    "running_mean": "running_mean",
    "running_var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
}


#: What lives where the layer is.
_MOVED = tuple(name for name in _KEYS if name != "num_batches_tracked")


class Layer(Differentiable):
    """Base of all layers.

    Attributes
    ----------
    training : bool
        Set by :meth:`train` and :meth:`eval`.
    gamma, beta, running_mean, running_var : array or None
        NumPy's, or CuPy's on a device; None where the layer has no such thing.
    num_batches_tracked : numpy.ndarray or None
        Always on the host.
    device : str or int
        Where :meth:`to` moved the layer.
    grad, requires_grad
        See :class:`numbanorm.layers._gradients.Differentiable`.
    """

    gamma: Array | None = None
    beta: Array | None = None
    #: Of :class:`numbanorm.SwitchableNorm` alone.
    mean_weights: Array | None = None
    var_weights: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    num_batches_tracked: Array | None = None

    device: str | int = "cpu"

    def __init__(self, dtype: DTypeLike, device: str | int | None) -> None:
        super().__init__()
        self.dtype = np.dtype(dtype)
        if not is_float(self.dtype):
            raise TypeError(f"dtype must be a floating-point dtype, but got {self.dtype}")
        self.training = True
        if device is not None:
            self.to(device)

    def train(self, mode: bool = True) -> Layer:
        """Switch to training (or, with False, to evaluation); returns self."""
        self.training = bool(mode)
        return self

    def eval(self) -> Layer:
        """Switch to evaluation; returns self."""
        return self.train(False)

    def to(self, device: str | int) -> Layer:
        """Move parameters and running statistics; returns self.

        Parameters
        ----------
        device : {"cpu", "cuda"} or int
            The current CUDA device, or the one of this number.

        Raises
        ------
        RuntimeError
            For a device where CUDA cannot run; the message says what is missing.
        """
        if device not in ("cpu", "cuda") and (not isinstance(device, int) or isinstance(device, bool) or device < 0):
            raise ValueError(f"device must be 'cpu' or 'cuda', or the number of a CUDA device, but got {device!r}")
        if device != "cpu":
            load_backend("cuda")
        self.device = device
        for name in _MOVED:
            array = getattr(self, name)
            if array is not None:
                setattr(self, name, self._brought(place_of(array).to_host(array)))
        return self

    def _brought(self, array: Array) -> Array:
        """A NumPy array where the layer is."""
        if self.device == "cpu":
            return array
        place = _arrays.device()
        with place.at(self.device if isinstance(self.device, int) else place.current()):
            return place.from_host(array)

    def _filled(self, value: float, shape: int | tuple[int, ...]) -> Array:
        """A parameter or statistic to start with."""
        return self._brought(np.full(shape, value, self.dtype))

    def parameters(self) -> list[Array]:
        """The learnable arrays themselves: gamma, beta, ... as far as the layer has them."""
        return [p for p in (getattr(self, name) for name in self._learnt) if p is not None]

    def num_parameters(self, buffers: bool = False) -> int:
        """Number of learnable values; with `buffers`, running mean and variance count too."""
        arrays = self.parameters()
        if buffers:
            arrays += [s for s in (self.running_mean, self.running_var) if s is not None]
        return sum(array.size for array in arrays)

    def state_dict(self) -> OrderedDict[str, Array]:
        """Copies of all arrays under torch's keys, in torch's order; NumPy's, wherever the layer is."""
        pairs = ((key, getattr(self, name)) for name, key in _KEYS.items())
        return OrderedDict((key, np.array(place_of(array).to_host(array))) for key, array in pairs if array is not None)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy all arrays from `state`; the layer stays where it is.

        `state` holds NumPy arrays, device arrays, or whatever :func:`numpy.asarray` takes.

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
        arrays = {key: as_host(state[key]) for key in own}
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
            place = place_of(own[key])
            place.copy(own[key], place.from_host(array))

    def _settings(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings()})"
