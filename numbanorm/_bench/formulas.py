"""What NumPy and torch compute where no single call of theirs does the whole operation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Axes = int | tuple[int, ...] | None


def numpy_mean_var(x: Array, axis: Axes) -> tuple[Any, Any]:
    """NumPy's two calls, each with its own passes over x."""
    return x.mean(axis), x.var(axis)


def numpy_norm(x: Array, axis: Axes, gamma: Any = 1, beta: Any = 0) -> Array:
    """A norm as its formula is written down, with a temporary for every operation."""
    mean = x.mean(axis, keepdims=True)
    var = x.var(axis, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(var + 1e-5) * gamma + beta)


def numpy_rms_norm(x: Array, gamma: Array) -> Array:
    """The same for the mean square, over the last axis."""
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gamma)


def numpy_batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    axis: tuple[int, ...],
    training: bool,
) -> Array:
    """Batch norm over `axis`; in training the running statistics are updated in place, as torch does."""
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(axis), x.var(axis)
        n = x.size // mean.size
        running_mean += 0.1 * (mean - running_mean)
        running_var += 0.1 * (var * (n / (n - 1)) - running_var)
    if axis[-1] != 2:
        mean, var, gamma, beta = map(per_channel, (mean, var, gamma, beta))
    return np.asarray((x - mean) / np.sqrt(var + 1e-5) * gamma + beta)


def numpy_group_norm(x: Array, num_groups: int, gamma: Array, beta: Array) -> Array:
    """Group norm of images (N, C, H, W): a norm of the groups as rows, then a parameter for each channel."""
    y = numpy_norm(x.reshape(len(x), num_groups, -1), -1).reshape(x.shape)
    return np.asarray(y * per_channel(gamma) + per_channel(beta))


def per_channel(parameter: Array) -> Array:
    """A parameter (C,) that broadcasts against (N, C, H, W)."""
    return parameter[:, None, None]


def torch_mean_var(torch: Any, x: Any, axis: Axes) -> tuple[Any, Any]:
    """torch's one call, in the order of ours."""
    var, mean = torch.var_mean(x, axis, correction=0)
    return mean, var


def torch_standardize(torch: Any, x: Any) -> Any:
    """Columns standardised, for which torch has no call without running statistics."""
    var, mean = torch.var_mean(x, 0, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5)


def torch_batch_norm(torch: Any, x: Any, *parameters: Any, training: bool) -> Any:
    """torch's call with its parameters in the order of ours."""
    gamma, beta, running_mean, running_var = parameters
    return torch.nn.functional.batch_norm(x, running_mean, running_var, gamma, beta, training)


def torch_batch_norm_nhwc(torch: Any, x: Any, *parameters: Any, training: bool) -> Any:
    """The same for an NHWC array, which to torch is an image tensor with the memory format `channels_last`."""
    return torch_batch_norm(torch, x.permute(0, 3, 1, 2), *parameters, training=training).permute(0, 2, 3, 1)
