"""Variants of batch norm: renormalised, and of virtual batches."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._engine_backward import Gradients
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._gradients import Kept
from numbanorm.layers._tracking import TrackingLayer
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms._ghost import ghost_batch_norm, train, virtual_batches
from numbanorm.norms._renorm import batch_renorm, check_limits
from numbanorm.norms_backward._ghost import ghost_batch_norm_backward
from numbanorm.norms_backward._renorm import batch_renorm_backward

Array = NDArray[Any]


class BatchRenorm(TrackingLayer):
    """Batch renormalisation over every axis but the channels'; see :func:`numbanorm.batch_renorm`.

    Parameters
    ----------
    num_features : int
        Number of channels C.
    r_max, d_max : float
        Limits of the correction. They are attributes too, to be raised while training goes on,
        from 1 and 0 (batch norm) to 3 and 5, as the article does.
    eps, momentum, affine, momentum_convention, channel_axis
        As in :class:`BatchNorm`. The article's momentum is 0.01.

    Raises
    ------
    ValueError
        On a bad option; on a call as :func:`batch_renorm`.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.BatchRenorm(2, r_max=1, d_max=0)
    >>> layer(np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.r_max, layer.d_max = 3, 5
    >>> layer
    BatchRenorm(2, r_max=3, d_max=5, eps=1e-05, momentum=0.1, affine=True)
    """

    def __init__(
        self,
        num_features: int,
        r_max: float = 3.0,
        d_max: float = 5.0,
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
        check_limits(r_max, d_max)
        self.r_max = r_max
        self.d_max = d_max

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
        """Normalise x, updating the running statistics in training; a mask is that of :func:`numbanorm.batch_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array, keeps = as_array(x), self._keeps()
        self._check_channels(array)
        result = batch_renorm(
            array,
            self.gamma,
            self.beta,
            self.running_mean,
            self.running_var,
            training=self.training,
            r_max=self.r_max,
            d_max=self.d_max,
            momentum=self._weight_of_new(),
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            return_stats=keeps,
            **chosen.given(),
        )
        if self.training:
            self._count_batch()
        statistics, also = (result[1:3], result[3:]) if keeps else ((), ())
        self._keep(array, out, statistics, fixed=not self.training, also=also, chosen=chosen)
        y: Array = result[0] if keeps else result
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, fixed, corrections = kept[:5]
        gradients: Gradients = batch_renorm_backward(
            *(dy, x, self.gamma, mean, rstd, *corrections),
            training=not fixed,
            channel_axis=self.channel_axis,
            out=out,
            **kept.chosen.given(),
        )
        return gradients

    def _settings(self) -> str:
        limits = f"r_max={self.r_max}, d_max={self.d_max}"
        return f"{self.num_features}, {limits}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class GhostBatchNorm(TrackingLayer):
    """Batch normalisation of virtual batches; see :func:`numbanorm.ghost_batch_norm`.

    Every virtual batch updates the running statistics, and is counted, as if it had come alone.

    Parameters
    ----------
    num_features : int
        Number of channels C.
    virtual_batch_size : int
        Most samples of a virtual batch.
    eps, momentum, affine, momentum_convention, running_var, channel_axis
        As in :class:`BatchNorm`.

    Raises
    ------
    ValueError
        On a bad option; on a call as :func:`ghost_batch_norm`.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.GhostBatchNorm(1, virtual_batch_size=2)
    >>> layer(np.array([[1.0], [3.0], [10.0], [50.0]], np.float32)).round(3).ravel()
    array([-1.,  1., -1.,  1.], dtype=float32)
    >>> int(layer.num_batches_tracked)
    2
    """

    def __init__(
        self,
        num_features: int,
        virtual_batch_size: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        momentum_convention: str = "torch",
        running_var: str = "unbiased",
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        options = momentum_convention, running_var, channel_axis, dtype, device
        super().__init__(num_features, eps, momentum, affine, True, *options)
        self.virtual_batch_size = index(virtual_batch_size)
        if self.virtual_batch_size < 1:
            raise ValueError(f"virtual_batch_size must be positive, but got {self.virtual_batch_size}")

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
        """Normalise x, updating the running statistics in training; a mask is that of :func:`numbanorm.batch_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array = as_array(x)
        self._check_channels(array)
        call = self._train if self.training else self._evaluate
        y, *statistics = call(array, out, chosen)
        self._keep(array, out, statistics, fixed=not self.training, chosen=chosen)
        return y

    def _operands(self, x: Array) -> tuple[Any, ...]:
        return x, self.gamma, self.beta, self.running_mean, self.running_var

    def _train(self, x: Array, out: Array | None, chosen: MaskArguments) -> tuple[Array, ...]:
        count = self.num_batches_tracked
        assert count is not None
        n = len(virtual_batches(x, channel_axis_of(x, self.channel_axis), self.virtual_batch_size))
        momenta = [1 / (int(count) + 1 + i) if self.momentum is None else self._weight_of_new() for i in range(n)]
        settings = BatchNormSettings(0.0, self.eps, self.channel_axis, self.biased)
        result = train(settings, self._operands(x), self.virtual_batch_size, momenta, out, self._keeps(), chosen)
        count += n
        return result

    def _evaluate(self, x: Array, out: Array | None, chosen: MaskArguments) -> Any:
        result = ghost_batch_norm(
            *self._operands(x),
            virtual_batch_size=self.virtual_batch_size,
            training=False,
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            return_stats=self._keeps(),
            **chosen.given(),
        )
        return result if self._keeps() else (result,)

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, fixed = kept[:4]
        gradients: Gradients = ghost_batch_norm_backward(
            dy,
            x,
            self.gamma,
            mean,
            rstd,
            virtual_batch_size=self.virtual_batch_size,
            training=not fixed,
            channel_axis=self.channel_axis,
            out=out,
            **kept.chosen.given(),
        )
        return gradients

    def _settings(self) -> str:
        size = f"virtual_batch_size={self.virtual_batch_size}"
        return f"{self.num_features}, {size}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
