"""Running statistics, updated in place wherever their elements lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._arrays import place_of

Array = NDArray[Any]


def update_running(
    backend: Any,
    mean: Array,
    var: Array,
    unbias: float,
    momentum: float,
    running_mean: Array | None,
    running_var: Array | None,
) -> None:
    """``(1 - momentum) * old + momentum * new``, of `mean` and of ``var * unbias``, which are (C,) in float64.

    Launchers take dense arrays only; one with gaps is updated in a copy and put back.
    """
    place = place_of(mean)
    given = (running_mean, running_var)
    dense = [None if array is None else place.dense(array) for array in given]
    backend.update_running(mean, var, unbias, momentum, *dense)
    for array, updated in zip(given, dense, strict=True):
        if array is not None and updated is not array:
            place.copy(array, updated)


def update_masked(
    backend: Any,
    count: Array,
    mean: Array,
    var: Array,
    biased: bool,
    momentum: float,
    running_mean: Array | None,
    running_var: Array | None,
) -> None:
    """The same from sets of unequal `count`, with biased variances: (C,), or (N, C) to be averaged over N.

    Sets without numbers are left out; a channel that has no others keeps its running statistics.
    One number has a mean, but no unbiased variance.
    """
    if running_mean is None and running_var is None:
        return
    place = place_of(mean)
    count, mean, var = (a if a.ndim == 2 else a.reshape(1, len(a)) for a in (count, mean, var))
    fewest = 0 if biased else 1

    def average(n: Array, values: Array, least: int) -> Array:
        has = n > least
        return np.where(has, values, 0).sum(0) / np.maximum(has.sum(0), 1)  # type: ignore[no-any-return]

    new = (
        place.evaluate(lambda n, m: average(n, m, 0), count, mean),
        place.evaluate(lambda n, v: average(n, v * n / np.maximum(n - fewest, 1), fewest), count, var),
    )
    given = running_mean, running_var
    updated = [None if array is None else place.duplicate(array) for array in given]
    backend.update_running(*new, 1.0, momentum, *updated)
    for array, after, least in zip(given, updated, (0, fewest), strict=True):
        if array is not None:
            has = place.evaluate(lambda n, k=least: (n > k).any(0), count)
            place.copy(array, place.evaluate(np.where, has, after, array))
