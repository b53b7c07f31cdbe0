"""Instance norm layers whose scale and shift come with the sample."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numbanorm._arguments import as_array
from numbanorm._arrays import place_of
from numbanorm._engine_backward import Gradients
from numbanorm._errors import check_eps, wrong_length
from numbanorm._guests import as_host, everywhere
from numbanorm._masks import MaskArguments
from numbanorm.layers._gradients import Kept
from numbanorm.layers._layer import Layer
from numbanorm.norms._adaptive import adaptive_instance_norm, conditional_instance_norm
from numbanorm.norms._checks import channel_axis_of
from numbanorm.norms_backward._adaptive import adaptive_instance_norm_backward, conditional_instance_norm_backward

Array = NDArray[Any]


class AdaptiveInstanceNorm(Layer):
    """Adaptive instance normalisation: ``layer(content, style)``; see :func:`numbanorm.adaptive_instance_norm`.

    There are no parameters, and evaluation is no different from training. :meth:`backward`
    returns the gradients of both content and style.

    Parameters
    ----------
    eps : float
        Added to both variances.
    channel_axis : int
        Where the channels are.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.AdaptiveInstanceNorm()
    >>> layer(np.array([[[1.0, 3.0]]]), np.array([[[10.0, 14.0]]])).round(2)
    array([[[10., 14.]]])
    >>> dcontent, dstyle = layer.backward(np.array([[[1.0, 1.0]]]))
    >>> dcontent.round(3), dstyle.round(3)
    (array([[[0., 0.]]]), array([[[1., 1.]]]))
    """

    _learnt = ()

    def __init__(
        self,
        eps: float = 1e-5,
        *,
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        check_eps(type(self).__name__, eps)
        self.eps = eps
        self.channel_axis = channel_axis

    @everywhere
    def __call__(
        self,
        content: Any,
        style: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        length_axis: int | None = None,
        padding: str = "zero",
        out: Array | None = None,
    ) -> Array:
        """Content with the statistics of the style; a mask is one of the content."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array, given, keeps = as_array(content), as_array(style, "style"), self._keeps()
        result = adaptive_instance_norm(
            array,
            given,
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            return_stats=keeps,
            **chosen.given(),
        )
        self._keep(array, out, result[1:] if keeps else (), also=(given,), chosen=chosen)
        if out is not None and keeps and place_of(given).overlap(given, out):
            self._keep(out, out, result[1:])  # the style is gone
        y: Array = result[0] if keeps else result
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> tuple[Any, ...]:
        content, mean, rstd, _, (style,) = kept[:5]
        options = {"eps": self.eps, "channel_axis": self.channel_axis, "out": out, **kept.chosen.given()}
        both = adaptive_instance_norm_backward(dy, content, style, mean, rstd, **options)
        return (both,)

    def _settings(self) -> str:
        return f"eps={self.eps}"


class ConditionalInstanceNorm(Layer):
    """Conditional instance normalisation: ``layer(x, labels)``; see :func:`numbanorm.conditional_instance_norm`.

    Parameters
    ----------
    num_styles, num_features : int
        Rows and columns of gamma (1) and beta (0): a row per style, a column per channel.
    eps : float
        Added to the variance.
    channel_axis : int
        Where the channels are.

    Raises
    ------
    ValueError
        On a call, if a label has no row, or the channels do not fit.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> layer = nn.ConditionalInstanceNorm(32, 3)
    >>> layer
    ConditionalInstanceNorm(32, 3, eps=1e-05)
    >>> layer(np.ones((2, 3, 4, 4), np.float32), [7, 31]).shape, layer.num_parameters()
    ((2, 3, 4, 4), 192)
    """

    gamma: Array
    beta: Array

    def __init__(
        self,
        num_styles: int,
        num_features: int,
        eps: float = 1e-5,
        *,
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
        device: str | int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        check_eps(type(self).__name__, eps)
        self.num_styles = index(num_styles)
        self.num_features = index(num_features)
        self.eps = eps
        self.channel_axis = channel_axis
        self.gamma = self._filled(1, (self.num_styles, self.num_features))
        self.beta = self._filled(0, (self.num_styles, self.num_features))

    @everywhere
    def __call__(
        self,
        x: Any,
        labels: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        length_axis: int | None = None,
        padding: str = "zero",
        out: Array | None = None,
    ) -> Array:
        """Normalise x, with the parameters of each sample's label; a mask is that of the function."""
        chosen = MaskArguments(where, lengths, length_axis, padding)
        array, keeps, labels = as_array(x), self._keeps(), np.array(as_host(labels))
        channels = array.shape[channel_axis_of(array, self.channel_axis)]
        if channels != self.num_features:
            raise wrong_length("gamma", (channels,), (self.num_features,))
        result = conditional_instance_norm(
            array,
            self.gamma,
            self.beta,
            labels,
            eps=self.eps,
            channel_axis=self.channel_axis,
            out=out,
            return_stats=keeps,
            **chosen.given(),
        )
        self._keep(array, out, result[1:] if keeps else (), also=(labels,), chosen=chosen)
        y: Array = result[0] if keeps else result
        return y

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> Gradients:
        x, mean, rstd, _, (labels,) = kept[:5]
        options = {"channel_axis": self.channel_axis, "out": out, **kept.chosen.given()}
        gradients: Gradients = conditional_instance_norm_backward(dy, x, self.gamma, labels, mean, rstd, **options)
        return gradients

    def _settings(self) -> str:
        return f"{self.num_styles}, {self.num_features}, eps={self.eps}"
