"""Room in the workspace for what one launch leaves for the next."""

from __future__ import annotations

from typing import Any

from numbanorm.backends.cuda import _jit

Array = Any

#: Views of workspaces: slicing a CuPy array takes as long as half a launch.
_views: dict[tuple[int, int, str], tuple[Any, ...]] = {}

_parts: dict[tuple[Any, ...], Array] = {}


def room(n_sets: int, n_more: int, kind: str) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Tickets, scratch for `n_more` numbers, and for (mean, its low part, 1 / std) of each set."""
    plane = -(-n_sets // 4) * 4
    tickets, scratch = _jit.workspace(3 * plane + n_more, kind)
    key = scratch.data.ptr, plane, kind
    views = _views.get(key)
    if views is None:
        if len(_views) >= 256:
            _views.clear()
        statistics = scratch[:plane], scratch[plane : 2 * plane], scratch[2 * plane : 3 * plane]
        views = _views[key] = (scratch[3 * plane :], statistics)
    return tickets, *views


def rooms(kind: str, *sizes: int) -> tuple[Array, ...]:
    """Scratch of a kind in pieces of these sizes, each of which begins at a multiple of 16 bytes."""
    _, scratch = _jit.workspace(sum(-(-size // 4) * 4 for size in sizes), kind)
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 4) * 4)
    return tuple(part_of(scratch, start, start + size) for start, size in zip(starts, sizes, strict=False))


def part_of(scratch: Array, start: int, stop: int) -> Array:
    """``scratch[start:stop]``, which is kept."""
    key = scratch.data.ptr, start, stop, scratch.dtype
    view = _parts.get(key)
    if view is None:
        if len(_parts) >= 1024:
            _parts.clear()
        view = _parts[key] = scratch[start:stop]
    return view
