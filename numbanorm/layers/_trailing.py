"""Layers over the last axes: layer and RMS norm."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._engine_backward import Gradients
from numbanorm._errors import check_choice, check_eps, wrong_normalized_shape
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._exchange import Exchangeable, Paths
from numbanorm.layers._gradients import Kept
from numbanorm.norms import layer_norm, rms_norm
from numbanorm.norms_backward import layer_norm_backward, rms_norm_backward

Array = NDArray[Any]


class _TrailingAxes(Exchangeable):
    """What layer and RMS norm share: parameters over the last axes."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float,
        dtype: DTypeLike,
        device: str | int | None,
        keep: str,
    ) -> None:
        super().__init__(dtype, device)
        check_eps(type(self).__name__, eps)
        check_choice("keep", keep, ("x", "y"))
        self.keep = keep
        lengths = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(index(length) for length in lengths)
        if not self.normalized_shape or min(self.normalized_shape) < 1:
            raise ValueError(f"normalized_shape must hold positive lengths, but got {self.normalized_shape}")
        self.eps = eps

    def _axes(self, x: Array) -> tuple[int, ...]:
        n = len(self.normalized_shape)
        if x.shape[-n:] != self.normalized_shape:
            raise wrong_normalized_shape(self.normalized_shape, x.shape)
        return tuple(range(x.ndim - n, x.ndim))

    def _keeps_output(self, chosen: MaskArguments) -> bool:
        """Whether y is kept for the gradient: it says nothing of an x that has no part in it."""
        return self.keep == "y" and not chosen.chooses

    def _kept_call(self, x: Array, out: Array | None, result: Any, keeps: bool, chosen: MaskArguments) -> Array:
        """y of a norm's result, the rest of which is kept for the gradient."""
        y: Array = result[0] if keeps else result
        if self._keeps_output(chosen):
            self._keep(y, None, result[1:] if keeps else ())
        else:
            self._keep(x, out, result[1:] if keeps else (), chosen=chosen)
        return y


class LayerNorm(_TrailingAxes):
    """Layer normalisation over the last axes; see :func:`numbanorm.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Lengths of the normalised last axes, and the shape of gamma and beta.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there are parameters.
    bias : bool
        Whether beta is among them.
    keep : {"x", "y"}
        What a call keeps for :meth:`backward`. With "y", which the next layer has anyway, x may be
        freed or overwritten (y may not, before the gradient), and gamma must have no zeros; see
        `recompute` of :func:`numbanorm.layer_norm_backward`. A call with `where` or `lengths` keeps x.

    Raises
    ------
    ValueError
        On a call, if x does not end in `normalized_shape`; in :meth:`backward`, if y is kept and gamma
        has a zero.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.LayerNorm(3)
    >>> layer
    LayerNorm((3,), eps=1e-05, elementwise_affine=True)
    >>> layer(np.array([[1.0, 2.0, 3.0]], np.float32)).round(3)
    array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """

    _onnx_names: Paths = {"gamma": ("Scale",)}  # noqa: RUF012

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        keep: str = "x",
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, dtype, device, keep)
        self.elementwise_affine = elementwise_affine
        self.gamma = self._filled(1, self.normalized_shape) if elementwise_affine else None
        self.beta = self._filled(0, self.normalized_shape) if elementwise_affine and bias else None

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
        """Normalise x over its last axes; a mask is that of :func:`numbanorm.layer_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array = as_array(x)
        keeps = self._keeps()
        options: dict[str, Any] = {"axis": self._axes(array), "eps": self.eps, "out": out, "return_stats": keeps}
        result = layer_norm(array, self.gamma, self.beta, **options, **chosen.given())
        return self._kept_call(array, out, result, keeps, chosen)

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, _ = kept[:4]
        options: dict[str, Any] = {"axis": self._axes(x), "recompute": self._keeps_output(kept.chosen), "out": out}
        options |= {"beta": self.beta, **kept.chosen.given()}
        gradients: Gradients = layer_norm_backward(dy, x, self.gamma, mean, rstd, **options)
        return gradients

    def _settings(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(_TrailingAxes):
    """Root mean square normalisation over the last axes; see :func:`numbanorm.rms_norm`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Lengths of the normalised last axes, and the shape of gamma.
    eps : float
        Added to the mean square; 1e-6, where torch's default is the dtype's epsilon.
    elementwise_affine : bool
        Whether there is a gamma.
    keep : {"x", "y"}
        As for :class:`LayerNorm`.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.RMSNorm(2)(np.array([3.0, 4.0], np.float32)).round(4)
    array([0.8485, 1.1314], dtype=float32)
    """

    _keras_names: Paths = {"gamma": ("scale",)}  # noqa: RUF012

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-6,
        elementwise_affine: bool = True,
        *,
        keep: str = "x",
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, dtype, device, keep)
        self.elementwise_affine = elementwise_affine
        self.gamma = self._filled(1, self.normalized_shape) if elementwise_affine else None

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
        """Normalise x over its last axes; a mask is that of :func:`numbanorm.layer_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array = as_array(x)
        keeps = self._keeps()
        options: dict[str, Any] = {"axis": self._axes(array), "eps": self.eps, "out": out, "return_stats": keeps}
        result = rms_norm(array, self.gamma, **options, **chosen.given())
        return self._kept_call(array, out, result, keeps, chosen)

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, _, rstd, _ = kept[:4]
        options: dict[str, Any] = {"axis": self._axes(x), "recompute": self._keeps_output(kept.chosen), "out": out}
        gradients: Gradients = rms_norm_backward(dy, x, self.gamma, None, rstd, **options, **kept.chosen.given())
        return gradients

    def _settings(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
