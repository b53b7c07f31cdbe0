"""Local response norm: each channel divided by the activity of its neighbours."""

from __future__ import annotations

from math import prod
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import place_of
from numbanorm._dtypes import norm_dtype
from numbanorm._engine_masked import put_right
from numbanorm._errors import check_choice
from numbanorm._guests import everywhere
from numbanorm._masks import Mask, MaskArguments
from numbanorm._norm_plan import NormPlan, norm_plan
from numbanorm.norms._checks import channel_axis_of, checked_input

Array = NDArray[Any]

CONVENTIONS = ("torch", "onnx", "tf", "alexnet")


@everywhere
def local_response_norm(
    x: Any,
    size: int = 5,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    channel_axis: int = 1,
    convention: str = "torch",
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
) -> Any:
    """Local response normalisation (Krizhevsky et al. 2012) across neighbouring channels.

    ``y = x / (k + a * sum(x**2))**beta``, the sum over a window of channels around each.
    The conventions differ in the window of channel c, cut off at the ends, and in a:

    ==============  =====================================  ==============  ===================
    `convention`    window of c                            a               its usual arguments
    ==============  =====================================  ==============  ===================
    "torch"         c - size//2 to c + (size-1)//2         alpha / size    5, 1e-4, 0.75, k 1
    "onnx"          c - (size-1)//2 to c + size//2         alpha / size    as torch
    "alexnet"       c - size//2 to c + size//2             alpha           5, 1e-4, 0.75, k 2
    "tf"            c - size to c + size: size is a        alpha           5, 1, 0.5, k 1
                    radius (``depth_radius``)
    ==============  =====================================  ==============  ===================

    The defaults of the other arguments are torch's whatever the convention: pass those that
    the network was trained with. "alexnet" is Chainer's too.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C) or more axes.
    size : int
        Channels of a window (a radius with "tf"); what it costs does not depend on it.
    alpha, beta, k : float
        See the formula. `beta` of 0.75, 0.5 and 1 are much faster than others.
    channel_axis : int
        Axis of the channels.
    convention : {"torch", "onnx", "tf", "alexnet"}
        Whose window and scaling.
    where : array_like of bool, optional
        Which elements take part, broadcast to x. The others count in no window, whatever they hold.
    lengths : array_like of int, optional
        (N,), of padded samples: how many of the first elements along `length_axis` take part.
    length_axis : int, optional
        By default the first axis that is neither the samples' nor the channels'.
    padding : {"zero", "keep"}
        What becomes of elements that take no part: 0, or what x holds there.
    out : array, optional
        Where to put the result; x itself is allowed.

    Returns
    -------
    array
        With x's shape, dtype and layout.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If `size` is not positive (negative with "tf"), or `convention` is unknown.

    Notes
    -----
    Sums are in float64 and only ever add, so they do not drift, and an infinite number spoils
    its own windows only. Squares of float64 numbers above 1e150 overflow, which gives zeros.
    With a mask, x is copied with zeros where it takes no part.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> nn.local_response_norm(x, 3, alpha=3.0, beta=1.0)
    array([[0.16666667, 0.13333333, 0.21428571]])
    """
    array, backend = checked_input(x, out, where=where)
    norm_dtype(array.dtype)
    axis = channel_axis_of(array, channel_axis)
    window, exponents = Window.of(size, alpha, convention), (float(beta), float(k))
    mask, place = MaskArguments(where, lengths, length_axis, padding).of(array, axis), place_of(array)
    if mask is None:
        return _respond(backend, place, array, axis, window, exponents, out)
    y = _respond(backend, place, without_padding(place, array, mask), axis, window, exponents, None)
    return put_right(place, array, y, mask, out)


def _respond(
    backend: Any, place: Any, x: Array, axis: int, window: Window, exponents: tuple[float, float], out: Array | None
) -> Array:
    """y of all elements; `exponents` are beta and k."""
    plan = norm_plan(x.shape, x.strides, x.dtype, (axis,), (), False)
    roles = (axis,), (), False
    source, y, plan = _engine._source_and_output(place, x, out, ((), None, None), plan, roles)
    if x.size:
        cube = channel_cube(plan, axis)
        source, target = (plan.norm.arranged(a).reshape(cube) for a in (source, y))
        backend.local_response(source, window.before, window.after, window.alpha, *exponents, target)
    return y if out is None else _engine._delivered(place, y, out)


def without_padding(place: Any, x: Array, mask: Mask) -> Array:
    """A copy, which lies in memory as x does, with zeros where x takes no part."""
    copy = _engine.empty_like(place, x)
    place.copy(copy, place.evaluate(lambda m, a: np.where(m, a, a.dtype.type(0)), mask.boolean_at(place), x))
    return copy


class Window(NamedTuple):
    """The channels before and after each that count, and what their sum of squares is multiplied by."""

    before: int
    after: int
    alpha: float

    @classmethod
    def of(cls, size: int, alpha: float, convention: str) -> Window:
        """What a convention means by `size` and `alpha`, or ``ValueError``."""
        check_choice("convention", convention, CONVENTIONS)
        size = index(size)
        if size < (convention != "tf"):
            at_least = "1" if convention != "tf" else "0, a radius"
            raise ValueError(f"local_response_norm size must be at least {at_least}, but got {size}")
        if convention == "torch":
            return cls(size // 2, (size - 1) // 2, float(alpha) / size)
        if convention == "onnx":
            return cls((size - 1) // 2, size // 2, float(alpha) / size)
        radius = size if convention == "tf" else size // 2
        return cls(radius, radius, float(alpha))


def channel_cube(plan: NormPlan, axis: int) -> tuple[int, int, int]:
    """Shape of x, in storage order, as (outer, channels, inner)."""
    position = plan.norm.order.index(axis)
    return prod(plan.stored[:position]), plan.stored[position], prod(plan.stored[position + 1 :])
