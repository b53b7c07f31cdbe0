"""What an operation is: its name, its data, and how each library computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

LIBRARIES = ("numbanorm", "numpy", "torch")
SEED = 20150211


class Data(NamedTuple):
    """Operands in the order that batch norms take them; x is (rows, cols), NCHW or NHWC."""

    x: Any
    gamma: Any
    beta: Any
    running_mean: Any
    running_var: Any


#: (library's module, data in its arrays) -> the call to time
Factory = Callable[[Any, Data], Callable[[], Any]]


@dataclass(frozen=True)
class Operation:
    """One operation, as each library computes it.

    `layout` says which shapes the operation takes and what its parameters belong to:
    "rows" and "columns" (rows, cols); "images" (N, C, H, W); "channels_last" the same
    shapes, stored as (N, H, W, C).
    """

    name: str
    layout: str
    numbanorm: Factory
    numpy: Factory
    torch: Factory
    #: Whether the result is as large as x.
    is_norm: bool = True
    #: Whether that is dx, with sums for the parameters.
    is_gradient: bool = False

    def data(self, shape: Shape, mean: float = 1.0, std: float = 2.0, dtype: str = "float32") -> Data:
        """Operands, the same on every run: x in `dtype`, parameters in float32."""
        if self.layout == "channels_last":
            shape = (shape[0], *shape[2:], shape[1])
        channels = shape[1] if self.layout == "images" else shape[-1]
        x = _normal(shape, mean, std)
        if dtype != "float32":
            x = x.astype(dtype_named(dtype))
        small = np.random.default_rng(SEED).uniform(-0.5, 0.5, (4, channels)).astype(np.float32)
        return Data(x, small[0] + 1, small[1], small[2] * std + mean, (small[3] + 1) * std**2)

    def call(self, library: str, data: Data) -> Callable[[], Any]:
        """The operation on `data` as a callable without arguments. ImportError if the library is missing."""
        module = import_module(library)
        if library == "torch":
            data = Data(*map(module.from_numpy, data))
        factory: Factory = getattr(self, library)
        return factory(module, data)

    def reference(self, data: Data) -> Array:
        """The result in float64."""
        return as_float64(self.call("numpy", Data(*(operand.astype(np.float64) for operand in data)))())


@lru_cache(maxsize=2)
def _normal(shape: Shape, mean: float, std: float) -> Array:
    """Normal numbers, kept because operations on one shape follow one another."""
    x = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    x *= std
    x += mean
    return x


def dtype_named(name: str) -> np.dtype[Any]:
    """The dtype that is called so. ImportError for bfloat16 without ml_dtypes."""
    return np.dtype(import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def as_float64(result: Any) -> Array:
    """Any library's result as one array; (mean, var) along a new first axis.

    A gradient is flat: dx, then the parameters' sums, each divided by the root of the number of its terms.
    """
    if not isinstance(result, tuple):
        return np.asarray(result, np.float64)
    parts = [as_float64(part) for part in result if part is not None]
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    return np.concatenate([part.ravel() / (parts[0].size / part.size) ** 0.5 for part in parts])
