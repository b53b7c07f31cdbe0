"""Moments of any array over any axes: plan, launch, merge.

Arrays that lie dense in memory are reduced where they lie, in storage order. Arrays with
gaps, swapped bytes or a broadcast mask are gathered piece by piece, and where one launch
would leave too many parts, x is cut along its leading axes; so no temporary of x's size
is ever made. How x is cut depends on shapes and strides alone.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays, _layout
from numbanorm._backend import get_backend
from numbanorm._dtypes import is_float
from numbanorm._masks import Lengths
from numbanorm.backends.reference.moments import weighted_moments

Array = NDArray[Any]
Axes = tuple[int, ...]
#: How much each element counts: a boolean array where only some do, a float array, None where all
#: do, True where all do that are not NaN, or the lengths of padded samples.
Weights = Array | bool | Lengths | None


def moments(x: Array, axes: Axes, weights: Weights = None, backend: Any = None) -> Array:
    """Count, mean and m2 of x over `axes`: float64 of shape (3, *kept axes), dense.

    `weights` broadcast to x's shape, or are :class:`Lengths`: then what lies beyond them is
    not even read, wherever it is the end of what a launcher takes as a line. In host memory no temporary of
    x's size is made: arrays with gaps are gathered piece by piece, and parts are merged as
    they come. On a device they are gathered whole, and integers converted to float64.
    """
    place = _arrays.place_of(x)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = (3, *(x.shape[axis] for axis in kept))
    if x.size == 0:
        return place.zeros(shape)  # type: ignore[no-any-return]
    backend = backend or get_backend(x)
    if backend.name == "cuda" and _are_array(weights) and weights.dtype != bool:
        real = np.broadcast_to(weights, x.shape)  # its kernels take masks
        return place.evaluate(lambda a, w: weighted_moments(a, w, axes), x, real)  # type: ignore[no-any-return]
    out: Array = place.empty(shape, np.float64)
    if place is not _arrays.HOST and not is_float(x.dtype):
        x = place.dense(x, np.dtype(np.float64))
    lay = _layout.storage(x.shape, x.strides, x.itemsize)
    roles = "".join("r" if axis in axes else "k" for axis in lay.order)
    weights = _arranged(backend, place, weights, x.shape, lay)
    target = _in_storage_order(out, _layout.kept_storage(lay, axes))
    result = target if target.flags.c_contiguous else place.empty(target.shape, np.float64)
    _visit(backend, place, _in_storage_order(x, lay), weights, roles, result)
    if result is not target:
        place.copy(target, result)
    return out


def finished(backend: Any, data: Array, ddof: float = 0, use_mean: bool = True) -> tuple[Array, Array]:
    """Mean and ``m2 / (count - ddof)`` of moments (3, ...), in the shape of each."""
    place = _arrays.place_of(data)
    shape, flat = data.shape[1:], data.reshape(3, -1)
    mean, var = (place.empty(flat.shape[1], np.dtype(np.float64)) for _ in range(2))
    if flat.shape[1]:
        backend.finish_moments(flat[0], flat[1], flat[2], ddof, use_mean, False, mean, var)
    return mean.reshape(shape), var.reshape(shape)


def statistics(
    backend: Any, x: Array, axes: Axes, weights: Weights = None, ddof: float = 0, use_mean: bool = True
) -> tuple[Array, Array, Array]:
    """Count, mean and variance of x over `axes`: float64 of the kept axes' shape; zeros of an empty x."""
    data = moments(x, axes, weights, backend)
    if x.size == 0:
        return data[0, ...], data[1, ...], data[2, ...]
    return data[0, ...], *finished(backend, data, ddof, use_mean)


def _in_storage_order(x: Array, lay: _layout.Storage) -> Array:
    view = x if lay.c_order else x.transpose(lay.order)
    if lay.flipped:
        view = view[tuple(slice(None, None, -1 if axis in lay.flipped else 1) for axis in lay.order)]
    return view


def _arranged(backend: Any, place: Any, weights: Weights, shape: Axes, lay: _layout.Storage) -> Weights:
    """Weights of x in storage order. Devices know no lengths, nor does an axis that runs backwards."""
    if isinstance(weights, Lengths):
        lengths = None if backend.name == "cuda" else weights.in_order(lay.order, lay.flipped)
        if lengths is not None:
            return lengths
        weights = place.from_host(weights.mask(shape))
    return _in_storage_order(np.broadcast_to(weights, shape), lay) if _are_array(weights) else weights


def _is_dense(place: Any, x: Array) -> bool:
    return bool(x.flags.c_contiguous and place.is_aligned(x) and x.dtype.isnative)


