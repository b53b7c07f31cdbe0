"""Moments: statistics that can be kept, merged, sent and continued."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _reduction
from numbanorm._arguments import as_array, as_mask
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._backend import get_backend
from numbanorm._dtypes import statistics_dtype
from numbanorm._errors import ShapeError

Array = NDArray[Any]


class Moments:
    """Count, mean and sum of squared deviations of one or many sets of numbers.

    Moments of disjoint sets merge exactly (Chan's formula), so data may come in batches,
    from several processes, or in any order::

        total = moments(first, axis=0) + moments(second, axis=0)
        total.update(third, axis=0)

    Attributes
    ----------
    count, mean, m2 : numpy.ndarray
        float64, one element per set; ``m2 = sum((x - mean)**2)``.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> a = nn.moments(np.array([1.0, 2.0])) + nn.moments(np.array([3.0, 6.0]))
    >>> float(a.mean), float(a.var())
    (3.0, 3.5)
    """

    __slots__ = ("_data",)

    def __init__(self, count: Any, mean: Any, m2: Any) -> None:
        fields = [np.asarray(field, np.float64) for field in (count, mean, m2)]
        if len({field.shape for field in fields}) != 1:
            shapes = ", ".join(str(field.shape) for field in fields)
            raise ShapeError(f"count, mean and m2 should have one shape, but have {shapes}")
        self._data = np.array(fields)

    @classmethod
    def empty(cls, shape: int | tuple[int, ...] = ()) -> Moments:
        """Moments of `shape` empty sets, to be updated."""
        return cls._of(np.zeros((3, *np.empty(shape, bool).shape)))

    @classmethod
    def _of(cls, data: Array) -> Moments:
        self = object.__new__(cls)
        self._data = data
        return self

    @property
    def count(self) -> Array:
        """Numbers in each set."""
        return self._data[0, ...]

    @property
    def mean(self) -> Array:
        """Mean of each set; NaN for an empty one."""
        return np.where(self._data[0] > 0, self._data[1], np.nan)

    @property
    def m2(self) -> Array:
        """Sum of squared deviations from the mean of each set."""
        return self._data[2, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sets: x's axes that were kept."""
        return self._data.shape[1:]

    def var(self, ddof: float = 0) -> Array:
        """``m2 / (count - ddof)``; NaN where that divisor is not positive."""
        divisor = self.count - ddof
        valid = divisor > 0
        return np.where(valid, self.m2 / np.where(valid, divisor, 1), np.nan)

    def std(self, ddof: float = 0) -> Array:
        """Square root of :meth:`var`."""
        return np.sqrt(self.var(ddof))

    def __add__(self, other: object) -> Moments:
        """Moments of the union of both sets, element by element; shapes must be equal."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.shape != other.shape:
            raise ShapeError(f"cannot merge moments with shapes {self.shape} and {other.shape}")
        out = np.empty_like(self._data)
        if out.size:
            parts = np.stack([self._data, other._data], axis=1)
            _reduction.combine(get_backend(), parts, (1, 2, self._data[0].size), out)
        return Moments._of(out)

    def update(self, x: Any, axis: Axis = None, *, where: Any = None) -> Moments:
        """Take in the numbers of `x`, reduced over `axis`; returns self.

        Raises
        ------
        ValueError
            If the kept axes of `x` do not have this object's shape; nothing is changed.
        """
        self._data = (self + moments(x, axis, where=where))._data
        return self

    def state_dict(self) -> dict[str, Array]:
        """Copies of the three arrays under their names."""
        return {"count": self.count.copy(), "mean": self._data[1].copy(), "m2": self.m2.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the contents by what :meth:`state_dict` gave."""
        if set(state) != {"count", "mean", "m2"}:
            raise KeyError(f"expected the keys 'count', 'mean', 'm2', but got {sorted(state)}")
        self._data = Moments(state["count"], state["mean"], state["m2"])._data

    def __getstate__(self) -> dict[str, Array]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Array]) -> None:
        self.load_state_dict(state)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        return self.shape == other.shape and bool(np.array_equal(self._data, other._data, equal_nan=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Moments(count={self.count!r}, mean={self.mean!r}, m2={self.m2!r})"


def moments(x: Any, axis: Axis = None, *, where: Any = None) -> Moments:
    """Count, mean and sum of squared deviations of x over `axis`, in float64.

    Parameters
    ----------
    x : array_like
        Any real dtype, shape and memory layout.
    axis : int, tuple of int or None
        Axes to reduce; None means all.
    where : array_like of bool, optional
        Which elements take part; broadcasts to x's shape.

    Returns
    -------
    Moments
        Its arrays have the shape of x's kept axes.

    Raises
    ------
    TypeError
        If x's dtype has no mean (complex, object, string, datetime, structured).
    numpy.exceptions.AxisError
        If `axis` is out of bounds.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> m = nn.moments(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    >>> m.count, m.mean, m.m2
    (array([2., 2.]), array([2., 4.]), array([2., 8.]))
    """
    array = as_array(x)
    statistics_dtype(array.dtype)
    axes = canonicalize_axes(axis, array.ndim)
    return Moments._of(_reduction.moments(array, axes, as_mask(where, array.shape)))
