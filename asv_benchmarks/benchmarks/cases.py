"""The table of the suite: each operation once, and how each library computes it.

Names and callables come from the same row, so nothing is timed under another's name. A
row holds a factory per library, which turns data into a callable without arguments: what
is timed is the library's work and nothing else.

The exact result is that of the NumPy formula in float64, whose two passes are right to
twelve digits or more even far from zero. numbanorm and torch are written independently
of it, so a wrong formula would disagree with two others.

torch is optional, and slow to import: it is imported when one of its cases is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

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
    """A row of the table.

    `layout` says which shapes the operation takes and what its parameters belong to:
    "rows" and "columns" (rows, cols); "images" (N, C, H, W); "channels_last" the same
    shapes, stored as (N, H, W, C).
    """

    name: str
    layout: str
    numbanorm: Factory
    numpy: Factory
    torch: Factory

    def data(self, shape: tuple[int, ...], mean: float = 1.0, std: float = 2.0) -> Data:
        """float32 operands, the same on every run."""
        rng = np.random.default_rng(SEED)
        if self.layout == "channels_last":
            shape = (shape[0], *shape[2:], shape[1])
        channels = shape[1] if self.layout == "images" else shape[-1]
        x = rng.standard_normal(shape, np.float32)
        x *= std
        x += mean
        small = rng.uniform(-0.5, 0.5, (4, channels)).astype(np.float32)
        return Data(x, small[0] + 1, small[1], small[2] * std + mean, (small[3] + 1) * std**2)

    def call(self, library: str, data: Data) -> Callable[[], Any]:
        """The operation on `data` as a callable without arguments. ImportError if the library is missing."""
        module = import_module(library)
        if library == "torch":
            data = Data(*map(module.from_numpy, data))
        factory: Factory = getattr(self, library)
        return factory(module, data)

    def reference(self, data: Data) -> np.ndarray:
        """The result in float64."""
        return as_float64(self.call("numpy", Data(*(operand.astype(np.float64) for operand in data)))())


def as_float64(result: Any) -> np.ndarray:
    """Any library's result as one array; (mean, var) along a new first axis."""
    if isinstance(result, tuple):
        return np.stack([as_float64(part) for part in result])
    return np.asarray(result, np.float64)


def numpy_mean_var(x, axis):
    return x.mean(axis), x.var(axis)


