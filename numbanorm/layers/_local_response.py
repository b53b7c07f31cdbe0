"""The local response norm layer."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._guests import everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._gradients import Kept
from numbanorm.layers._layer import Layer
from numbanorm.norms._local_response import Window, local_response_norm
from numbanorm.norms_backward._local_response import local_response_norm_backward

Array = NDArray[Any]


class LocalResponseNorm(Layer):
    """Local response normalisation; see :func:`numbanorm.local_response_norm`.

    There are no parameters, and evaluation is no different from training.

    Parameters
    ----------
    size : int
        Channels of a window.
    alpha, beta, k : float
        As in the function; the defaults are torch's. The attribute of `beta` is called `exponent`,
        since that of other layers is a parameter.
    channel_axis : int
        Where the channels are.
    convention : {"torch", "onnx", "tf", "alexnet"}
        Whose window and scaling.

    Raises
    ------
    ValueError
        If `size` is not positive (negative with "tf"), or `convention` is unknown.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.LocalResponseNorm(2)
    LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)
    >>> nn.LocalResponseNorm(3, alpha=3.0, beta=1.0)(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([[0.1667, 0.1333, 0.2143]])
    """

    _learnt = ()

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        channel_axis: int = 1,
        convention: str = "torch",
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        Window.of(size, alpha, convention)
        self.size = index(size)
        self.alpha = alpha
        self.exponent = beta
        self.k = k
        self.channel_axis = channel_axis
        self.convention = convention

    def _options(self) -> dict[str, Any]:
        names = "alpha", "k", "channel_axis", "convention"
        return {"size": self.size, "beta": self.exponent, **{name: getattr(self, name) for name in names}}

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
        """Normalise x across neighbouring channels; a mask is that of :func:`numbanorm.local_response_norm`."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array = as_array(x)
        y: Array = local_response_norm(array, **self._options(), **chosen.given(), out=out)
        # There are no statistics, and x itself is all that the gradient needs.
        self._keep(array, out, (array, array) if self._keeps() else (), chosen=chosen)
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> tuple[Any, ...]:
        return (local_response_norm_backward(dy, kept.x, **self._options(), **kept.chosen.given(), out=out),)

    def _settings(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.exponent}, k={self.k}"
