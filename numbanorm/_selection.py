"""Which elements of x take part in its statistics, and how much each counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays
from numbanorm._arguments import as_array
from numbanorm._dtypes import is_float
from numbanorm._errors import ShapeError, check_choice, unsupported_dtype
from numbanorm._masks import Mask, MaskArguments
from numbanorm._reduction import Weights

Array = NDArray[Any]

#: Greatest weight, so that sums of weights are finite.
LARGEST = 1e290
POLICIES = ("propagate", "omit", "raise")


class Selection(NamedTuple):
    """What a caller says of the elements of x."""

    where: Any = None
    weights: Any = None
    nan_policy: str = "propagate"
    lengths: Any = None
    length_axis: int | None = None

    @classmethod
    def of(
        cls,
        where: Any,
        weights: Any = None,
        nan_policy: str = "propagate",
        lengths: Any = None,
        length_axis: int | None = None,
    ) -> Selection | None:
        """None if all elements count alike, which is what most callers want."""
        if nan_policy != "propagate":
            check_choice("nan_policy", nan_policy, POLICIES)
        if where is True:
            where = None
        given = where is not None or weights is not None or lengths is not None or length_axis is not None
        return cls(where, weights, nan_policy, lengths, length_axis) if given or nan_policy != "propagate" else None

    @property
    def omits(self) -> bool:
        """Whether NaN are left out."""
        return self.nan_policy == "omit"

    def operands(self) -> dict[str, Any]:
        """The arrays that must be where x is, by the names that errors use."""
        return {name: value for name, value in (("where", self.where), ("weights", self.weights)) if value is not None}

    def resolved(self, x: Array) -> Weights:
        """As :func:`numbanorm._reduction.moments` takes it.

        Lengths alone stay lengths, and NaN that are omitted from a host array without anything else
        cost no temporary.
        """
        mask = self._mask(x)
        omits = self.omits and is_float(x.dtype)
        if mask is not None and mask.where is None and self.weights is None and not omits:
            return mask.lengths
        place = _arrays.place_of(x)
        taken: Any = None if mask is None else mask.boolean_at(place)
        if self.weights is not None:
            weights = _as_weights(self.weights, x.shape)
            taken = (
                weights
                if taken is None
                else place.evaluate(lambda m, w: np.where(m, w, w.dtype.type(0)), taken, weights)
            )
        if not omits:
            return taken  # type: ignore[no-any-return]
        if taken is None and isinstance(x, np.ndarray):
            return True
        evaluate = place.evaluate
        if taken is None:
            return evaluate(lambda numbers: ~np.isnan(numbers), x)  # type: ignore[no-any-return]
        return evaluate(  # type: ignore[no-any-return]
            lambda numbers, counts: np.where(np.isnan(numbers), counts.dtype.type(0), counts), x, taken
        )

    def _taken(self, x: Array) -> Array:
        """Which elements count, whatever they weigh, on the host and of x's shape."""
        place, mask = _arrays.place_of(x), self._mask(x)
        taken = np.ones((), bool) if mask is None else place.to_host(mask.boolean_at(place))
        if self.omits and is_float(x.dtype):
            taken = taken & ~np.isnan(place.to_host(x))
        return np.broadcast_to(taken, x.shape)

    def _mask(self, x: Array) -> Mask | None:
        return MaskArguments(self.where, self.lengths, self.length_axis).of(x)

    def check(self, x: Array, axes: tuple[int, ...], count: Array, mean: Array) -> None:
        """Raise for NaN where they are not welcome, and for sets of elements that all weigh nothing."""
        place = _arrays.place_of(x)
        if self.weights is not None and x.size:
            nothing = place.to_host(count).reshape(-1) == 0
            if nothing.any() and self._taken(x).any(axes).reshape(-1)[nothing].any():
                raise ValueError("weights are zero for all elements of a set, which has no mean then; leave it out")
        if self.nan_policy != "raise" or not is_float(x.dtype) or not np.isnan(place.to_host(mean)).any():
            return  # a NaN among the numbers makes the mean one
        there = np.isnan(place.to_host(x)) & self._taken(x)
        if self.weights is not None:
            there &= place.to_host(_as_weights(self.weights, x.shape)) > 0
        if there.any():
            raise ValueError(f"x has NaN at {_first(there)}; nan_policy='omit' leaves NaN out")


def _as_weights(weights: Any, shape: tuple[int, ...]) -> Array:
    """Non-negative real numbers that broadcast to `shape`."""
    array = as_array(weights, "weights")
    if not is_float(array.dtype):
        if array.dtype.kind not in "iub":
            raise unsupported_dtype("weights", array.dtype)
        array = array.astype(np.float64)
    numbers = _arrays.place_of(array).to_host(array).astype(np.float64, copy=False)
    wrong = ~((numbers >= 0) & (numbers <= LARGEST))
    if wrong.any():
        at = _first(wrong)
        raise ValueError(f"weights must lie between 0 and {LARGEST:g}, but weights{list(at)} is {numbers[at]}")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ShapeError(f"weights with shape {array.shape} do not broadcast to x with shape {shape}") from None


def _first(condition: Array) -> tuple[int, ...]:
    """Index of the first true element."""
    return tuple(int(i) for i in np.unravel_index(int(condition.argmax()), condition.shape))
