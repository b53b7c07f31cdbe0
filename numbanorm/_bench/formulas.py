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


def numpy_local_response_norm(x: Array) -> Array:
    """torch's convention and defaults, over five channels: each window is summed anew."""
    squares = np.pad(np.square(x), ((0, 0), (2, 2), (0, 0), (0, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(squares, 5, axis=1).sum(-1)
    return np.asarray(x / (1 + 1e-4 / 5 * sums) ** 0.75)


def numpy_adaptive_instance_norm(content: Array, style: Array) -> Array:
    """Instance norm with the style's standard deviation and mean for gamma and beta (Huang & Belongie 2017)."""
    mean, std = style.mean((2, 3), keepdims=True), np.sqrt(style.var((2, 3), keepdims=True) + 1e-5)
    return numpy_norm(content, (2, 3), std, mean)


def torch_adaptive_instance_norm(torch: Any, content: Any, style: Any) -> Any:
    """The same by what torch has: it has no function for it."""
    var, mean = torch.var_mean(style, (2, 3), correction=0, keepdim=True)
    return torch.nn.functional.instance_norm(content) * torch.sqrt(var + 1e-5) + mean


def in_pieces(library: Any, norm: Any, size: int, x: Any, *parameters: Any, **options: Any) -> Any:
    """A batch norm in training of pieces of at most `size` samples, as equal as may be."""
    n, count = len(x), -(-len(x) // size)
    pieces = (x[n * i // count : n * (i + 1) // count] for i in range(count))
    return library.concatenate([norm(piece, *parameters, training=True, **options) for piece in pieces])


def switchable_norm(
    square: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    mean_weights: Any,
    var_weights: Any,
    running_mean: Any,
    running_var: Any,
) -> Any:
    """The authors' formula, in NumPy or torch."""
    w, u = ((weights - weights.max()) for weights in (mean_weights, var_weights))
    w, u = (2.718281828459045**weights for weights in (w, u))
    w, u = w / w.sum(), u / u.sum()
    flat = x.reshape(*x.shape[:2], -1)
    mean = flat.mean(-1)[..., None]
    var = square(flat - mean).mean(-1)[..., None]
    power = var + square(mean)
    layer, batch = mean.mean(1)[:, None], mean.mean(0)[None]
    layer_var, batch_var = power.mean(1)[:, None] - square(layer), power.mean(0)[None] - square(batch)
    running_mean += 0.1 * (batch.reshape(-1) - running_mean)
    running_var += 0.1 * (batch_var.reshape(-1) - running_var)
    mixed = w[0] * mean + w[1] * layer + w[2] * batch
    spread = u[0] * var + u[1] * layer_var + u[2] * batch_var
    y = (flat - mixed) / (spread + 1e-5) ** 0.5 * gamma[:, None] + beta[:, None]
    return y.reshape(x.shape)
