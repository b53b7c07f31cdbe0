"""Mean and variance over any axes, as NumPy spells them, right where NumPy is not.

Numbers are summed in float64, as differences from one of them, in short blocks that are
merged with Chan's formula [1]_. For float16, bfloat16 and float32 data the only error
that shows is the last rounding, at any size and at ``|mean| / std`` up to 1e6.

References
----------
.. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm
   for computing sample variances", Stanford STAN-CS-79-773, 1979.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _reduction
from numbanorm._arguments import as_array, as_mask, check_out
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._dtypes import is_float, statistics_dtype
from numbanorm._moments import Moments, moments

__all__ = ["MeanVar", "Moments", "mean", "mean_var", "moments", "std", "var"]

Array = NDArray[Any]


class MeanVar(NamedTuple):
    """The result of :func:`mean_var`: two arrays, or two scalars for a full reduction."""

    mean: Any
    var: Any


@dataclass(frozen=True, slots=True)
class _Reduced:
    """float64 moments of the kept axes, and how the caller wants results to look.

    `count` is 0-d where all sets have the same.
    """

    count: Array
    mean: Array
    m2: Array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _reduce(x: Any, axis: Axis, keepdims: bool, where: Any, dtype: Any, outs: tuple[Any, ...]) -> _Reduced:
    """Check every argument, then compute the moments of x over `axis`."""
    array = as_array(x)
    result = statistics_dtype(array.dtype)
    if dtype is not None:
        result = np.dtype(dtype)
        if not is_float(result) and result.kind not in "iu":
            raise TypeError(f"dtype must be real and numeric, of at most 64 bits, but got {result}")
    axes = canonicalize_axes(axis, array.ndim)
    mask = as_mask(where, array.shape)
    if keepdims:
        shape = tuple(1 if i in axes else n for i, n in enumerate(array.shape))
    else:
        shape = tuple(n for i, n in enumerate(array.shape) if i not in axes)
    for out in outs:
        if out is not None:
            check_out(out, shape, result)
    count, mean, m2 = _reduction.moments(array, axes, mask)
    if mask is None:
        count = np.array(prod(array.shape[i] for i in axes), np.float64)
    return _Reduced(count, mean, m2, shape, result)


def _divisor(count: Array, ddof: float, correction: float | None) -> Array:
    """``count - ddof``, by NumPy's rule (0 if not positive) or the Array API's (NaN)."""
    if correction is not None and ddof:
        raise ValueError("ddof and correction can't be provided simultaneously.")
    if correction is None:
        return np.asarray(np.maximum(count - ddof, 0))
    divisor = count - correction
    return np.asarray(np.where(divisor > 0, divisor, np.nan))


def _mean(reduced: _Reduced) -> Array:
    if reduced.count.all():
        return np.asarray(reduced.mean)
    warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=3)
    # 0 / 0, so that NumPy's own floating point warning is given as well
    empty = np.divide(reduced.m2, reduced.count)
    return np.asarray(np.where(reduced.count == 0, empty, reduced.mean))


def _var(reduced: _Reduced, ddof: float, correction: float | None) -> Array:
    divisor = _divisor(reduced.count, ddof, correction)
    if not (divisor > 0).all():
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=3)
    return np.asarray(np.divide(reduced.m2, divisor))


def _cast(value: Array, reduced: _Reduced) -> Array:
    """`value` in the caller's dtype and shape."""
    return np.asarray(value).reshape(reduced.shape).astype(reduced.dtype)


def _delivered(value: Array, out: Array | None) -> Any:
    """`value` in `out`, as an array or as a scalar."""
    if out is None:
        return value[()]
    out[...] = value
    return out


