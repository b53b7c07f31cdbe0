"""Moments: statistics that can be kept, merged, sent and continued."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _reduction
from numbanorm._arguments import as_array
from numbanorm._arrays import is_device_array, place_of
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._backend import backend_for
from numbanorm._dtypes import statistics_dtype
from numbanorm._errors import ShapeError
from numbanorm._guests import cupy_view, everywhere
from numbanorm._selection import Selection

Array = NDArray[Any]


class Moments:
    """Count, mean and sum of squared deviations of one or many sets of numbers.

    Moments of disjoint sets merge exactly (Chan's formula), so data may come in batches,
    from several processes, or in any order::

        total = moments(first, axis=0) + moments(second, axis=0)
        total.update(third, axis=0)

    Attributes
    ----------
    count, mean, m2 : numpy.ndarray (cupy.ndarray for moments of device arrays)
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
        given = {"count": count, "mean": mean, "m2": m2}
        backend_for(given)
        fields = [cupy_view(a) if is_device_array(a) else np.asarray(a, np.float64) for a in given.values()]
        if len({field.shape for field in fields}) != 1:
            shapes = ", ".join(str(field.shape) for field in fields)
            raise ShapeError(f"count, mean and m2 should have one shape, but have {shapes}")
        self._data = _stacked(fields)

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
        return self._evaluate(lambda count, mean, _: np.where(count > 0, mean, np.nan))

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
        return self._evaluate(lambda count, _, m2: np.where(count > ddof, m2 / np.abs(count - ddof), np.nan))

    def std(self, ddof: float = 0) -> Array:
        """Square root of :meth:`var`."""
        return self._evaluate(lambda count, _, m2: np.sqrt(np.where(count > ddof, m2 / np.abs(count - ddof), np.nan)))

    def _evaluate(self, function: Any) -> Array:
        return place_of(self._data).evaluate(function, *self._data)  # type: ignore[no-any-return]

    def __add__(self, other: object) -> Moments:
        """Moments of the union of both sets, element by element; shapes must be equal."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.shape != other.shape:
            raise ShapeError(f"cannot merge moments with shapes {self.shape} and {other.shape}")
        backend = backend_for({"left": self._data, "right": other._data})
        place = place_of(self._data)
        out = place.empty(self._data.shape, np.float64)
        if out.size:
            parts = place.empty((3, 2, *self.shape), np.float64)
            place.copy(parts[:, 0], self._data)
            place.copy(parts[:, 1], other._data)
            _reduction.combine(backend, parts, (1, 2, self._data[0].size), out)
        return Moments._of(out)

    def update(
        self,
        x: Any,
        axis: Axis = None,
        *,
        where: Any = None,
        weights: Any = None,
        lengths: Any = None,
        length_axis: int | None = None,
    ) -> Moments:
        """Take in the numbers of `x`, reduced over `axis`; returns self.

        Moments in host memory move to the device of a device array, and stay there.

        Raises
        ------
        ValueError
            If the kept axes of `x` do not have this object's shape; nothing is changed.
        """
        new = moments(x, axis, where=where, weights=weights, lengths=lengths, length_axis=length_axis)
        own = self
        if isinstance(self._data, np.ndarray):
            own = Moments._of(place_of(new._data).from_host(self._data))
        self._data = (own + new)._data
        return self

    def state_dict(self) -> dict[str, Array]:
        """Copies of the three arrays under their names, in host memory."""
        count, mean, m2 = np.array(place_of(self._data).to_host(self._data))
        return {"count": np.asarray(count), "mean": np.asarray(mean), "m2": np.asarray(m2)}

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
        own, others = (place_of(data).to_host(data) for data in (self._data, other._data))
        return bool(np.array_equal(own, others, equal_nan=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Moments(count={self.count!r}, mean={self.mean!r}, m2={self.m2!r})"


def _stacked(fields: list[Array]) -> Array:
    """Count, mean and m2 as one float64 array, where they live."""
    place = place_of(fields[0])
    data: Array = place.empty((3, *fields[0].shape), np.float64)
    for i, field in enumerate(fields):
        place.copy(data[i, ...], field)
    return data


@everywhere
def moments(
    x: Any,
    axis: Axis = None,
    *,
    where: Any = None,
    weights: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
) -> Moments:
    """Count, mean and sum of squared deviations of x over `axis`, in float64.

    Parameters
    ----------
    x : array_like
        Any real dtype, shape and memory layout.
    axis : int, tuple of int or None
        Axes to reduce; None means all.
    where : array_like of bool, optional
        Which elements take part; broadcasts to x's shape.
    weights : array_like, optional
        How much each element counts, a non-negative real number; broadcasts to x's shape.
        Then ``count = sum(w)`` and ``m2 = sum(w * (x - mean)**2)``. In host memory only.
    lengths : array_like of int, optional
        How many of the *first* elements along `length_axis` take part, one number for each sample
        of a padded batch; see :func:`mean_var`. Samples are x's axis 0.
    length_axis : int, optional
        The axis along which samples are padded. Default: 1.

    Returns
    -------
    Moments
        Its arrays have the shape of x's kept axes.

    Raises
    ------
    TypeError
        If x's dtype has no mean (complex, object, string, datetime, structured), or if `lengths`
        are not integers.
    ValueError
        If a weight is negative or above 1e290, `lengths` are not one for each sample or do not lie
        within the axis, or `length_axis` is 0 or given without `lengths`.
    numpy.exceptions.AxisError
        If `axis` is out of bounds.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> m = nn.moments(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    >>> m.count, m.mean, m.m2
    (array([2., 2.]), array([2., 4.]), array([2., 8.]))
    >>> nn.moments(np.array([[1.0, 3.0, 9.0], [2.0, 9.0, 9.0]]), lengths=[2, 1]).mean
    array(2.)
    """
    array = as_array(x)
    statistics_dtype(array.dtype)
    selection = Selection.of(where, weights, lengths=lengths, length_axis=length_axis)
    backend = backend_for({"x": array, **(selection.operands() if selection else {})})
    axes = canonicalize_axes(axis, array.ndim)
    data = _reduction.moments(array, axes, selection.resolved(array) if selection else None, backend)
    if selection is not None:
        selection.check(array, axes, data[0, ...], data[1, ...])
    return Moments._of(data)
