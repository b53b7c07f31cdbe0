"""The pipeline of every gradient: plan, allocate, launch, reshape; see :mod:`numbanorm._engine`.

Plans are the forward's. Where no fused launcher serves a layout, dy and x are gathered into
one that has: kept axes first, then those reduced, parameters next to where they change.
Memory of x's size is taken for dx alone, and for a gathered x.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays, _engine, _layout
from numbanorm._application import flat
from numbanorm._engine import Scale
from numbanorm._engine_masked_backward import by_formula
from numbanorm._masks import Mask
from numbanorm._norm_plan import NormPlan, inverse, norm_plan

Array = NDArray[Any]
Axes = tuple[int, ...]
#: dx, dgamma, dbeta; the last two None where there is no parameter.
Gradients = tuple[Array, Array | None, Array | None]


class Sets(NamedTuple):
    """Which numbers share statistics and parameters, and what is wanted of the latter."""

    reduced: Axes
    features: Axes
    #: Whether statistics do not depend on x.
    fixed: bool = False
    #: Whether dgamma and dbeta are wanted.
    dgamma: bool = True
    dbeta: bool = True
    #: Whether ``norm_channels_backward`` serves: always where statistics are fixed.
    channels: bool = False
    #: Whether x is the y of a norm over rows, from which xhat is recovered.
    from_output: bool = False
    #: Which elements have a part in y; None: all.
    mask: Mask | None = None


def empty_parameter(place: Any, n: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory for a parameter's gradient."""
    return place.empty(n, dtype)  # type: ignore[no-any-return]


def normalize_backward(
    backend: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    sets: Sets,
    scale: Scale,
    out: Array | None = None,
    *,
    beta: Array | None = None,
) -> Gradients:
    """(dx, dgamma, dbeta) of a norm; statistics have x's rank or the shape of its kept axes.

    Parameter gradients have x's shape over the features, in ascending order of axes. `beta` is
    needed where x is a y.
    """
    place = _arrays.place_of(x)
    roles = (sets.reduced, sets.features, sets.channels)
    plan = norm_plan(x.shape, x.strides, x.dtype, *roles)
    mean, rstd = mean.reshape(plan.statistics), rstd.reshape(plan.statistics)
    if x.size == 0:
        dx = out if out is not None else _engine.empty(place, plan)
        zero = place.zeros(tuple(x.shape[axis] for axis in sets.features), plan.compute)
        return dx, zero if sets.dgamma else None, zero.copy() if sets.dbeta else None
    if sets.mask is not None and backend.name == "cuda":
        return weighted_backward(dy, x, gamma, mean, rstd, sets, scale, None, out)
    if plan.norm.launcher is None:
        return _gathered(backend, place, dy, x, gamma, beta, mean, rstd, sets, scale, plan, out)
    if out is not None and _engine._can_hold(
        place, out, x, plan.dtype, (sets.features, gamma, beta, sets.mask and sets.mask.where)
    ):
        dx = np.asarray(out) if place is _arrays.HOST else out
        if norm_plan(dx.shape, dx.strides, dx.dtype, *roles).lay != plan.lay or _clash(place, dx, dy):
            dx = _engine.empty(place, plan)
    else:
        dx = _engine.empty(place, plan)
    x = x if plan.dense and place.is_aligned(x) else _like(place, x, dx)
    if dy.dtype != plan.dtype or not place.is_aligned(dy) or not _lies_as(dy, plan):
        dy = _like(place, dy, dx)
    dgamma, dbeta = _launch(backend, place, dy, x, gamma, beta, mean, rstd, sets, scale, plan, dx)
    if out is not None:
        dx = _engine._delivered(place, dx, out)
    return dx, dgamma, dbeta


def weighted_backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    sets: Sets,
    scale: Scale,
    weights: Array | None,
    out: Array | None = None,
) -> Gradients:
    """The same by the formula, which knows weights too."""
    place = _arrays.place_of(x)
    plan = norm_plan(x.shape, x.strides, x.dtype, sets.reduced, sets.features, sets.channels)
    mean, rstd = mean.reshape(plan.statistics), rstd.reshape(plan.statistics)
    axes = sets.reduced, sets.features
    dx, *rest = by_formula(place, dy, x, gamma, mean, rstd, axes, sets.fixed, scale, sets.mask, weights)
    target = _engine.empty(place, plan) if out is None else out
    place.copy(target, dx)
    return target, rest[0] if sets.dgamma else None, rest[1] if sets.dbeta else None


def _clash(place: Any, dx: Array, dy: Array) -> bool:
    """Whether dx covers dy in part, so that writing the one would destroy the other."""
    return bool(place.overlap(dx, dy)) and not _engine._same_memory(place, dx, dy)


def _lies_as(dy: Array, plan: NormPlan) -> bool:
    lay = _layout.storage(dy.shape, dy.strides, dy.itemsize)
    return lay == plan.lay and lay.dense and not lay.flipped


def _like(place: Any, array: Array, dx: Array) -> Array:
    """A copy that lies in memory as dx does."""
    order = tuple(sorted(range(dx.ndim), key=lambda axis: -dx.strides[axis]))
    copy: Array = place.empty(tuple(dx.shape[axis] for axis in order), dx.dtype)
    copy = copy.transpose(inverse(order))
    place.copy(copy, array)
    return copy


