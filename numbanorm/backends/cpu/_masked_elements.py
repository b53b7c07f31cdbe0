"""Which elements of a line take part: a boolean for each, or how many of its first ones.

What lies beyond the first elements is not even read. A loop goes as far as :func:`reach` and asks
:func:`is_taken` of each element; compiled for numbers of first elements, or without a mask, it
asks nothing. Values are loaded before they are chosen: then LLVM selects, and vectorises.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm.backends.cpu._jit import inner


def is_taken(taken, i):
    """Whether element `i` of x takes part, in a line that it has not reached the end of."""
    return bool(taken[i]) if isinstance(taken, np.ndarray) and taken.dtype == np.bool_ else True


@overload(is_taken)
def _jit_is_taken(taken, i):
    if isinstance(taken, types.Array) and taken.dtype == types.boolean:
        return lambda taken, i: taken[np.uintp(i)]
    return lambda taken, i: True


def reach(taken, line, upper):
    """Where to stop in a line of which the elements before `upper` are asked for."""
    return upper if taken.dtype == np.bool_ else min(int(taken[line]), upper)


@overload(reach)
def _jit_reach(taken, line, upper):
    if taken.dtype == types.boolean:
        return lambda taken, line, upper: upper
    return lambda taken, line, upper: min(taken[np.uintp(line)], upper)


def count_taken(taken, line, length, lower, upper):
    """How many of the elements [lower, upper) of a line of `length` take part."""
    if taken.dtype == np.bool_:
        return np.float64(np.count_nonzero(taken[line * length + lower : line * length + upper]))
    return np.float64(max(min(int(taken[line]), upper) - lower, 0))


@inner
def count_true(taken, start, stop):
    """How many of taken[start:stop] are True."""
    n = 0
    for i in range(start, stop):
        n += 1 if taken[np.uintp(i)] else 0
    return n


@overload(count_taken)
def _jit_count_taken(taken, line, length, lower, upper):
    if taken.dtype == types.boolean:
        return lambda taken, line, length, lower, upper: np.float64(
            count_true(taken, line * length + lower, line * length + upper)
        )
    return lambda taken, line, length, lower, upper: np.float64(max(min(taken[np.uintp(line)], upper) - lower, 0))
