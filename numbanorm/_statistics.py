"""Mean and variance as arrays: plan, one launch where that serves, otherwise moments first.

The public functions are in :mod:`numbanorm.stats`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays, _layout, _reduction
from numbanorm._arguments import as_array, check_out
from numbanorm._axes import Axis, canonicalize_axes
from numbanorm._backend import backend_for
from numbanorm._dtypes import is_float, statistics_dtype
from numbanorm._errors import warn_caller
from numbanorm._recorder import not_replayed
from numbanorm._selection import Selection

Array = NDArray[Any]


#: Shorter runs of a channel than this are read as columns.
SHORT_RUN = 16


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that can be known of a reduction without its numbers."""

    axes: tuple[int, ...]
    dtype: np.dtype[Any]
    #: Numbers in each set, and the number of sets.
    count: int
    n_sets: int
    #: Shape of the results.
    shape: tuple[int, ...]
    #: One launch that gives results in x's dtype, or None: it takes x with its axes in this order
    #: (None if they are in order) in this view, and gives results in the shape `raw`.
    launcher: str | None
    #: Moments that a backend on the host keeps on the way to the results.
    n_parts: int
    order: tuple[int, ...] | None
    view: tuple[int, ...]
    raw: tuple[int, ...]
    #: Shape of a raw result by kept axes in storage order, and what restores these; None in C order.
    kept: tuple[int, ...]
    restored: tuple[int, ...] | None


@lru_cache(maxsize=4096)
def _plan(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[int, ...], keepdims: bool
) -> _Plan:
    result = statistics_dtype(dtype)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    full = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    lay = _layout.storage(shape, strides, dtype.itemsize)
    lengths = tuple(shape[axis] for axis in lay.order)
    roles = "".join("r" if axis in axes else "k" for axis in lay.order)
    reduction = _layout.reduction(lengths, roles)
    runs, word = _layout.merge_runs(lengths, roles)
    launcher, n_parts, view, raw = None, 0, reduction.view, (reduction.view[0], *reduction.view[2:])
    if dtype == result and lay.dense and not lay.flipped and 0 not in shape:
        if not reduction.merges:
            launcher = reduction.launcher.replace("moments", "mean_var")
        elif word == "rkr" and runs[2] >= SHORT_RUN:
            launcher, n_parts, view, raw = "mean_var_channels", runs[0] * runs[1], runs, runs[1:2]
    stored = [axis for axis in lay.order if axis not in axes]
    return _Plan(
        axes,
        result,
        prod(shape[axis] for axis in axes),
        prod(full),
        full if keepdims else tuple(shape[axis] for axis in kept),
        launcher,
        n_parts,
        None if lay.c_order else lay.order,
        view,
        raw,
        tuple(shape[axis] for axis in stored),
        None if stored == kept else tuple(sorted(range(len(stored)), key=stored.__getitem__)),
    )


class Divisor(NamedTuple):
    """What is taken from the count, by NumPy's rule (what is left is 0 if not positive) or the Array API's (NaN)."""

    ddof: float
    nan: bool = False

    @classmethod
    def of(cls, ddof: float, correction: float | None) -> Divisor:
        if correction is None:
            return cls(ddof)
        if ddof:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        return cls(correction, True)


#: What :func:`reduce` is to give.
MEAN, VAR = (True, False), (False, True)
NOWHERE = (None, None)


def reduce(
    x: Any,
    axis: Axis,
    keepdims: bool,
    selection: Selection | None,
    dtype: Any,
    outs: tuple[Any, Any],
    wanted: tuple[bool, bool],
    divisor: Divisor = Divisor(0),  # noqa: B008
    root: bool = False,
) -> list[Any]:
    """The wanted ones of mean and variance (or its root), in `outs` where given."""
    array = as_array(x)
    operands = {"x": array}
    if selection is not None:
        operands.update(selection.operands())
    if outs is not NOWHERE:
        operands.update({f"out[{i}]" if all(wanted) else "out": out for i, out in enumerate(outs) if wanted[i]})
    backend = backend_for(operands)
    place = _arrays.place_of(array)
    plan = _plan(array.shape, array.strides, array.dtype, canonicalize_axes(axis, array.ndim), bool(keepdims))
    result = plan.dtype if dtype is None else _result_dtype(dtype)
    weights = None if selection is None else selection.resolved(array)
    if outs is not NOWHERE:
        for out in outs:
            if out is not None:
                check_out(out, plan.shape, result)
    # Then one launch does everything, and nothing can be amiss with the counts.
    direct = plan.launcher and selection is None and result == plan.dtype and plan.count > divisor.ddof
    if direct and plan.n_parts <= place.max_parts and place.is_aligned(array):
        values = _in_one(backend, place, array, plan, wanted, divisor.ddof, root)
    else:
        values = _in_two(backend, place, array, selection, weights, plan, result, wanted, divisor, root)
    return [_delivered(place, *pair) if want else None for *pair, want in zip(values, outs, wanted, strict=True)]