def _launch(
    backend: Any,
    place: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    sets: Sets,
    scale: Scale,
    plan: NormPlan,
    dx: Array,
) -> tuple[Array | None, Array | None]:
    """dx in place; (dgamma, dbeta) with x's shape over the features."""
    norm = plan.norm
    dtype = _statistics_dtype(place, mean, rstd)
    mean, rstd = (place.dense(norm.arranged(s), dtype).reshape(-1) for s in (mean, rstd))
    shape = tuple(plan.stored[norm.order.index(axis)] if not norm.c_order else x.shape[axis] for axis in sets.features)
    n = prod(shape)
    dgamma, dbeta = (
        empty_parameter(place, n, plan.compute) if wanted else place.nothing(plan.compute)
        for wanted in (sets.dgamma, sets.dbeta)
    )
    inputs = (*(norm.arranged(a).reshape(norm.view) for a in (dy, x)), flat(place, gamma, 1, plan))
    std_eps = scale.eps if scale.eps_on_std else 0.0
    operands = (*inputs, mean, rstd, std_eps, float(scale.ddof))
    target = norm.arranged(dx).reshape(norm.view)
    if sets.mask is not None:
        _launch_masked(backend, operands, sets, scale, norm, (target, dgamma, dbeta))
    elif sets.from_output:
        assert norm.launcher == "norm_rows"
        betas = flat(place, beta, 0, plan)
        backend.norm_rows_backward_from_output(*inputs, betas, rstd, std_eps, scale.use_mean, target, dgamma, dbeta)
    elif norm.launcher == "norm_channels":
        backend.norm_channels_backward(*operands, sets.fixed, target, dgamma, dbeta)
    else:
        assert not sets.fixed
        launch = backend.norm_rows_backward if norm.launcher == "norm_rows" else backend.norm_groups_backward
        launch(*operands, scale.use_mean, target, dgamma, dbeta)
    return (
        _shaped(dgamma, shape, sets.features, plan) if sets.dgamma else None,
        _shaped(dbeta, shape, sets.features, plan) if sets.dbeta else None,
    )


def _launch_masked(
    backend: Any,
    operands: tuple[Any, ...],
    sets: Sets,
    scale: Scale,
    norm: _layout.Normalization,
    outputs: tuple[Array, Array, Array],
) -> None:
    """The launchers that know which elements take part."""
    assert sets.mask is not None
    by_channels = norm.launcher == "norm_channels"
    width = norm.view[1] if by_channels and norm.view[2] == 1 else norm.view[-1]
    taken = sets.mask.taken(norm.order, norm.view, width)
    dy, x, *rest = operands
    if by_channels:
        backend.masked_channels_backward(dy, x, taken, *rest, sets.fixed, sets.mask.keep, *outputs)
        return
    launch = backend.masked_rows_backward if norm.launcher == "norm_rows" else backend.masked_groups_backward
    launch(dy, x, taken, *rest, scale.use_mean, sets.mask.keep, *outputs)


def _statistics_dtype(place: Any, mean: Array, rstd: Array) -> np.dtype[Any]:
    """On the host float64, for which kernels are compiled; a device takes either, as a cast would be a launch."""
    if place is not _arrays.HOST and mean.dtype == rstd.dtype and mean.dtype.name in ("float32", "float64"):
        return mean.dtype
    return np.dtype(np.float64)


def _shaped(gradient: Array, shape: Axes, features: Axes, plan: NormPlan) -> Array:
    """A flat parameter gradient, in x's storage order, with x's shape over the features."""
    if plan.norm.c_order or len(features) < 2:
        return gradient.reshape(shape)
    stored = tuple(axis for axis in plan.norm.order if axis in features)
    lengths = dict(zip(features, shape, strict=True))
    return gradient.reshape([lengths[axis] for axis in stored]).transpose(inverse(stored))


def _gathered(
    backend: Any,
    place: Any,
    dy: Array,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    rstd: Array,
    sets: Sets,
    scale: Scale,
    plan: NormPlan,
    out: Array | None,
) -> Gradients:
    """The same with axes in the order that ``norm_groups_backward`` knows: k, K, R, r."""

    def rank(axis: int) -> tuple[int, int]:
        role = 3 * (axis in sets.reduced) ^ (axis in sets.features)
        return role, plan.lay.order.index(axis)

    order = tuple(sorted(range(x.ndim), key=rank))
    position = {axis: i for i, axis in enumerate(order)}
    moved = [tuple(sorted(position[axis] for axis in axes)) for axes in (sets.reduced, sets.features)]
    stored = tuple(axis for axis in order if axis in sets.features)
    gamma, beta = (
        p if p is None or p.ndim < 2 else p.transpose([sets.features.index(axis) for axis in stored])
        for p in (gamma, beta)
    )
    gathered = [place.empty(tuple(x.shape[axis] for axis in order), plan.dtype) for _ in range(2)]
    for target, source in zip(gathered, (dy, x), strict=True):
        place.copy(target, source.transpose(order))
    dy, x = gathered
    mean, rstd = mean.transpose(order), rstd.transpose(order)
    mask = None if sets.mask is None else sets.mask.transposed(order)
    new = sets._replace(reduced=moved[0], features=moved[1], mask=mask)
    dx, *rest = normalize_backward(backend, dy, x, gamma, mean, rstd, new, scale, out=dy, beta=beta)
    dgamma, dbeta = (None if g is None or g.ndim < 2 else g.transpose(inverse(stored)) for g in rest)
    target = _engine.empty(place, plan) if out is None else out
    place.copy(target, dx.transpose(inverse(order)))
    return target, rest[0] if dgamma is None else dgamma, rest[1] if dbeta is None else dbeta
