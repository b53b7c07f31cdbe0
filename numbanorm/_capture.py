"""Calls that are captured into a CUDA graph: the memory that its replays use stays theirs.

A graph remembers addresses. What a call takes from CuPy's pool and gives back at its end
(operands converted to another dtype, an x gathered from its gaps, moments on their way to a
result) would be handed out again, and each replay would write over what lies there then. So
all that is taken during a captured call is kept: results as long as the caller keeps them, the
rest as long as the process lives, since nothing tells when a graph is gone.

What a capture asks of the caller: the same call was made once before (kernels are loaded and
constants copied to the device by the first one), in the mode "relaxed", CuPy's default, as the
pool may have to ask the driver for memory, and x, parameters and results outlive the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from numbanorm import _arrays

#: Memory of graphs.
_kept: list[Any] = []


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The result of a function of CuPy arrays, whose temporaries are kept if it is being captured."""
    if not _arrays.device().capturing():
        return function(*args, **kwargs)
    memory = import_module("cupy").cuda
    allocate, taken = memory.get_allocator(), []

    def keep(n_bytes: int) -> Any:
        pointer = allocate(n_bytes)
        taken.append(pointer.mem)
        return pointer

    with memory.using_allocator(keep):
        result = function(*args, **kwargs)
    returned = {id(one.data.mem) for one in _flat(result) if _arrays.is_cupy_array(one)}
    _kept.extend(mem for mem in taken if id(mem) not in returned)
    return result


def _flat(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