def numpy_norm(x, axis, gamma=1, beta=0):
    mean = x.mean(axis, keepdims=True)
    var = x.var(axis, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta


def numpy_rms_norm(x, gamma):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gamma


def numpy_batch_norm(x, gamma, beta, running_mean, running_var, axis, training):
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(axis), x.var(axis)
        n = x.size // mean.size
        running_mean += 0.1 * (mean - running_mean)
        running_var += 0.1 * (var * (n / (n - 1)) - running_var)
    if axis[-1] != 2:
        mean, var, gamma, beta = map(per_channel, (mean, var, gamma, beta))
    return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta


def numpy_group_norm(x, num_groups, gamma, beta):
    y = numpy_norm(x.reshape(len(x), num_groups, -1), -1).reshape(x.shape)
    return y * per_channel(gamma) + per_channel(beta)


def per_channel(parameter):
    """A parameter (C,) that broadcasts against (N, C, H, W)."""
    return parameter[:, None, None]


def torch_mean_var(torch, x, axis):
    var, mean = torch.var_mean(x, axis, correction=0)
    return mean, var


def torch_standardize(torch, x):
    var, mean = torch.var_mean(x, 0, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5)


def torch_batch_norm(torch, x, gamma, beta, running_mean, running_var, training):
    return torch.nn.functional.batch_norm(x, running_mean, running_var, gamma, beta, training)


def torch_batch_norm_nhwc(torch, x, *parameters, training):
    # To torch, an NHWC array is an image tensor with the memory format `channels_last`.
    return torch_batch_norm(torch, x.permute(0, 3, 1, 2), *parameters, training).permute(0, 2, 3, 1)


def num_groups(channels: int) -> int:
    """32, as in Wu & He (2018), or two channels a group where there are few."""
    return min(32, channels // 2)


def _mean_var(name: str, layout: str, axis: int | tuple[int, ...] | None) -> Operation:
    return Operation(
        name,
        layout,
        numbanorm=lambda nn, d: partial(nn.mean_var, d.x, axis),
        numpy=lambda _, d: partial(numpy_mean_var, d.x, axis),
        torch=lambda torch, d: partial(torch_mean_var, torch, d.x, axis),
    )


def _batch_norm(training: bool) -> Operation:
    return Operation(
        "batch_norm_training" if training else "batch_norm_evaluation",
        "images",
        numbanorm=lambda nn, d: partial(nn.batch_norm, *d, training=training),
        numpy=lambda _, d: partial(numpy_batch_norm, *d, axis=(0, 2, 3), training=training),
        torch=lambda torch, d: partial(torch_batch_norm, torch, *d, training=training),
    )


def _batch_norm_nhwc(training: bool) -> Operation:
    return Operation(
        "batch_norm_training_nhwc" if training else "batch_norm_evaluation_nhwc",
        "channels_last",
        numbanorm=lambda nn, d: partial(nn.batch_norm, *d, training=training, channel_axis=-1),
        numpy=lambda _, d: partial(numpy_batch_norm, *d, axis=(0, 1, 2), training=training),
        torch=lambda torch, d: partial(torch_batch_norm_nhwc, torch, *d, training=training),
    )


STATISTICS = (
    _mean_var("mean_var_last_axis", "rows", -1),
    _mean_var("mean_var_all_axes", "rows", None),
    Operation(
        "var_last_axis",
        "rows",
        numbanorm=lambda nn, d: partial(nn.var, d.x, -1),
        numpy=lambda _, d: partial(np.var, d.x, -1),
        torch=lambda torch, d: partial(torch.var, d.x, -1, correction=0),
    ),
    _mean_var("mean_var_first_axis", "columns", 0),
    _mean_var("mean_var_channels", "images", (0, 2, 3)),
)

NORMS = (
    Operation(
        "layer_norm",
        "rows",
        numbanorm=lambda nn, d: partial(nn.layer_norm, d.x, d.gamma, d.beta),
        numpy=lambda _, d: partial(numpy_norm, d.x, -1, d.gamma, d.beta),
        torch=lambda torch, d: partial(torch.nn.functional.layer_norm, d.x, d.gamma.shape, d.gamma, d.beta),
    ),
    Operation(
        "rms_norm",
        "rows",
        numbanorm=lambda nn, d: partial(nn.rms_norm, d.x, d.gamma),
        numpy=lambda _, d: partial(numpy_rms_norm, d.x, d.gamma),
        torch=lambda torch, d: partial(torch.nn.functional.rms_norm, d.x, d.gamma.shape, d.gamma, 1e-6),
    ),
    Operation(
        "standardize",
        "columns",
        numbanorm=lambda nn, d: partial(nn.standardize, d.x, 0),
        numpy=lambda _, d: partial(numpy_norm, d.x, 0),
        torch=lambda torch, d: partial(torch_standardize, torch, d.x),
    ),
    _batch_norm(training=True),
    _batch_norm(training=False),
    _batch_norm_nhwc(training=True),
    _batch_norm_nhwc(training=False),
    Operation(
        "group_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
        numpy=lambda _, d: partial(numpy_group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
        torch=lambda torch, d: partial(torch.nn.functional.group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
    ),
    Operation(
        "instance_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.instance_norm, d.x, d.gamma, d.beta),
        numpy=lambda _, d: partial(numpy_norm, d.x, (2, 3), per_channel(d.gamma), per_channel(d.beta)),
        torch=lambda torch, d: partial(torch.nn.functional.instance_norm, d.x, weight=d.gamma, bias=d.beta),
    ),
)

OPERATIONS = {operation.name: operation for operation in (*STATISTICS, *NORMS)}
