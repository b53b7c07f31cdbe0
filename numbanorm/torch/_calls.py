"""One call of a norm: which function of the library, with what settings.

A call knows its forward and its gradient on arrays. Its :class:`Sets` say the same in general
words, for the gradient that is composed of torch's operations.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, Protocol

from numbanorm._guests import everywhere
from numbanorm.norms import batch_norm, group_norm, layer_norm, rms_norm
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms._instance import tracked_instance_norm
from numbanorm.norms_backward import (
    batch_norm_backward,
    group_norm_backward,
    instance_norm_backward,
    layer_norm_backward,
    rms_norm_backward,
)

Axes = tuple[int, ...]


@cache
def last_axes(n: int) -> Axes:
    """The last n axes of any array."""
    return tuple(range(-n, 0))


class Sets(NamedTuple):
    """x reshaped to `view`: the axes that share statistics, and those along which parameters vary."""

    view: Axes
    reduced: Axes
    features: Axes
    use_mean: bool = True
    #: Whether statistics do not depend on x.
    fixed: bool = False


class Call(Protocol):
    """What differs between norms."""

    @property
    def eps(self) -> float:
        """Added to the variance."""

    @property
    def channels(self) -> bool:
        """Whether axis 1 of x are channels, which torch may store last."""

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        """y, or with `stats` y, mean and rstd; y in `out` if that is given."""

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
        """dx, dgamma, dbeta."""

    def sets(self, shape: Axes) -> Sets:
        """For an x of this shape."""


class LayerCall(NamedTuple):
    """Layer norm over the last axes, counted from the end."""

    axes: Axes
    eps: float

    @property
    def channels(self) -> bool:
        return False

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        return layer_norm(x, gamma, beta, axis=self.axes, eps=self.eps, return_stats=stats, out=out)

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
        return layer_norm_backward(dy, x, gamma, mean, rstd, axis=self.axes)

    def sets(self, shape: Axes) -> Sets:
        axes = tuple(range(len(shape)))[-len(self.axes) :]
        return Sets(shape, axes, axes)


class RMSCall(NamedTuple):
    """RMS norm over the last axes, counted from the end; there is no beta."""

    axes: Axes
    eps: float

    @property
    def channels(self) -> bool:
        return False

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        return rms_norm(x, gamma, axis=self.axes, eps=self.eps, return_stats=stats, out=out)

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
        return rms_norm_backward(dy, x, gamma, None, rstd, axis=self.axes)

    def sets(self, shape: Axes) -> Sets:
        return LayerCall(self.axes, self.eps).sets(shape)._replace(use_mean=False)


class GroupCall(NamedTuple):
    """Group norm of (N, C, ...)."""

    num_groups: int
    eps: float

    @property
    def channels(self) -> bool:
        return True

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        return group_norm(x, self.num_groups, gamma, beta, eps=self.eps, return_stats=stats, out=out)

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
        return group_norm_backward(dy, x, self.num_groups, gamma, mean, rstd)

    def sets(self, shape: Axes) -> Sets:
        view = shape[0], self.num_groups, shape[1] // self.num_groups, *shape[2:]
        return Sets(view, tuple(range(2, len(view))), (1, 2))


class BatchCall(NamedTuple):
    """Batch norm of (N, C, ...), which updates the running statistics in training."""

    running_mean: Any
    running_var: Any
    training: bool
    momentum: float
    eps: float

    @property
    def channels(self) -> bool:
        return True

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        running_mean, running_var, training, momentum, eps = self
        return batch_norm(
            x,
            gamma,
            beta,
            running_mean,
            running_var,
            training=training,
            momentum=momentum,
            eps=eps,
            return_stats=stats,
            out=out,
        )

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
        return batch_norm_backward(dy, x, gamma, mean, rstd, training=self.training)

    def sets(self, shape: Axes) -> Sets:
        return Sets(shape, (0, *range(2, len(shape))), (1,), fixed=not self.training)


class InstanceCall(NamedTuple):
    """Instance norm of (N, C, ...), which may track statistics, and use these in evaluation."""

    running_mean: Any
    running_var: Any
    training: bool
    momentum: float
    eps: float

    @property
    def channels(self) -> bool:
        return True

    @property
    def _fixed(self) -> bool:
        return not self.training and self.running_mean is not None

    def forward(self, x: Any, gamma: Any, beta: Any, stats: bool, out: Any = None) -> Any:
        result = _instance_norm(x, gamma, beta, *self, "rstd" if stats else "", out)
        return result if stats else result[0]

    def backward(self, dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any) -> Any:
        if self._fixed:
            return batch_norm_backward(dy, x, gamma, mean, rstd, training=False)
        return instance_norm_backward(dy, x, gamma, mean, rstd)

    def sets(self, shape: Axes) -> Sets:
        return Sets(shape, tuple(range(2, len(shape))), (1,), fixed=self._fixed)


@everywhere
def _instance_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    want: str,
    out: Any,
) -> tuple[Any, ...]:
    """What layers call, for tensors on a device too."""
    settings = BatchNormSettings(momentum, eps, 1, biased=False)
    return tracked_instance_norm(
        x, gamma, beta, running_mean, running_var, training=training, settings=settings, out=out, want=want
    )
