"""What masks and lengths cost: the time of a call that leaves elements out over that of a call of all; less is better.

The mask takes four elements of five; lengths lie between 30 and 100 % of their axis, so that a third of x is padding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import numbanorm as nn

from .common import SMOKE, ratio

#: name -> (call of x, axis along which samples are padded, where channels lie last).
CALLS: dict[str, tuple[Callable[..., Any], int, bool]] = {
    "mean_var over the channels": (partial(nn.mean_var, axis=(0, 2)), 2, False),
    "batch_norm": (partial(nn.batch_norm, training=True), 2, False),
    "batch_norm channels last": (partial(nn.batch_norm, training=True, channel_axis=-1), 1, True),
    "instance_norm": (nn.instance_norm, 2, False),
    "group_norm": (partial(nn.group_norm, num_groups=8), 2, False),
    "layer_norm": (nn.layer_norm, 1, True),
    "layer_norm of the padded axis": (nn.layer_norm, 2, False),
    "rms_norm": (nn.rms_norm, 1, True),
}
#: (samples, channels, length)
SHAPES = [(2, 8, 16)] if SMOKE else [(16, 64, 512), (64, 256, 1024)]


def chosen(name: str, shape: tuple[int, int, int], by: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The call that leaves elements out, and the same call of all of x."""
    call, axis, last = CALLS[name]
    samples, channels, length = shape
    rng = np.random.default_rng(20160721)
    x = rng.standard_normal((samples, length, channels) if last else shape, np.float32)
    options: dict[str, Any] = {"where": rng.random(x.shape) < 0.8}
    if by == "lengths":
        options = {"lengths": rng.integers(3 * length // 10, length + 1, samples), "length_axis": axis}
    return partial(call, x, **options), partial(call, x)


class Cost:
    """Of a call with `where`, or with `lengths`."""

    params = (list(CALLS), SHAPES, ["where", "lengths"])
    param_names = ("call", "shape", "by")
    timeout = 600

    def setup(self, name: str, shape: tuple[int, int, int], by: str) -> None:
        some, every = chosen(name, shape, by)
        self.calls = {"some": some, "all": every}
        some(), every()

    def track_cost(self, *_: Any) -> float:
        return ratio(self.calls, "some", "all")

    track_cost.unit = "times the time of the call without"


class CostOfGradient:
    """Of the gradient of layer and batch norm."""

    params = (["layer_norm", "batch_norm"], SHAPES, ["where", "lengths"])
    param_names = ("call", "shape", "by")
    timeout = 600

    def setup(self, name: str, shape: tuple[int, int, int], by: str) -> None:
        calls = dict(zip(("some", "all"), chosen(name, shape, by), strict=True))
        gradient = nn.layer_norm_backward
        if name == "batch_norm":
            gradient = partial(nn.batch_norm_backward, training=True)
        self.calls = {}
        for which, call in calls.items():
            y, mean, rstd = call(return_stats=True)
            options = {k: v for k, v in call.keywords.items() if k in ("where", "lengths", "length_axis")}
            self.calls[which] = partial(gradient, y, call.args[0], None, mean, rstd, **options)
            self.calls[which]()

    def track_cost(self, *_: Any) -> float:
        return ratio(self.calls, "some", "all")

    track_cost.unit = "times the time of the gradient without"