def _in_one(
    backend: Any, place: Any, x: Array, plan: _Plan, wanted: tuple[bool, bool], ddof: float, root: bool
) -> list[Array]:
    """One launch, which gives results in x's dtype."""
    raw = [place.empty(plan.raw, plan.dtype) if want else place.nothing(plan.dtype) for want in wanted]
    stored = x if plan.order is None else x.transpose(plan.order)
    if stored.shape != plan.view:
        stored = stored.reshape(plan.view)
    getattr(backend, str(plan.launcher))(stored, ddof, root, *raw)
    return [_shaped(value, plan) if want else value for value, want in zip(raw, wanted, strict=True)]


def _shaped(raw: Array, plan: _Plan) -> Array:
    """A result of one launch in the caller's shape."""
    if plan.restored is not None:
        raw = raw.reshape(plan.kept).transpose(plan.restored)
    return raw if raw.shape == plan.shape else raw.reshape(plan.shape)


def _in_two(
    backend: Any,
    place: Any,
    x: Array,
    selection: Selection | None,
    weights: _reduction.Weights,
    plan: _Plan,
    result: np.dtype[Any],
    wanted: tuple[bool, bool],
    divisor: Divisor,
    root: bool,
) -> list[Array]:
    """Moments in float64, then results: for weights, gaps, other dtypes and sets with too few numbers."""
    not_replayed()
    count, mean, m2 = (m.reshape(-1) for m in _reduction.moments(x, plan.axes, weights, backend))
    if selection is not None:
        selection.check(x, plan.axes, count, mean)
        if selection.omits:
            divisor = divisor._replace(nan=True)  # as np.nanvar
    if weights is None:
        _warn(np.float64(plan.count), m2, wanted, divisor)
    elif place is _arrays.HOST:  # counts on a device are not waited for
        _warn(count, m2, wanted, divisor)
    dtype = result if is_float(result) else np.dtype(np.float64)
    values = [place.empty(plan.n_sets, dtype) if want else place.nothing(dtype) for want in wanted]
    if plan.n_sets:
        backend.finish_moments(count, mean, m2, divisor.ddof, True, root, *values)
    if divisor.nan and wanted[1] and (weights is not None or plan.count <= divisor.ddof):
        values[1] = place.evaluate(
            lambda n, var: np.where(n > divisor.ddof, var, np.nan).astype(dtype), count, values[1]
        )
    if dtype != result:
        values = [place.evaluate(lambda value: value.astype(result), value) for value in values]
    return [value.reshape(plan.shape) if want else value for value, want in zip(values, wanted, strict=True)]


def _warn(count: Any, m2: Array, wanted: tuple[bool, bool], divisor: Divisor) -> None:
    """NumPy's warnings where sets are too small; its floating point warnings too, by the same division."""
    if wanted[0] and not count.all():
        warn_caller("Mean of empty slice")
        _divide(m2, count)
    if wanted[1] and not (count > divisor.ddof).all():
        warn_caller("Degrees of freedom <= 0 for slice")
        if not divisor.nan:
            _divide(m2, np.maximum(count - divisor.ddof, 0))


def _divide(m2: Array, divisor: Any) -> None:
    if isinstance(m2, np.ndarray):
        np.divide(m2, divisor)


def _result_dtype(dtype: Any) -> np.dtype[Any]:
    """What the caller wants results in."""
    result: np.dtype[Any] = np.dtype(dtype)
    if not is_float(result) and result.kind not in "iu":
        raise TypeError(f"dtype must be real and numeric, of at most 64 bits, but got {result}")
    return result


def _delivered(place: Any, value: Array, out: Array | None) -> Any:
    """`value` in `out`, as an array or as a scalar."""
    if out is None:
        return place.result(value)
    place.copy(out, value)
    return out
