"""All that shapes, strides and dtypes decide about a norm: integers and names, cached, found by one look-up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from numbanorm import _layout
from numbanorm._dtypes import compute_dtype, norm_dtype

Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NormPlan:
    """All that can be known of a norm without its numbers."""

    lay: _layout.Storage
    #: Shape of x in storage order; what restores the order of its axes, or None if they are in order.
    stored: Axes
    transposed: Axes | None
    #: Whether kernels can read an x of this kind where it lies.
    dense: bool
    dtype: np.dtype[Any]
    compute: np.dtype[Any]
    norm: _layout.Normalization
    #: Parameters with x's rank, before they follow x's storage order; None if they are in order.
    spread: Axes | None
    #: Statistics in storage order, the axes that restore it, and with x's rank.
    kept: Axes
    restored: Axes
    statistics: Axes


@lru_cache(maxsize=4096)
def norm_plan(
    shape: Axes, strides: Axes, dtype: np.dtype[Any], reduced: Axes, features: Axes, channels: bool
) -> NormPlan:
    """Plan a norm; `channels` asks for ``norm_channels`` wherever it serves (see :func:`_layout.normalization`)."""
    lay = _layout.storage(shape, strides, dtype.itemsize)
    dense = lay.dense and not lay.flipped
    if not dense:  # then y alone is looked at, which has x's order
        strides = _dense_strides(shape, lay.order, dtype.itemsize)
        lay = _layout.storage(shape, strides, dtype.itemsize)
    norm = _layout.normalization(shape, strides, dtype.itemsize, reduced, features, channels)
    in_order = norm.c_order or len(features) < 2
    kept = tuple(axis for axis in lay.order if axis not in reduced)
    return NormPlan(
        lay,
        tuple(shape[axis] for axis in lay.order) if not norm.c_order else shape,
        None if norm.c_order else inverse(lay.order),
        dense and dtype == norm_dtype(dtype),
        norm_dtype(dtype),
        compute_dtype(dtype),
        norm,
        None if in_order else tuple(n if axis in features else 1 for axis, n in enumerate(shape)),
        tuple(shape[axis] for axis in kept),
        inverse(kept),
        tuple(1 if axis in reduced else n for axis, n in enumerate(shape)),
    )


def _dense_strides(shape: Axes, order: Axes, itemsize: int) -> Axes:
    strides = [0] * len(shape)
    for axis in reversed(order):
        strides[axis] = itemsize
        itemsize *= max(shape[axis], 1)
    return tuple(strides)


def inverse(order: Axes) -> Axes:
    """Where each of the axes in `order`, ascending, has gone."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
