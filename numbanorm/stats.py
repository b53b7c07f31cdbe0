"""Mean and variance over any axes, as NumPy spells them, right where NumPy is not.

Numbers are summed in float64 (on a device in pairs of float32), as differences from one of
them, in short blocks that are merged with Chan's formula [1]_. For float16, bfloat16 and float32 data the only error
that shows is the last rounding, at any size and at ``|mean| / std`` up to 1e6.

References
----------
.. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm
   for computing sample variances", Stanford STAN-CS-79-773, 1979.
.. [2] D. H. D. West, "Updating mean and variance estimates: an improved method",
   Communications of the ACM 22 (9), 1979.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from numbanorm._axes import Axis
from numbanorm._moments import Moments, moments
from numbanorm._replay import replayed
from numbanorm._selection import Selection
from numbanorm._statistics import MEAN, NOWHERE, VAR, Divisor, reduce

__all__ = ["MeanVar", "Moments", "mean", "mean_var", "moments", "std", "var"]

Array = NDArray[Any]


class MeanVar(NamedTuple):
    """The result of :func:`mean_var`: two arrays, or two scalars for a full reduction."""

    mean: Any
    var: Any


@replayed
def mean_var(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    lengths: Any = None,
    length_axis: int | None = None,
    dtype: Any = None,
    out: tuple[Array, Array] | None = None,
) -> MeanVar:
    """Mean and variance of x over any axes, read from memory once.

    ``var = sum((x - mean)**2) / (n - ddof)``.

    Parameters
    ----------
    x : array_like
        float16, bfloat16, float32, float64, integers or bool; any shape and memory layout, in
        host memory or on a device (where integers are copied to float64 first).
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
    weights : array_like, optional
        How much each element counts, a non-negative real number; broadcasts to x's shape.
        ``mean = sum(w * x) / sum(w)`` and ``var = sum(w * (x - mean)**2) / (sum(w) - ddof)``
        [2]_: with `ddof` weights are frequencies. In host memory only.
    nan_policy : {"propagate", "omit", "raise"}
        Whether a NaN makes its statistics NaN, is left out as in :func:`numpy.nanvar` (but in
        one reading and without a copy), or is an error.
    lengths : array_like of int, optional
        How many of the *first* elements along `length_axis` take part, one number for each sample
        of a padded batch: ``where = arange(x.shape[length_axis]) < lengths`` for each ``x[n]``. Samples
        are x's axis 0. What lies beyond is padding, whatever it holds; in host memory it is mostly not
        even read. Together with `where`, `weights` or `nan_policy`, elements must pass all of them.
        Batches that are padded in front need ``x[:, ::-1]``.
    length_axis : int, optional
        The axis along which samples are padded. Default: 1.
    dtype : dtype, optional
        Dtype of the results. Default: that of x, or float64 for integers and bool. Sums are
        kept in float64 in any case.
    out : tuple of two arrays, optional
        Where to put mean and variance.

    Returns
    -------
    MeanVar
        ``(mean, var)``, arrays of x's kind; for a full reduction NumPy scalars, or arrays
        without dimensions on a device.

    Raises
    ------
    TypeError
        If x's dtype has no mean (complex, object, string, datetime, structured), if x is a
        masked array, if `where` is not boolean, or if `lengths` are not integers.
    ValueError
        If both `ddof` and `correction` are given, an axis occurs twice, a shape of `where`,
        `weights` or `out` does not fit, a weight is negative or above 1e290, all weights of a
        set are zero, there is a NaN where `nan_policy` is "raise", `lengths` are not one for each
        sample or do not lie within the axis, or `length_axis` is 0 or given without `lengths`.
    numpy.exceptions.AxisError
        If `axis` is out of bounds.

    Warns
    -----
    RuntimeWarning
        If a set is empty or has no degrees of freedom, as NumPy warns. For device arrays with
        `where` the counts are on the device, and nothing is said.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.mean_var(np.array([[1, 2], [3, 6]]), axis=0)
    MeanVar(mean=array([2., 4.]), var=array([1., 4.]))

    >>> nn.mean_var(np.array([1.0, 2.0, np.nan, 6.0]), nan_policy="omit").mean
    np.float64(3.0)
    >>> nn.mean_var(np.array([1.0, 3.0]), weights=[3, 1])
    MeanVar(mean=np.float64(1.5), var=np.float64(0.75))

    Sequences of different lengths, padded to one:

    >>> nn.mean_var(np.array([[1.0, 3.0, np.nan], [4.0, 5.0, 9.0]]), axis=1, lengths=[2, 3])
    MeanVar(mean=array([2., 6.]), var=array([1.        , 4.66666667]))

    Far from zero, where float32 sums lose the variance, nothing is lost:

    >>> x = np.float32(1e4) + np.tile(np.float32([-1, 1]), 500_000)
    >>> float(nn.mean_var(x).var), float(np.var(x)) == 1.0
    (1.0, True)
    """
    outs = NOWHERE if out is None else tuple(out)
    if len(outs) != 2:
        raise TypeError(f"out must be a tuple of two arrays, but has {len(outs)}")
    selection = Selection.of(where, weights, nan_policy, lengths, length_axis)
    divisor = Divisor.of(ddof, correction)
    return MeanVar(*reduce(x, axis, keepdims, selection, dtype, outs, (True, True), divisor))


@replayed
def mean(
    x: Any,
    axis: Axis = None,
    *,
    keepdims: bool = False,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    lengths: Any = None,
    length_axis: int | None = None,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Arithmetic mean over any axes, as :func:`numpy.mean` but summed in float64.

    Parameters, results, errors and warnings are those of :func:`mean_var`; `out` is one array.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> nn.mean(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=-1)
    array([1.5, 4.5])
    """
    outs = NOWHERE if out is None else (out, None)
    selection = Selection.of(where, weights, nan_policy, lengths, length_axis)
    return reduce(x, axis, keepdims, selection, dtype, outs, MEAN)[0]


@replayed
def var(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    lengths: Any = None,
    length_axis: int | None = None,
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
    outs = NOWHERE if out is None else (None, out)
    selection = Selection.of(where, weights, nan_policy, lengths, length_axis)
    return reduce(x, axis, keepdims, selection, dtype, outs, VAR, Divisor.of(ddof, correction))[1]


@replayed
def std(
    x: Any,
    axis: Axis = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    lengths: Any = None,
    length_axis: int | None = None,
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
    outs = NOWHERE if out is None else (None, out)
    selection = Selection.of(where, weights, nan_policy, lengths, length_axis)
    return reduce(x, axis, keepdims, selection, dtype, outs, VAR, Divisor.of(ddof, correction), root=True)[1]