def mean_var(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    dtype: Any = None,
    out: tuple[Array, Array] | None = None,
) -> MeanVar:
    """Mean and variance of x over any axes, read from memory once.

    ``var = sum((x - mean)**2) / (n - ddof)``.

    Parameters
    ----------
    x : array_like
        float16, bfloat16, float32, float64, integers or bool; any shape and memory layout.
    axis : int, tuple of int or None
        Axes to reduce; None means all.
    ddof : float
        Delta degrees of freedom: 0 gives the biased (population) variance, 1 the unbiased.
        Where ``n - ddof <= 0`` the result is NaN, or inf if the numbers differ, as in NumPy.
    correction : float, optional
        The Array API's name for `ddof`; with it, ``n - correction <= 0`` always gives NaN.
    keepdims : bool
        Keep reduced axes with length 1.
    where : array_like of bool, optional
        Which elements take part; broadcasts to x's shape.
    dtype : dtype, optional
        Dtype of the results. Default: that of x, or float64 for integers and bool. Sums are
        kept in float64 in any case.
    out : tuple of two arrays, optional
        Where to put mean and variance.

    Returns
    -------
    MeanVar
        ``(mean, var)``; NumPy scalars for a full reduction.

    Raises
    ------
    TypeError
        If x's dtype has no mean (complex, object, string, datetime, structured), if x is a
        masked array, or if `where` is not boolean.
    ValueError
        If both `ddof` and `correction` are given, an axis occurs twice, or a shape of
        `where` or `out` does not fit.
    numpy.exceptions.AxisError
        If `axis` is out of bounds.

    Warns
    -----
    RuntimeWarning
        If a set is empty or has no degrees of freedom, as NumPy warns.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.mean_var(np.array([[1, 2], [3, 6]]), axis=0)
    MeanVar(mean=array([2., 4.]), var=array([1., 4.]))

    Far from zero, where float32 sums lose the variance, nothing is lost:

    >>> x = np.float32(1e4) + np.tile(np.float32([-1, 1]), 500_000)
    >>> float(nn.mean_var(x).var), float(np.var(x)) == 1.0
    (1.0, True)
    """
    outs = (None, None) if out is None else tuple(out)
    if len(outs) != 2:
        raise TypeError(f"out must be a tuple of two arrays, but has {len(outs)}")
    _divisor(np.ones(()), ddof, correction)
    reduced = _reduce(x, axis, keepdims, where, dtype, outs)
    results = _mean(reduced), _var(reduced, ddof, correction)
    cast = [_cast(value, reduced) for value in results]
    return MeanVar(*(_delivered(value, o) for value, o in zip(cast, outs, strict=True)))


def mean(
    x: Any, axis: Axis = None, *, keepdims: bool = False, where: Any = None, dtype: Any = None, out: Any = None
) -> Any:
    """Arithmetic mean over any axes, as :func:`numpy.mean` but summed in float64.

    Parameters, results, errors and warnings are those of :func:`mean_var`; `out` is one array.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.mean(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=-1)
    array([1.5, 4.5])
    """
    reduced = _reduce(x, axis, keepdims, where, dtype, (out,))
    return _delivered(_cast(_mean(reduced), reduced), out)


def var(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Variance over any axes, as :func:`numpy.var` but right for numbers far from zero.

    Parameters, results, errors and warnings are those of :func:`mean_var`; `out` is one array.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> float(nn.var(np.array([1.0, 2.0, 3.0, 6.0]), ddof=1))
    4.666666666666667
    """
    _divisor(np.ones(()), ddof, correction)
    reduced = _reduce(x, axis, keepdims, where, dtype, (out,))
    return _delivered(_cast(_var(reduced, ddof, correction), reduced), out)


def std(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Standard deviation over any axes: the square root of :func:`var`, rounded once.

    Parameters, results, errors and warnings are those of :func:`mean_var`; `out` is one array.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> float(nn.std(np.array([1.0, 2.0, 3.0, 6.0])))
    1.8708286933869707
    """
    _divisor(np.ones(()), ddof, correction)
    reduced = _reduce(x, axis, keepdims, where, dtype, (out,))
    return _delivered(_cast(np.sqrt(_var(reduced, ddof, correction)), reduced), out)
