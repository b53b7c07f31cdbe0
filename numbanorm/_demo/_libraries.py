"""The operations of the demo, spelt for each library as its users would.

The images are (N, 8, 8). For the norms that know channels, the 8 rows of an image are 8
channels of 8 pixels: a batch norm then shares statistics among the same row of all images,
an instance norm keeps each row of each image apart, and a group norm with two groups takes
the upper and the lower half.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numbanorm as nn

Array = NDArray[Any]
Axes = int | tuple[int, ...] | None

EPS = 1e-5
MOMENTUM = 0.1
CHANNELS = 8
GROUPS = 2
IMAGE = (1, 2)


class NumbaNorm:
    """This package."""

    name = "numbanorm"
    version = nn.__version__

    def array(self, x: Array) -> Array:
        """The input, as this library takes it."""
        return x

    def mean_var(self, x: Array, axis: Axes) -> Any:
        return nn.mean_var(x, axis)

    def standardize(self, x: Array, axis: Axes) -> Any:
        return nn.standardize(x, axis, eps=EPS)

    def layer_norm(self, x: Array) -> Any:
        return nn.layer_norm(x, axis=IMAGE, eps=EPS)

    def rms_norm(self, x: Array) -> Any:
        return nn.rms_norm(x, axis=IMAGE, eps=EPS)

    def batch_norm(self, x: Array) -> Any:
        running = np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
        return nn.batch_norm(x, None, None, *running, training=True, momentum=MOMENTUM, eps=EPS), *running

    def instance_norm(self, x: Array) -> Any:
        return nn.instance_norm(x, eps=EPS)

    def group_norm(self, x: Array) -> Any:
        return nn.group_norm(x, GROUPS, eps=EPS)


class NumPy:
    """The formulas, written out in NumPy; of float64 numbers, they are the reference."""

    name = "NumPy"
    version = np.__version__

    def array(self, x: Array) -> Array:
        """The input, as this library takes it."""
        return x

    def mean_var(self, x: Array, axis: Axes) -> Any:
        return x.mean(axis), x.var(axis)

    def standardize(self, x: Array, axis: Axes) -> Any:
        return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + EPS)

    def layer_norm(self, x: Array) -> Any:
        return self.standardize(x, IMAGE)

    def rms_norm(self, x: Array) -> Any:
        return x / np.sqrt(np.mean(x * x, axis=IMAGE, keepdims=True) + EPS)

    def batch_norm(self, x: Array) -> Any:
        mean, var = (statistic.reshape(1, CHANNELS, 1) for statistic in self.mean_var(x, (0, 2)))
        n = x.size // CHANNELS
        running_mean = MOMENTUM * mean
        running_var = (1 - MOMENTUM) + MOMENTUM * var * n / (n - 1)
        return (x - mean) / np.sqrt(var + EPS), running_mean.reshape(-1), running_var.reshape(-1)

    def instance_norm(self, x: Array) -> Any:
        return self.standardize(x, 2)

    def group_norm(self, x: Array) -> Any:
        return self.standardize(x.reshape(len(x), GROUPS, -1), 2).reshape(x.shape)


class Torch:
    """PyTorch 2.4 or newer, on the CPU."""

    name = "torch"

    def __init__(self) -> None:
        # By name, so that type checkers do not need torch either.
        self.torch: Any = import_module("torch")
        self.functional: Any = import_module("torch.nn.functional")
        self.version = str(self.torch.__version__)

    def array(self, x: Array) -> Any:
        """The input, as this library takes it: a tensor over the same memory."""
        return self.torch.from_numpy(x)

    def mean_var(self, x: Any, axis: Axes) -> Any:
        var, mean = self.torch.var_mean(x, axis, correction=0)
        return mean, var

    def standardize(self, x: Any, axis: Axes) -> Any:
        var, mean = self.torch.var_mean(x, axis, correction=0, keepdim=True)
        return (x - mean) / self.torch.sqrt(var + EPS)

    def layer_norm(self, x: Any) -> Any:
        return self.functional.layer_norm(x, x.shape[1:], eps=EPS)

    def rms_norm(self, x: Any) -> Any:
        return self.functional.rms_norm(x, x.shape[1:], eps=EPS)

    def batch_norm(self, x: Any) -> Any:
        running = self.torch.zeros(CHANNELS), self.torch.ones(CHANNELS)
        return self.functional.batch_norm(x, *running, training=True, momentum=MOMENTUM, eps=EPS), *running

    def instance_norm(self, x: Any) -> Any:
        return self.functional.instance_norm(x, eps=EPS)

    def group_norm(self, x: Any) -> Any:
        return self.functional.group_norm(x, GROUPS, eps=EPS)


Library = NumbaNorm | NumPy | Torch


def libraries() -> tuple[Library, ...]:
    """Those that are installed."""
    return (NumbaNorm(), NumPy(), Torch()) if find_spec("torch") else (NumbaNorm(), NumPy())
