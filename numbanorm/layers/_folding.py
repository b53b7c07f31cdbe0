"""Folding a batch norm into the layer before it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from numbanorm._arguments import as_array, as_parameter
from numbanorm._arrays import place_of
from numbanorm._axes import canonicalize_axis
from numbanorm._dtypes import norm_dtype
from numbanorm._errors import wrong_length
from numbanorm._guests import everywhere
from numbanorm.layers._batch import BatchNorm

Array = NDArray[Any]


@everywhere
def fold_batch_norm(weight: Any, bias: Any, bn: BatchNorm, *, channel_axis: int = 0) -> tuple[Array, Array]:
    """Fold an evaluation-mode batch norm into the linear or convolution layer before it.

    ``bn(weight @ x + bias) == new_weight @ x + new_bias``.

    Parameters
    ----------
    weight : array_like
        With the output channels along `channel_axis`: (C, inputs), (C, inputs, kh, kw), ...
    bias : array_like or None
        (C,).
    bn : BatchNorm
        With running statistics for C channels.
    channel_axis : int
        Axis of the output channels in `weight`: 0 in torch, -1 in Keras and flax.

    Returns
    -------
    weight, bias : array
        In the dtype of `weight`; the inputs are not changed.

    Raises
    ------
    TypeError
        If `weight` is not floating point.
    ValueError
        If `weight` or `bias` has other than C channels.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> bn = nn.BatchNorm1d(2, eps=0.0)
    >>> bn.running_mean[:], bn.running_var[:] = 1.0, 4.0
    >>> fold = nn.fold_batch_norm(np.eye(2, dtype=np.float32), None, bn)
    >>> fold[0]
    array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    >>> fold[1]
    array([-0.5, -0.5], dtype=float32)
    """
    original = as_array(weight, "weight")
    place = place_of(original)
    kernel = place.to_host(original)
    axis = canonicalize_axis(channel_axis, kernel.ndim)
    if kernel.shape[axis] != bn.num_features:
        raise wrong_length("weight", (bn.num_features,), (kernel.shape[axis],))
    norm_dtype(kernel.dtype, "weight")
    scale, shift = bn.folded_exactly()
    given = as_parameter("bias", bias)
    if given is not None:
        if given.shape != (bn.num_features,):
            raise wrong_length("bias", (bn.num_features,), given.shape)
        shift = shift + place.to_host(given) * scale
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(kernel.ndim)])
    folded = (kernel * shaped).astype(kernel.dtype), shift.astype(kernel.dtype)
    return place.from_host(folded[0]), place.from_host(folded[1])
