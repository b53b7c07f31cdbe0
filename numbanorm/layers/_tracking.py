"""What batch and instance norm share: channels and running statistics."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._errors import check_choice, check_eps, wrong_length
from numbanorm.layers._exchange import Exchangeable
from numbanorm.norms._checks import channel_axis_of

Array = NDArray[Any]


class TrackingLayer(Exchangeable):
    """What batch and instance norm share: channels and running statistics."""

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        momentum_convention: str,
        running_var: str,
        channel_axis: int,
        dtype: DTypeLike,
        device: str | int | None,
    ) -> None:
        super().__init__(dtype, device)
        check_eps(type(self).__name__, eps)
        check_choice("momentum_convention", momentum_convention, ("torch", "keep"))
        check_choice("running_var", running_var, ("unbiased", "biased"))
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1] or be None, but got {momentum}")
        self.num_features = index(num_features)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.momentum_convention = momentum_convention
        self.biased = running_var == "biased"
        self.channel_axis = channel_axis
        self.gamma = self._filled(1, self.num_features) if affine else None
        self.beta = self._filled(0, self.num_features) if affine else None
        self.reset_running_stats()

    def reset_running_stats(self) -> None:
        """Forget all batches: mean 0, variance 1, count 0."""
        tracked = self.track_running_stats
        self.running_mean = self._filled(0, self.num_features) if tracked else None
        self.running_var = self._filled(1, self.num_features) if tracked else None
        self.num_batches_tracked = np.zeros((), np.int64) if tracked else None

    def _check_channels(self, x: Array) -> None:
        channels = x.shape[channel_axis_of(x, self.channel_axis)]
        if channels != self.num_features:
            name = "running_mean" if self.track_running_stats else "gamma"
            raise wrong_length(name, (channels,), (self.num_features,))

    def _weight_of_new(self) -> float:
        """Weight of the next batch in the running statistics, in torch's sense."""
        if self.momentum is None:
            assert self.num_batches_tracked is not None
            return 1 / (int(self.num_batches_tracked) + 1)
        return self.momentum if self.momentum_convention == "torch" else 1 - self.momentum

    def _count_batch(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1

    def _settings(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )
