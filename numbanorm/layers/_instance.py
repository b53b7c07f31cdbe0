"""Instance norm layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._engine_backward import Gradients
from numbanorm._errors import wrong_rank
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._gradients import Kept
from numbanorm.layers._tracking import TrackingLayer
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms._instance import tracked_instance_norm
from numbanorm.norms_backward import batch_norm_backward, instance_norm_backward

Array = NDArray[Any]


class _InstanceNorm(TrackingLayer):
    """Instance normalisation of a fixed number of spatial axes; (C, ...) is a batch of one."""

    _spatial: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        momentum_convention: str = "torch",
        running_var: str = "unbiased",
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            momentum_convention,
            running_var,
            1,
            dtype,
            device,
        )

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
        """Normalise x, updating the running statistics in training if they are tracked.

        A mask is that of :func:`numbanorm.instance_norm`; an unbatched x has a single length.
        """
        array = as_array(x)
        unbatched = array.ndim == self._spatial + 1
        if not unbatched and array.ndim != self._spatial + 2:
            raise wrong_rank((self._spatial + 1, self._spatial + 2), array.ndim)
        batch = array[None] if unbatched else array
        self._check_channels(batch)
        target = out[None] if unbatched and out is not None else out
        if unbatched and length_axis is not None:
            length_axis += length_axis >= 0
        chosen = MaskArguments(where, lengths, length_axis, padding)
        y, *statistics = tracked_instance_norm(
            batch,
            self.gamma,
            self.beta,
            self.running_mean,
            self.running_var,
            training=self.training,
            settings=BatchNormSettings(
                self._weight_of_new() if self.track_running_stats else 0.0, self.eps, 1, self.biased
            ),
            out=target,
            want=self._want(),
            chosen=chosen,
        )
        fixed = self.track_running_stats and not self.training
        self._keep(batch, target, statistics, fixed=fixed, chosen=chosen)
        if self.training:
            self._count_batch()
        if out is not None:
            return out
        return y[0] if unbatched else y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, fixed = kept[:4]
        unbatched = dy.ndim == self._spatial + 1 and len(x) == 1
        batch, target = (dy[None], None if out is None else out[None]) if unbatched else (dy, out)
        operands = (batch, x, self.gamma, mean, rstd)
        if fixed:
            dx, *rest = batch_norm_backward(*operands, training=False, out=target, **kept.chosen.given())
        else:
            dx, *rest = instance_norm_backward(*operands, out=target, **kept.chosen.given())
        result = out if out is not None else (dx[0] if unbatched else dx)
        return result, rest[0], rest[1]


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L).

    Each channel of each sample is normalised by its own mean and biased variance. With
    ``track_running_stats=True`` the running statistics are the means over the samples of the
    instances' means and unbiased variances, and evaluation uses them.

    Parameters are those of :class:`BatchNorm`, with torch's defaults for this layer: no
    parameters, no running statistics. Unlike torch, `num_batches_tracked` counts.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.InstanceNorm1d(1, track_running_stats=True)
    >>> y = layer(np.array([[[1.0, 3.0]], [[2.0, 6.0]]], np.float32))
    >>> layer.running_var
    array([1.4], dtype=float32)
    """

    _spatial = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W); see :class:`InstanceNorm1d`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.InstanceNorm2d(8, affine=True)
    InstanceNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=False)
    """

    _spatial = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W); see :class:`InstanceNorm1d`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.InstanceNorm3d(8).num_parameters()
    0
    """

    _spatial = 3
