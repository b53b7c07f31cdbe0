"""The group norm layer."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._engine_backward import Gradients
from numbanorm._errors import check_eps, check_groups, wrong_length
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._exchange import Exchangeable, Paths
from numbanorm.layers._gradients import Kept
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms._group import normalize_groups
from numbanorm.norms_backward import group_norm_backward

Array = NDArray[Any]


class GroupNorm(Exchangeable):
    """Group normalisation of (N, C, ...); see :func:`numbanorm.group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        The first divides the second.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are parameters gamma and beta, both (num_channels,).
    channel_axis : int
        Where the channels are.

    Raises
    ------
    ValueError
        If `num_groups` is not positive or does not divide `num_channels`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.GroupNorm(2, 6)
    GroupNorm(2, 6, eps=1e-05, affine=True)
    """

    _onnx_names: Paths = {"beta": ("bias",)}  # noqa: RUF012

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        check_eps(type(self).__name__, eps)
        check_groups(num_channels, num_groups)
        self.num_groups, self.num_channels = index(num_groups), index(num_channels)
        self.eps = eps
        self.affine = affine
        self.channel_axis = channel_axis
        self.gamma = self._filled(1, self.num_channels) if affine else None
        self.beta = self._filled(0, self.num_channels) if affine else None

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
        """Normalise each group of channels of each sample; a mask is that of :func:`numbanorm.group_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array = as_array(x)
        channels = array.shape[channel_axis_of(array, self.channel_axis)]
        if channels != self.num_channels:
            raise wrong_length("gamma", (channels,), (self.num_channels,))
        keeps = self._keeps()
        options = self.eps, self.channel_axis, chosen, out, keeps
        y, *statistics = normalize_groups(array, self.num_groups, self.gamma, self.beta, *options)
        samples_first = channel_axis_of(array, self.channel_axis) > 0
        shape = (-1, self.num_groups) if samples_first else (self.num_groups, -1)
        self._keep(array, out, [statistic.reshape(shape) for statistic in statistics], chosen=chosen)
        return y  # type: ignore[no-any-return]

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, _ = kept[:4]
        gradients: Gradients = group_norm_backward(
            dy,
            x,
            self.num_groups,
            self.gamma,
            mean,
            rstd,
            channel_axis=self.channel_axis,
            out=out,
            **kept.chosen.given(),
        )
        return gradients

    def _settings(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
