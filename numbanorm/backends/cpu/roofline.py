"""What the machine's memory allows: kernels that only copy or only read, to be measured beside the norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._edges import new_edge, settle_edge
from numbanorm.backends.cpu._elements import flat_input, flat_output, load
from numbanorm.backends.cpu._jit import inner, kernel
from numbanorm.backends.cpu._launch import MAX_PARTS, n_parts
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._write import write_segments

Array = NDArray[Any]


@kernel
def _copy_kernel(part, n_parts, x, y, past_caches):
    start, stop = x.size * part // n_parts, x.size * (part + 1) // n_parts
    operands, edge = memory((5, 1), np.float32), new_edge(past_caches)
    operands[:] = 0
    operands[2:4, :] = 1
    write_segments(x, start, 1, stop - start, operands, y, edge)
    settle_edge(y, edge)
    free(operands)


def copy(x: Array, y: Array, past_caches: bool) -> None:
    """Copy x to y of the same dtype and size; `past_caches` as large outputs are written."""
    _copy_kernel(n_parts(MAX_PARTS, x.size), flat_input(x), flat_output(y), past_caches)


@inner
def _sum(x, start, stop):
    total = np.float32(0)
    for i in range(start, stop):
        total += np.float32(load(x, i))
    return total


@kernel
def _read_kernel(part, n_parts, x, totals):
    totals[part] = _sum(x, x.size * part // n_parts, x.size * (part + 1) // n_parts)


def read(x: Array) -> float:
    """Sum of x in float32: as little work as reading can be."""
    parts = n_parts(MAX_PARTS, x.size)
    totals = np.empty(parts, np.float32)
    _read_kernel(parts, flat_input(x), totals)
    return float(totals.sum())
