"""Reduction axes in canonical form."""

from __future__ import annotations

from operator import index

from numpy.exceptions import AxisError

#: What callers may pass as ``axis``.
Axis = int | tuple[int, ...] | list[int] | None


def canonicalize_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Ascending non-negative axes; None means all of them.

    >>> canonicalize_axes((-1, 0), 3)
    (0, 2)
    """
    if type(axis) is int and -ndim <= axis < ndim:  # by far the most common
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = []
    for one in given:
        position = index(one)
        if not -ndim <= position < ndim:
            raise AxisError(position, ndim)
        axes.append(position % ndim)
    if len(set(axes)) != len(axes):
        raise ValueError("duplicate value in 'axis'")
    return tuple(sorted(axes))


def canonicalize_axis(axis: int, ndim: int) -> int:
    """One axis, non-negative."""
    return canonicalize_axes(index(axis), ndim)[0]
