"""Moments of any array over any axes: plan, launch, merge.

Arrays that lie dense in memory are reduced where they lie, in storage order. Arrays with
gaps, swapped bytes or a broadcast mask are gathered piece by piece, and where one launch
would leave too many parts, x is cut along its leading axes; so no temporary of x's size
is ever made. How x is cut depends on shapes and strides alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _layout
from numbanorm._backend import get_backend

Array = NDArray[Any]
Axes = tuple[int, ...]

#: Bytes of an array with gaps that are gathered at a time.
PIECE_BYTES = 1 << 19
#: Moments kept at a time on the way to a result (24 bytes each).
MAX_PARTS = 1 << 15


def moments(x: Array, axes: Axes, where: Array | None = None) -> Array:
    """Count, mean and m2 of x over `axes`: float64 of shape (3, *kept axes).

    `where` is a boolean array that broadcasts to x's shape. No temporary of x's size is
    made: arrays with gaps are gathered piece by piece, and parts are merged as they come.
    """
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    out = np.zeros((3, *(x.shape[axis] for axis in kept)))
    if x.size == 0:
        return out
    backend = get_backend(x)
    lay = _layout.storage(x.shape, x.strides, x.itemsize)
    roles = "".join("r" if axis in axes else "k" for axis in lay.order)
    if where is not None:
        where = _in_storage_order(np.broadcast_to(where, x.shape), lay)
    target = _in_storage_order(out, _layout.kept_storage(lay, axes))
    result = target if target.flags.c_contiguous else np.zeros(target.shape)
    _visit(backend, _in_storage_order(x, lay), where, roles, result)
    if result is not target:
        target[...] = result
    return out


def _in_storage_order(x: Array, lay: _layout.Storage) -> Array:
    view = x if lay.c_order else x.transpose(lay.order)
    if lay.flipped:
        view = view[tuple(slice(None, None, -1 if axis in lay.flipped else 1) for axis in lay.order)]
    return view


def _is_dense(x: Array) -> bool:
    return x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative


def _n_pieces(x: Array, where: Array | None, roles: str) -> int:
    """Pieces in which to reduce x: one if a single launch can, with few enough parts."""
    plan = _layout.reduction(x.shape, roles)
    n_pieces = -(-plan.n_parts // MAX_PARTS) if plan.merges else 1
    if not _is_dense(x) or (where is not None and not _is_dense(where)):
        n_pieces = max(n_pieces, -(-x.nbytes // PIECE_BYTES))
    return n_pieces


def _visit(backend: Any, x: Array, where: Array | None, roles: str, out: Array) -> None:
    """Moments of x into out, cut along the leading axes as far as needed."""
    n_pieces = _n_pieces(x, where, roles)
    if n_pieces == 1:
        _reduce(backend, x, where, roles, out)
        return
    reduced = roles[0] == "r"
    if len(x) == 1:
        _visit(backend, x[0], None if where is None else where[0], roles[1:], out if reduced else out[:, 0])
        return
    n_pieces = min(len(x), n_pieces)
    merged = np.zeros((3, 2, *out.shape[1:])) if reduced else out
    for piece in range(n_pieces):
        part = slice(len(x) * piece // n_pieces, len(x) * (piece + 1) // n_pieces)
        taken = None if where is None else where[part]
        if not reduced:
            _visit(backend, x[part], taken, roles, out[:, part])
            continue
        _visit(backend, x[part], taken, roles, merged[:, 1])
        combine(backend, merged, (1, 2, out[0].size), out)
        merged[:, 0] = out


def _reduce(backend: Any, x: Array, where: Array | None, roles: str, out: Array) -> None:
    """Moments of x in one launch, and as many merges as the roles need."""
    plan = _layout.reduction(x.shape, roles)
    x = np.asarray(x, dtype=x.dtype.newbyteorder("="), order="C").reshape(plan.view)
    if not x.flags.aligned:
        x = x.copy()
    taken = None if where is None else np.ascontiguousarray(where).reshape(plan.view)
    shape = (plan.view[0], *plan.view[2:])
    launch = getattr(backend, plan.launcher)
    if not plan.merges:
        launch(x, taken, *(component.reshape(shape) for component in _components(out)))
        return
    parts = np.empty((3, plan.n_parts))
    launch(x, taken, *(component.reshape(shape) for component in _components(parts)))
    for merge in plan.merges[:-1]:
        merged = np.empty((3, merge[0] * merge[2]))
        combine(backend, parts, merge, merged)
        parts = merged
    combine(backend, parts, plan.merges[-1], out)


def _components(moments: Array) -> tuple[Array, Array, Array]:
    """Views of count, mean and m2, arrays even where they have no axes."""
    return moments[0, ...], moments[1, ...], moments[2, ...]


def combine(backend: Any, parts: Array, shape: tuple[int, int, int], out: Array) -> None:
    """Merge parts (3, ...) seen as `shape` over its middle axis into out (3, ...)."""
    inputs = (component.reshape(shape) for component in _components(parts))
    outputs = (component.reshape(shape[0], shape[2]) for component in _components(out))
    backend.combine_moments(*inputs, *outputs)
