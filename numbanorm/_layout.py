"""From (shape, strides, axes) to the few dense dimensions that a kernel knows.

Integers only: plans are made without arrays, cached, and tested without arrays.

Axes are put in *storage order* (falling strides), so that a transposed or Fortran-ordered
array is as good as a C-ordered one; axes of length 1 are dropped; neighbours that play the
same role are merged into one *run*. What remains is a short word over the roles of the
runs, e.g. "kr" (kept, reduced) for a mean over the last axes or "rkr" for batch norm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from numpy.typing import NDArray

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Storage:
    """How an array lies in memory.

    ``order`` lists all axes, those of length 0 or 1 first, then by falling stride; ``flipped``
    those with a negative stride; ``dense`` says that no gaps remain once they are flipped.
    """

    order: Ints
    flipped: Ints
    dense: bool

    @property
    def c_order(self) -> bool:
        """Whether the axes lie in their own order."""
        return self.order == tuple(range(len(self.order)))


@lru_cache(maxsize=4096)
def storage(shape: Ints, strides: Ints, itemsize: int) -> Storage:
    """Storage order of an array.

    >>> storage((2, 3, 4), (4, 8, 24), 4)
    Storage(order=(2, 1, 0), flipped=(), dense=True)
    """
    real = [axis for axis in range(len(shape)) if shape[axis] > 1]
    real.sort(key=lambda axis: -abs(strides[axis]))
    expected = itemsize
    dense = True
    for axis in reversed(real):
        dense = dense and abs(strides[axis]) == expected
        expected *= shape[axis]
    single = [axis for axis in range(len(shape)) if shape[axis] <= 1]
    return Storage((*single, *real), tuple(axis for axis in real if strides[axis] < 0), dense)


@lru_cache(maxsize=4096)
def kept_storage(lay: Storage, reduced: Ints) -> Storage:
    """The storage order that moments (3, *kept axes) take from x's, so that they are made in place.

    >>> kept_storage(Storage((2, 1, 0), (), True), (1,))
    Storage(order=(0, 2, 1), flipped=(), dense=True)
    """
    kept = [axis for axis in sorted(lay.order) if axis not in reduced]
    position = {axis: 1 + i for i, axis in enumerate(kept)}
    order = (0, *(position[axis] for axis in lay.order if axis in position))
    return Storage(order, tuple(position[axis] for axis in lay.flipped if axis in position), lay.dense)


def merge_runs(lengths: Ints, roles: str) -> tuple[Ints, str]:
    """Merge neighbours of equal role, dropping those of length 1.

    >>> merge_runs((8, 64, 56, 56), "rkrr")
    ((8, 64, 3136), 'rkr')
    """
    merged: list[int] = []
    word = ""
    for length, role in zip(lengths, roles, strict=True):
        if length == 1:
            continue
        if word and word[-1] == role:
            merged[-1] *= length
        else:
            merged.append(length)
            word += role
    return tuple(merged), word


@dataclass(frozen=True, slots=True)
class Reduction:
    """One stage of moments over a dense array, then merges of the parts.

    ``launcher`` takes x reshaped to ``view``; the parts it makes are merged over the
    middle axis of each shape in ``merges`` in turn; ``n_parts`` is how many there are.
    """

    launcher: str
    view: Ints
    n_parts: int
    merges: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=4096)
def reduction(lengths: Ints, roles: str) -> Reduction:
    """How to reduce a dense array whose axes have these lengths and roles ("k" or "r").

    >>> reduction((8, 64, 56, 56), "rkrr")
    Reduction(launcher='moments_rows', view=(512, 3136), n_parts=512, merges=((1, 8, 64),))
    """
    runs, word = merge_runs(lengths, roles)
    if "r" not in word:
        runs, word = (*runs, 1), word + "r"
    view: Ints
    by_rows = word[-1] == "r" and (word[0] == "k" or word == "r" or runs[-1] >= runs[0])
    if by_rows:
        launcher, view = "moments_rows", (prod(runs[:-1]), runs[-1])
        rest, roles_left = runs[:-1], word[:-1]
    elif word[0] == "r":
        launcher, view = "moments_cols", (1, runs[0], prod(runs[1:]))
        rest, roles_left = runs[1:], word[1:]
    else:
        launcher, view = "moments_cols", (runs[0], runs[1], prod(runs[2:]))
        rest, roles_left = runs[:1] + runs[2:], word[0] + word[2:]
    n_parts = prod(rest)
    merges = []
    while "r" in roles_left:
        at = roles_left.index("r")
        merges.append((prod(rest[:at]), rest[at], prod(rest[at + 1 :])))
        rest, roles_left = rest[:at] + rest[at + 1 :], roles_left[:at] + roles_left[at + 1 :]
    return Reduction(launcher, view, n_parts, tuple(merges))


@dataclass(frozen=True, slots=True)
class Normalization:
    """A norm of a dense array in storage order.

    ``launcher`` is the fused one that takes x reshaped to ``view``, or None where only
    moments and affine together serve. ``runs`` and ``roles`` describe x; to apply given
    statistics it is reshaped to ``cube`` (the runs, three or more), these to ``per_statistic``
    and the parameters to ``per_parameter``, or to ``single`` where one serves all.
    """

    order: Ints
    c_order: bool
    launcher: str | None
    view: Ints
    runs: Ints
    roles: str
    cube: Ints
    per_statistic: Ints
    per_parameter: Ints
    single: Ints

    def arranged(self, x: NDArray[Any]) -> NDArray[Any]:
        """x with its axes in storage order."""
        return x if self.c_order else x.transpose(self.order)


#: Words over k (kept), K (kept, with parameters), r (reduced), R (reduced, with parameters).
_ROWS = re.compile(r"(k?)([rR])")
_GROUPS = re.compile(r"(k?)(K?)(R?)(r?)")
_CHANNELS = re.compile(r"((?:r(?=K))?)(K?)(r?)")  # one channel: all of x is its last axis


def _fused(runs: Ints, word: str, channels: bool) -> tuple[str | None, Ints]:
    """The fused launcher for a word, and its view of x."""

    def lengths(match: re.Match[str]) -> Ints:
        remaining = iter(runs)
        return tuple(next(remaining) if group else 1 for group in match.groups())

    if channels and (match := _CHANNELS.fullmatch(word)):
        return "norm_channels", lengths(match)
    if match := _ROWS.fullmatch(word):
        return "norm_rows", lengths(match)
    if match := _GROUPS.fullmatch(word):
        samples, groups, group_channels, inner = lengths(match)
        return "norm_groups", (samples * groups, group_channels, inner)
    if match := _CHANNELS.fullmatch(word):
        return "norm_channels", lengths(match)
    return None, ()


@lru_cache(maxsize=4096)
def normalization(
    shape: Ints, strides: Ints, itemsize: int, reduced: Ints, features: Ints, channels: bool
) -> Normalization:
    """Plan a norm with statistics over `reduced` and parameters over `features`.

    `channels` asks for ``norm_channels`` wherever it serves, because it returns variances.

    >>> normalization((8, 64, 56, 56), (802816, 12544, 224, 4), 4, (0, 2, 3), (1,), True).view
    (8, 64, 3136)
    """
    lay = storage(shape, strides, itemsize)
    roles = "".join("kKrR"[2 * (axis in reduced) + (axis in features)] for axis in lay.order)
    runs, word = merge_runs(tuple(shape[axis] for axis in lay.order), roles)
    if "r" not in word.lower():
        runs, word = (*runs, 1), word + "r"
    launcher, view = _fused(runs, word, channels)
    cubes = (
        (1,) * (3 - len(runs)) + tuple(n if role in varying else 1 for n, role in zip(runs, word, strict=True))
        for varying in ("kKrR", "kK", "KR", "")
    )
    return Normalization(lay.order, lay.c_order, launcher, view, runs, word, *cubes)
