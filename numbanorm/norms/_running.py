"""Running statistics, updated in place wherever their elements lie."""

from __future__ import annotations

from typing import Any

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
