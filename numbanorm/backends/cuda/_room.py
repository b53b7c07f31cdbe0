"""Room in the workspace for the statistics that one launch leaves for the next."""

from __future__ import annotations

from typing import Any

from numbanorm.backends.cuda import _jit

Array = Any

#: Views of workspaces: slicing a CuPy array takes as long as half a launch.
_views: dict[tuple[int, int, str], tuple[Any, ...]] = {}


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
