"""The operations: each once, and how each library computes it.

Names and callables come from the same row, so nothing is timed under another's name. A
row holds a factory per library, which turns data into a callable without arguments: what
is timed is the library's work and nothing else.

The exact result is that of the NumPy formula in float64, whose two passes are right to
twelve digits or more even far from zero. numbanorm and torch are written independently
of it, so a wrong formula would disagree with two others.

torch is optional, and slow to import: it is imported when one of its cases is asked for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from numbanorm._bench import formulas, gradients
from numbanorm._bench.formulas import per_channel
from numbanorm._bench.operation import LIBRARIES, Array, Data, Factory, Operation, Shape, as_float64, dtype_named

__all__ = [
    "GRADIENTS",
    "LIBRARIES",
    "NORMS",
    "OPERATIONS",
    "STATISTICS",
    "VARIANTS",
    "Array",
    "Data",
    "Operation",
    "Shape",
    "as_float64",
    "dtype_named",
]


def num_groups(channels: int) -> int:
    """32, as in Wu & He (2018), or two channels a group where there are few."""
    return min(32, channels // 2)


def _mean_var(name: str, layout: str, axis: int | tuple[int, ...] | None) -> Operation:
    return Operation(
        name,
        layout,
        numbanorm=lambda nn, d: partial(nn.mean_var, d.x, axis),
        numpy=lambda _, d: partial(formulas.numpy_mean_var, d.x, axis),
        torch=lambda torch, d: partial(formulas.torch_mean_var, torch, d.x, axis),
        is_norm=False,
    )


def _var(name: str, layout: str, axis: int | tuple[int, ...]) -> Operation:
    return Operation(
        name,
        layout,
        numbanorm=lambda nn, d: partial(nn.var, d.x, axis),
        numpy=lambda _, d: partial(np.var, d.x, axis),
        torch=lambda torch, d: partial(torch.var, d.x, axis, correction=0),
        is_norm=False,
    )


def _batch_norm(training: bool) -> Operation:
    return Operation(
        "batch_norm_training" if training else "batch_norm_evaluation",
        "images",
        numbanorm=lambda nn, d: partial(nn.batch_norm, *d, training=training),
        numpy=lambda _, d: partial(formulas.numpy_batch_norm, *d, axis=(0, 2, 3), training=training),
        torch=lambda torch, d: partial(formulas.torch_batch_norm, torch, *d, training=training),
    )


def _batch_norm_nhwc(training: bool) -> Operation:
    return Operation(
        "batch_norm_training_nhwc" if training else "batch_norm_evaluation_nhwc",
        "channels_last",
        numbanorm=lambda nn, d: partial(nn.batch_norm, *d, training=training, channel_axis=-1),
        numpy=lambda _, d: partial(formulas.numpy_batch_norm, *d, axis=(0, 1, 2), training=training),
        torch=lambda torch, d: partial(formulas.torch_batch_norm_nhwc, torch, *d, training=training),
    )


#: Samples of a virtual batch.
GHOST = 2


def _switched(data: Data) -> tuple[Any, ...]:
    """Operands of a switchable norm; its six weights are the parameters of three channels."""
    x, gamma, beta, mean, var = data
    return x, gamma, beta, gamma[:3], beta[:3], mean, var


STATISTICS = (
    _mean_var("mean_var_last_axis", "rows", -1),
    _mean_var("mean_var_all_axes", "rows", None),
    _var("var_last_axis", "rows", -1),
    _mean_var("mean_var_first_axis", "columns", 0),
    _var("var_first_axis", "columns", 0),
    _mean_var("mean_var_channels", "images", (0, 2, 3)),
    _mean_var("mean_var_instances", "images", (2, 3)),
    _mean_var("mean_var_middle_axis", "images", 1),
    _var("var_channels", "images", (0, 2, 3)),
    _var("var_middle_axis", "images", 1),
)

NORMS = (
    Operation(
        "layer_norm",
        "rows",
        numbanorm=lambda nn, d: partial(nn.layer_norm, d.x, d.gamma, d.beta),
        numpy=lambda _, d: partial(formulas.numpy_norm, d.x, -1, d.gamma, d.beta),
        torch=lambda torch, d: partial(torch.nn.functional.layer_norm, d.x, d.gamma.shape, d.gamma, d.beta),
    ),
    Operation(
        "rms_norm",
        "rows",
        numbanorm=lambda nn, d: partial(nn.rms_norm, d.x, d.gamma),
        numpy=lambda _, d: partial(formulas.numpy_rms_norm, d.x, d.gamma),
        torch=lambda torch, d: partial(torch.nn.functional.rms_norm, d.x, d.gamma.shape, d.gamma, 1e-6),
    ),
    Operation(
        "standardize",
        "columns",
        numbanorm=lambda nn, d: partial(nn.standardize, d.x, 0),
        numpy=lambda _, d: partial(formulas.numpy_norm, d.x, 0),
        torch=lambda torch, d: partial(formulas.torch_standardize, torch, d.x),
    ),
    _batch_norm(training=True),
    _batch_norm(training=False),
    _batch_norm_nhwc(training=True),
    _batch_norm_nhwc(training=False),
    Operation(
        "group_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
        numpy=lambda _, d: partial(formulas.numpy_group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
        torch=lambda torch, d: partial(torch.nn.functional.group_norm, d.x, num_groups(len(d.gamma)), d.gamma, d.beta),
    ),
    Operation(
        "instance_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.instance_norm, d.x, d.gamma, d.beta),
        numpy=lambda _, d: partial(formulas.numpy_norm, d.x, (2, 3), per_channel(d.gamma), per_channel(d.beta)),
        torch=lambda torch, d: partial(torch.nn.functional.instance_norm, d.x, weight=d.gamma, bias=d.beta),
    ),
)


def _gradient(of: str, numbanorm: Factory, numpy: Factory, *leaves: str) -> Operation:
    """That of a norm; torch finds it by itself, with respect to x and the parameters among `leaves`."""
    norm = next(norm for norm in NORMS if norm.name == of)
    torch = gradients.by_torch(norm.torch, "x", *leaves)
    return Operation(f"{of}_backward", norm.layout, numbanorm, numpy, torch, is_gradient=True)


def _batch_norm_gradient(training: bool, nhwc: bool) -> Operation:
    axis, options = ((0, 1, 2), {"channel_axis": -1}) if nhwc else ((0, 2, 3), {})
    spread = (lambda parameter: parameter) if nhwc else per_channel

    def ours(nn: Any, d: Data) -> Any:
        """After a forward, whose statistics the gradient takes."""
        result = nn.batch_norm(*d, training=training, return_stats=True, **options)
        return gradients.ours(nn.batch_norm_backward, d, result, training=training, **options)

    def numpy(_: Any, d: Data) -> Any:
        """In evaluation with the running statistics, else with x's own."""
        given = None if training else (spread(d.running_mean), spread(d.running_var))
        return partial(gradients.numpy_gradient, d.x, spread(d.gamma), axis, axis, given=given)

    name = f"batch_norm_{'training' if training else 'evaluation'}{'_nhwc' if nhwc else ''}"
    return _gradient(name, ours, numpy, "gamma", "beta")


