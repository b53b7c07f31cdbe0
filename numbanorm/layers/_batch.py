"""Batch norm layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._arrays import place_of
from numbanorm._engine_backward import Gradients
from numbanorm._errors import check_choice, degenerate_batch, warn_caller, wrong_rank
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm._recurrences import reciprocal_std
from numbanorm.layers._gradients import Kept
from numbanorm.layers._tracking import TrackingLayer
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms_backward import batch_norm_backward

Array = NDArray[Any]


class BatchNorm(TrackingLayer):
    """Batch normalisation over every axis but the channels', for any rank from (N, C) up.

    In training, each channel is normalised by the mean and biased variance of the batch, and
    the running statistics move towards them; in evaluation the running statistics are used.
    See :func:`numbanorm.batch_norm` for the formula.

    Parameters
    ----------
    num_features : int
        Number of channels C.
    channel_axis : int
        Where the channels are: 1 (default) for (N, C, ...), -1 for channels-last.
    eps : float
        Added to the variance; positive.
    momentum : float or None
        Weight of the new statistics (see `momentum_convention`); None gives the cumulative
        average, in which every batch counts alike, also for channels of which nothing took part.
    affine : bool
        Whether there are parameters gamma (1) and beta (0), both (C,).
    track_running_stats : bool
        If False there are no running statistics, and evaluation uses those of the batch too.
    momentum_convention : {"torch", "keep"}
        "keep" makes `momentum` the weight of the *old* statistics, as in Keras (0.99), flax,
        ONNX (0.9) and Chainer.
    running_var : {"unbiased", "biased"}
        Which variance is tracked: n/(n-1) times the batch's as in torch and Chainer, or the
        batch's own as in Keras, flax and ONNX.
    on_degenerate : {"raise", "warn", "running", "zero"}
        What to do in training with one value per channel, which has no variance: raise
        (default); return beta ("zero"), with a RuntimeWarning ("warn"); or use the running
        statistics ("running"). The last three leave the running statistics alone.
    dtype : dtype
        Of parameters and running statistics.

    Attributes
    ----------
    gamma, beta, running_mean, running_var : numpy.ndarray or None
        All (C,).
    num_batches_tracked : numpy.ndarray or None
        0-d int64.

    Raises
    ------
    ValueError
        On a bad option; on a call, if the input's rank or channels do not fit, or there is one
        value per channel in training.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> bn = nn.BatchNorm(2)
    >>> bn(np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> bn.running_mean
    array([0.2, 2. ], dtype=float32)
    >>> bn.eval()(np.zeros((1, 2), np.float32)).round(2)
    array([[-0.19, -0.44]], dtype=float32)
    """

    _ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        channel_axis: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        momentum_convention: str = "torch",
        running_var: str = "unbiased",
        on_degenerate: str = "raise",
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        check_choice("on_degenerate", on_degenerate, ("raise", "warn", "running", "zero"))
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            momentum_convention,
            running_var,
            channel_axis,
            dtype,
            device,
        )
        self.on_degenerate = on_degenerate

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
        if self._ranks and array.ndim not in self._ranks:
            raise wrong_rank(self._ranks, array.ndim)
        self._check_channels(array)
        if not self.training:
            return self._apply(array, out, chosen, training=not self.track_running_stats, updating=False)
        if array.size == self.num_features:
            return self._degenerate(array, out, chosen)
        y = self._apply(array, out, chosen, training=True, updating=self.track_running_stats)
        self._count_batch()
        return y

    def _apply(self, x: Array, out: Array | None, chosen: MaskArguments, *, training: bool, updating: bool) -> Array:
        mean, var = (self.running_mean, self.running_var) if updating or not training else (None, None)
        momentum = self._weight_of_new() if updating else 0.0
        batch = BatchNormSettings(momentum, self.eps, self.channel_axis, self.biased)
        operands = (x, self.gamma, self.beta, mean, var)
        y, *statistics = batch(*operands, training=training, out=out, want=self._want(), chosen=chosen)
        self._keep(x, out, statistics, fixed=not training, chosen=chosen)
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, fixed = kept[:4]
        gradients: Gradients = batch_norm_backward(
            dy,
            x,
            self.gamma,
            mean,
            rstd,
            training=not fixed,
            channel_axis=self.channel_axis,
            out=out,
            **kept.chosen.given(),
        )
        return gradients

    def _degenerate(self, x: Array, out: Array | None, chosen: MaskArguments) -> Array:
        """One value per channel in training."""
        if self.on_degenerate == "raise":
            raise degenerate_batch(x.shape)
        if self.on_degenerate == "running":
            if not self.track_running_stats:
                raise ValueError('on_degenerate="running" needs track_running_stats=True')
            return self._apply(x, out, chosen, training=False, updating=False)
        if self.on_degenerate == "warn":
            warn_caller(str(degenerate_batch(x.shape)))
        # Each value is its own mean, so that x - mean is zero and beta remains.
        batch = BatchNormSettings(0.0, self.eps, self.channel_axis, self.biased)
        place = place_of(x)
        mean = place.duplicate(x).reshape(-1)
        var = place.zeros(mean.shape)
        y: Array = batch(x, self.gamma, self.beta, mean, var, training=False, out=out, chosen=chosen)[0]
        # An rstd of zero is that of a y which does not depend on x.
        self._keep(x, out, (place.zeros(mean.shape),) * 2 if self._keeps() else (), fixed=True, chosen=chosen)
        return y

    def folded(self) -> tuple[Array, Array]:
        """(scale, shift), both (C,), such that evaluation is ``x * scale + shift``.

        ``scale = gamma / sqrt(running_var + eps)``, ``shift = beta - running_mean * scale``.

        Raises
        ------
        ValueError
            Without running statistics.

        Examples
        --------
        >>> import numbanorm as nn
        >>> scale, shift = nn.BatchNorm(3, eps=0.0).folded()
        >>> scale, shift
        (array([1., 1., 1.], dtype=float32), array([0., 0., 0.], dtype=float32))
        """
        scale, shift = (self._brought(exact.astype(self.dtype)) for exact in self.folded_exactly())
        return scale, shift

    def folded_exactly(self) -> tuple[Array, Array]:
        """:meth:`folded` in float64, not yet rounded; NumPy's, wherever the layer is."""
        if not self.track_running_stats:
            raise ValueError("folded() needs running statistics, but track_running_stats is False")
        state = self.state_dict()
        scale = reciprocal_std(state["running_var"].astype(np.float64), self.eps, False) * state.get("weight", 1)
        return scale, state.get("bias", 0) - state["running_mean"].astype(np.float64) * scale


class _BatchNormNd(BatchNorm):
    """Batch norm of a fixed rank, with torch's order of arguments."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        channel_axis: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(num_features, channel_axis, eps, momentum, affine, track_running_stats, **options)


class BatchNorm1d(_BatchNormNd):
    """Batch normalisation of (N, C) or (N, C, L); see :class:`BatchNorm`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.BatchNorm1d(3)
    BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    """

    _ranks = (2, 3)


class BatchNorm2d(_BatchNormNd):
    """Batch normalisation of images (N, C, H, W); see :class:`BatchNorm`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.BatchNorm2d(100).num_parameters()
    200
    """

    _ranks = (4,)


class BatchNorm3d(_BatchNormNd):
    """Batch normalisation of volumes (N, C, D, H, W); see :class:`BatchNorm`.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.BatchNorm3d(4, affine=False).num_parameters()
    0
    """

    _ranks = (5,)
