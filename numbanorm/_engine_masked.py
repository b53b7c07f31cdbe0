"""The pipeline of norms of which some elements of x have no part: see :mod:`numbanorm._engine` and ``_masks.py``.

On the host fused launchers visit x once. Where none serves a layout, and on a device, statistics
are taken first, then applied to all of x, and what has no part is put right last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays, _engine
from numbanorm._application import flat
from numbanorm._engine import Parameters, Scale
from numbanorm._layout import Normalization
from numbanorm._masks import Mask
from numbanorm._norm_plan import NormPlan, norm_plan
from numbanorm._reduction import statistics

Array = NDArray[Any]
Axes = tuple[int, ...]


def normalize(
    backend: Any,
    x: Array,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    mask: Mask,
    *,
    out: Array | None = None,
    want: str = "",
) -> tuple[Array, ...]:
    """:func:`numbanorm._engine.normalize` of what `mask` takes."""
    features, gamma, beta = parameters
    features = () if gamma is None and beta is None else features
    plan = norm_plan(x.shape, x.strides, x.dtype, reduced, features, False)
    if x.size == 0:
        return _engine.normalize(backend, x, reduced, parameters, scale, out=out, want=want)
    if backend.name != "cuda" and plan.norm.launcher in ("norm_rows", "norm_groups"):
        return _fused(backend, x, reduced, (features, gamma, beta), plan, scale, mask, out, want)
    weights = mask.weights(_arrays.place_of(x))
    _, mean, var = statistics(backend, x, reduced, weights, scale.ddof, scale.use_mean)
    return apply(backend, x, mean, var, reduced, parameters, scale, mask, out=out, want=want)


def _fused(
    backend: Any,
    x: Array,
    reduced: Axes,
    parameters: Parameters,
    plan: NormPlan,
    scale: Scale,
    mask: Mask,
    out: Array | None,
    want: str,
) -> tuple[Array, ...]:
    """One launch that sees x once."""
    features, gamma, beta = parameters
    source, y, norm = _source_and_output(x, out, parameters, plan, (reduced, features, False), mask)
    inputs, target = (norm.arranged(a).reshape(norm.view) for a in (source, y))
    taken = mask.taken(norm.order, norm.view, norm.view[-1])
    gammas, betas = flat(_arrays.HOST, gamma, 1, plan), flat(_arrays.HOST, beta, 0, plan)
    kept = [np.empty(norm.view[0] if want else 0, plan.compute) for _ in range(2)]
    launch = backend.masked_norm_rows if norm.launcher == "norm_rows" else backend.masked_norm_groups
    eps, eps_on_std, use_mean, ddof = scale
    launch(inputs, taken, gammas, betas, eps, eps_on_std, use_mean, ddof, mask.keep, target, *kept)
    y = y if out is None else _engine._delivered(_arrays.HOST, y, out)
    return (y, *(_engine._restored(statistic, plan) for statistic in kept)) if want else (y,)


def _source_and_output(
    x: Array, out: Array | None, parameters: Parameters, plan: NormPlan, roles: tuple[Axes, Axes, bool], mask: Mask
) -> tuple[Array, Array, Normalization]:
    """As :func:`numbanorm._engine._source_and_output`, for the launcher that the plan of x has chosen.

    An `out` that lies in memory otherwise than x, or over the mask, is not written to directly.
    """
    if out is not None and out.size:
        own = norm_plan(out.shape, out.strides, out.dtype, *roles)
        out = out if own.lay == plan.lay else None
    operands = (*parameters, mask.where)
    source, y, plan = _engine._source_and_output(_arrays.HOST, x, out, operands, plan, roles)
    return source, y, plan.norm


def apply(
    backend: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    mask: Mask,
    *,
    out: Array | None = None,
    want: str = "",
) -> tuple[Array, ...]:
    """:func:`numbanorm._engine.apply` to what `mask` takes."""
    place = _arrays.place_of(x)
    spread = _over_kept(place, x.shape, reduced, parameters)
    plan = norm_plan(x.shape, x.strides, x.dtype, reduced, spread[0], True)
    if x.size and backend.name != "cuda" and plan.norm.launcher == "norm_channels":
        y = _apply_fused(backend, x, mean, var, reduced, spread, plan, scale, mask, out)
    else:
        with np.errstate(all="ignore"):  # what takes no part may overflow
            y = _engine.apply(backend, x, mean, var, reduced, parameters, scale)[0]
        y = put_right(place, x, y, mask, out)
    if not want:
        return (y,)
    shape = tuple(1 if axis in reduced else n for axis, n in enumerate(x.shape))
    mean, var = place.duplicate(mean).reshape(shape), var.reshape(shape)
    return (y, *_engine.saved(x, mean, var, scale))


def _over_kept(place: Any, shape: Axes, reduced: Axes, parameters: Parameters) -> Parameters:
    """Parameters with x's shape over the axes of the statistics, if they do not vary along others."""
    features, gamma, beta = parameters
    kept = tuple(axis for axis in range(len(shape)) if axis not in reduced)
    if features == kept or (set(features) - set(kept) and not gamma is beta is None):
        return parameters
    full = tuple(shape[axis] for axis in kept)
    partial = tuple(shape[axis] if axis in features else 1 for axis in kept)
    gamma, beta = (p if p is None else place.dense(np.broadcast_to(p.reshape(partial), full)) for p in (gamma, beta))
    return kept, gamma, beta


def _apply_fused(
    backend: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduced: Axes,
    parameters: Parameters,
    plan: NormPlan,
    scale: Scale,
    mask: Mask,
    out: Array | None,
) -> Array:
    """One launch; statistics and parameters per channel."""
    place, (features, gamma, beta) = _arrays.HOST, parameters
    mean, var = (place.duplicate(s.astype(np.float64)) for s in (mean, var))
    source, y, norm = _source_and_output(x, out, parameters, plan, (reduced, features, True), mask)
    mean, var = (place.dense(norm.arranged(s.reshape(plan.statistics))).reshape(-1) for s in (mean, var))
    inputs, target = (norm.arranged(a).reshape(norm.view) for a in (source, y))
    gammas, betas = flat(place, gamma, 1, plan), flat(place, beta, 0, plan)
    taken = mask.taken(norm.order, norm.view, norm.view[2] if norm.view[2] > 1 else norm.view[1])
    backend.masked_affine(inputs, taken, mean, var, *scale[:2], gammas, betas, mask.keep, target)
    return y if out is None else _engine._delivered(place, y, out)


def put_right(place: Any, x: Array, y: Array, mask: Mask, out: Array | None) -> Array:
    """y, or `out`, with zeros or x itself where x has no part."""
    if mask.keep:
        filled = place.evaluate(np.where, mask.boolean_at(place), y, x)
    else:
        filled = place.evaluate(lambda m, a: np.where(m, a, a.dtype.type(0)), mask.boolean_at(place), y)
    target = y if out is None else out
    place.copy(target, filled)
    return target