def _n_pieces(place: Any, x: Array, weights: Weights, roles: str) -> int:
    """Pieces in which to reduce x: one if a single launch can, with few enough parts."""
    plan = _layout.reduction(x.shape, roles)
    n_pieces = -(-plan.n_parts // place.max_parts) if plan.merges else 1
    if not _is_dense(place, x) or (_are_array(weights) and not _is_dense(place, weights)):
        n_pieces = max(n_pieces, -(-x.nbytes // place.piece_bytes))
    return n_pieces


def _visit(backend: Any, place: Any, x: Array, weights: Weights, roles: str, out: Array) -> None:
    """Moments of x into out, cut along the leading axes as far as needed."""
    n_pieces = _n_pieces(place, x, weights, roles)
    if n_pieces == 1:
        _reduce(backend, place, x, weights, roles, out)
        return
    reduced = roles[0] == "r"
    if len(x) == 1:
        _visit(backend, place, x[0], _only(weights, x.shape), roles[1:], out if reduced else out[:, 0])
        return
    n_pieces = min(len(x), n_pieces)
    merged = place.zeros((3, 2, *out.shape[1:])) if reduced else out
    for piece in range(n_pieces):
        part = slice(len(x) * piece // n_pieces, len(x) * (piece + 1) // n_pieces)
        taken = _part(weights, part)
        if not reduced:
            _visit(backend, place, x[part], taken, roles, out[:, part])
            continue
        _visit(backend, place, x[part], taken, roles, merged[:, 1])
        combine(backend, merged, (1, 2, out[0].size), out)
        place.copy(merged[:, 0], out)


def _are_array(weights: Weights) -> TypeGuard[Array]:
    return weights is not None and weights is not True and not isinstance(weights, Lengths)


def _part(weights: Weights, part: slice) -> Weights:
    if isinstance(weights, Lengths):
        return weights.part(part)
    return weights[part] if _are_array(weights) else weights


def _only(weights: Weights, shape: Axes) -> Weights:
    """Weights of x[0], where x has no other."""
    if isinstance(weights, Lengths):
        if 0 not in (weights.sample_axis, weights.length_axis):
            return weights._replace(sample_axis=weights.sample_axis - 1, length_axis=weights.length_axis - 1)
        weights = np.broadcast_to(weights.mask(shape), shape)
    return weights[0] if _are_array(weights) else weights


def _reduce(backend: Any, place: Any, x: Array, weights: Weights, roles: str, out: Array) -> None:
    """Moments of x in one launch, and as many merges as the roles need."""
    plan = _layout.reduction(x.shape, roles)
    if isinstance(weights, Lengths):
        taken = weights.on_lines(x.shape, tuple(range(x.ndim)), plan.view[-1])
        if taken is None and _reduce_samples(backend, place, x, weights, roles, out):
            return
        weights = np.broadcast_to(weights.mask(x.shape), x.shape) if taken is None else taken
    if _are_array(weights) and weights.dtype != np.int64:
        weights = place.dense(weights).reshape(plan.view)
    x = place.dense(x).reshape(plan.view)
    shape = (plan.view[0], *plan.view[2:])
    launch = getattr(backend, plan.launcher)
    if not plan.merges:
        launch(x, weights, *(component.reshape(shape) for component in _components(out)))
        return
    parts = place.empty((3, plan.n_parts), np.float64)
    launch(x, weights, *(component.reshape(shape) for component in _components(parts)))
    for merge in plan.merges[:-1]:
        merged = place.empty((3, merge[0] * merge[2]), np.float64)
        combine(backend, parts, merge, merged)
        parts = merged
    combine(backend, parts, plan.merges[-1], out)


def _reduce_samples(backend: Any, place: Any, x: Array, lengths: Lengths, roles: str, out: Array) -> bool:
    """Each sample for itself, then merged: where a line would hold several of them, which end in padding each.

    Returns whether that was done: not if samples are not reduced, or leave too many parts.
    """
    at = lengths.sample_axis
    kept = [n for axis, n in enumerate(x.shape) if axis == at or roles[axis] == "k"]
    if roles[at] == "k" or prod(kept) > place.max_parts:
        return False
    parts = place.empty((3, *kept), np.float64)
    _reduce(backend, place, x, lengths, roles[:at] + "k" + roles[at + 1 :], parts)
    before = roles[:at].count("k")
    combine(backend, parts, (prod(kept[:before]), kept[before], prod(kept[before + 1 :])), out)
    return True


def _components(moments: Array) -> tuple[Array, Array, Array]:
    """Views of count, mean and m2, arrays even where they have no axes."""
    return moments[0, ...], moments[1, ...], moments[2, ...]


def combine(backend: Any, parts: Array, shape: tuple[int, int, int], out: Array) -> None:
    """Merge parts (3, ...) seen as `shape` over its middle axis into out (3, ...)."""
    inputs = (component.reshape(shape) for component in _components(parts))
    outputs = (component.reshape(shape[0], shape[2]) for component in _components(out))
    backend.combine_moments(*inputs, *outputs)
