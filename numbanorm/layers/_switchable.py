"""The switchable norm layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._arrays import place_of
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._gradients import Kept
from numbanorm.layers._tracking import TrackingLayer
from numbanorm.norms._switchable import switchable_norm
from numbanorm.norms_backward._switchable import switchable_norm_backward

Array = NDArray[Any]


class SwitchableNorm(TrackingLayer):
    """Switchable normalisation of (N, C, ...); see :func:`numbanorm.switchable_norm`.

    Parameters
    ----------
    num_features : int
        Number of channels C.
    eps, momentum, affine, momentum_convention, channel_axis
        As in :class:`BatchNorm`; the authors' momentum of 0.9 is 0.1 here.

    Attributes
    ----------
    mean_weights, var_weights : array
        (3,): instance, layer, batch, before the softmax; they are learnt, and start at 1.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.SwitchableNorm(1)
    >>> layer(np.array([[[1.0, 3.0]]], np.float32)).round(3)
    array([[[-1.,  1.]]], dtype=float32)
    >>> list(layer.state_dict())[:4], layer.num_parameters()
    (['weight', 'bias', 'mean_weight', 'var_weight'], 8)
    """

    _learnt = ("gamma", "beta", "mean_weights", "var_weights")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        momentum_convention: str = "torch",
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        options = momentum_convention, "biased", channel_axis, dtype, device
        super().__init__(num_features, eps, momentum, affine, True, *options)
        self.mean_weights = self._filled(1, 3)
        self.var_weights = self._filled(1, 3)

    @everywhere
    def __call__(
        self,
        x: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        length_axis: int | None = None,
        padding: str = "zero",
        out: Array | None = None,
    ) -> Array:
        """Normalise x, updating the running statistics in training; a mask is that of the function."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array, keeps = as_array(x), self._keeps()
        self._check_channels(array)
        running = self.running_mean, self.running_var
        result = switchable_norm(
            array,
            *(self.gamma, self.beta, self.mean_weights, self.var_weights),
            *running,
            training=self.training,
            momentum=self._weight_of_new(),
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            return_stats=keeps,
            **chosen.given(),
        )
        if self.training:
            self._count_batch()
        # Calls in training would change the running statistics that this one has used.
        used = () if self.training or not keeps else tuple(place_of(s).duplicate(s) for s in running if s is not None)
        self._keep(array, out, result[1:] if keeps else (), fixed=not self.training, also=used, chosen=chosen)
        y: Array = result[0] if keeps else result
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> tuple[Any, ...]:
        x, mean, var, fixed, running = kept[:5]
        operands = dy, x, self.gamma, self.mean_weights, self.var_weights, mean, var, *running
        gradients: tuple[Any, ...] = switchable_norm_backward(
            *operands,
            training=not fixed,
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            **kept.chosen.given(),
        )
        return gradients

    def _settings(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