GRADIENTS = (
    _gradient(
        "layer_norm",
        lambda nn, d: gradients.ours(nn.layer_norm_backward, d, nn.layer_norm(d.x, d.gamma, d.beta, return_stats=True)),
        lambda _, d: partial(gradients.numpy_gradient, d.x, d.gamma, -1, 0),
        "gamma",
        "beta",
    ),
    _gradient(
        "rms_norm",
        lambda nn, d: gradients.ours(nn.rms_norm_backward, d, nn.rms_norm(d.x, d.gamma, return_stats=True)),
        lambda _, d: partial(gradients.numpy_gradient, d.x, d.gamma, -1, 0, eps=1e-6, use_mean=False),
        "gamma",
    ),
    _batch_norm_gradient(training=True, nhwc=False),
    _batch_norm_gradient(training=False, nhwc=False),
    _batch_norm_gradient(training=True, nhwc=True),
    _batch_norm_gradient(training=False, nhwc=True),
    _gradient(
        "group_norm",
        lambda nn, d: gradients.ours(
            nn.group_norm_backward,
            d,
            nn.group_norm(d.x, num_groups(len(d.gamma)), d.gamma, d.beta, return_stats=True),
            num_groups(len(d.gamma)),
        ),
        lambda _, d: partial(
            gradients.numpy_gradient, d.x, per_channel(d.gamma), -1, (0, 2, 3), num_groups=num_groups(len(d.gamma))
        ),
        "gamma",
        "beta",
    ),
    _gradient(
        "instance_norm",
        lambda nn, d: gradients.ours(
            nn.instance_norm_backward, d, nn.instance_norm(d.x, d.gamma, d.beta, return_stats=True)
        ),
        lambda _, d: partial(gradients.numpy_gradient, d.x, per_channel(d.gamma), (2, 3), (0, 2, 3)),
        "gamma",
        "beta",
    ),
)

#: Timed when they are asked for by name; torch has a function for the first only.
VARIANTS = (
    Operation(
        "local_response_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.local_response_norm, d.x),
        numpy=lambda _, d: partial(formulas.numpy_local_response_norm, d.x),
        torch=lambda torch, d: partial(torch.nn.functional.local_response_norm, d.x, 5),
    ),
    Operation(
        "adaptive_instance_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.adaptive_instance_norm, d.x, d.x[:1]),
        numpy=lambda _, d: partial(formulas.numpy_adaptive_instance_norm, d.x, d.x[:1]),
        torch=lambda torch, d: partial(formulas.torch_adaptive_instance_norm, torch, d.x, d.x[:1]),
    ),
    Operation(
        "ghost_batch_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.ghost_batch_norm, *d, virtual_batch_size=GHOST, training=True),
        numpy=lambda _, d: partial(formulas.in_pieces, np, formulas.numpy_batch_norm, GHOST, *d, axis=(0, 2, 3)),
        torch=lambda torch, d: partial(formulas.in_pieces, torch, partial(formulas.torch_batch_norm, torch), GHOST, *d),
    ),
    Operation(
        "switchable_norm",
        "images",
        numbanorm=lambda nn, d: partial(nn.switchable_norm, *_switched(d), training=True),
        numpy=lambda _, d: partial(formulas.switchable_norm, np.square, *_switched(d)),
        torch=lambda torch, d: partial(formulas.switchable_norm, torch.square, *_switched(d)),
    ),
)

OPERATIONS = {operation.name: operation for operation in (*STATISTICS, *NORMS, *GRADIENTS, *VARIANTS)}
