"""The pipeline of every norm: plan, allocate, launch, reshape.

The only place that allocates arrays of x's size, and the only one that knows backends,
layouts and dtypes at once. Callers validate before they come here. What shapes, strides
and dtypes decide is found by one look-up (:func:`_plan`); what is left is Python for
every call, and kept short.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays, _layout
from numbanorm._application import apply_statistics, flat
from numbanorm._dtypes import compute_dtype
from numbanorm._errors import check_choice, check_eps
from numbanorm._norm_plan import NormPlan, norm_plan
from numbanorm._recurrences import reciprocal_std
from numbanorm._reduction import statistics

Array = NDArray[Any]
Axes = tuple[int, ...]

#: Dtypes of statistics that launchers take.
_GIVEN = (np.dtype(np.float32), np.dtype(np.float64))


#: The axes of parameters, then gamma and beta: with x's shape over these, or flat; or None.
Parameters = tuple[Axes, Array | None, Array | None]


class Scale(NamedTuple):
    """How a variance becomes a divisor."""

    eps: float
    eps_on_std: bool = False
    use_mean: bool = True
    ddof: float = 0


@lru_cache(maxsize=256)
def checked_scale(
    norm: str, eps: float, eps_on: str = "var", *, use_mean: bool = True, ddof: float = 0, positive: bool = False
) -> Scale:
    """The options of a norm, or ``ValueError``."""
    check_eps(norm, eps, positive=positive)
    check_choice("eps_on", eps_on, ("var", "std"))
    return Scale(float(eps), eps_on == "std", use_mean, ddof)


def empty(place: Any, plan: NormPlan) -> Array:
    """Uninitialised memory for an output, dense, with its axes in x's storage order.

    Every output of x's size is allocated here.
    """
    y: Array = place.output(plan.stored, plan.dtype)
    return y if plan.transposed is None else y.transpose(plan.transposed)


def empty_like(place: Any, x: Array) -> Array:
    """The same for an output with x's shape and dtype, its axes in x's storage order."""
    return empty(place, norm_plan(x.shape, x.strides, x.dtype, (), (), False))


def normalize(
    backend: Any,
    x: Array,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    *,
    out: Array | None = None,
    want: str = "",
) -> tuple[Array, ...]:
    """Standardise x over the axes `reduced`, then apply the parameters.

    Returns y alone, or with ``want="rstd"`` y, mean and rstd in the compute dtype, or with
    ``want="var"`` y, mean and biased var; statistics are shaped to broadcast against x.
    """
    features, gamma, beta = parameters
    if gamma is None and beta is None and want != "var":
        features = ()  # without parameters more axes play the same role
    place = _arrays.place_of(x)
    plan = norm_plan(x.shape, x.strides, x.dtype, reduced, features, want == "var")
    source, y, plan = _source_and_output(place, x, out, parameters, plan, (reduced, features, want == "var"))
    statistics: tuple[Array, ...] = ()
    if x.size == 0:
        nan = place.evaluate(lambda zeros: zeros + np.nan, place.zeros(plan.statistics, plan.compute))
        statistics = (nan, nan)
    elif plan.norm.launcher is not None and not scale.ddof:
        statistics = _normalize_fused(backend, place, source, y, plan, gamma, beta, scale, want)
    else:
        statistics = _normalize_in_two(backend, place, source, y, plan, reduced, gamma, beta, scale, want)
    if out is not None:
        y = _delivered(place, y, out)
    return (y, *statistics) if want else (y,)


def apply(
    backend: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    *,
    out: Array | None = None,
    want: str = "",
) -> tuple[Array, ...]:
    """Normalise with given statistics, which have the shape of x's kept axes.

    Returns y alone, or with ``want="rstd"`` y, mean and rstd in the compute dtype.
    """
    features, gamma, beta = parameters
    place = _arrays.place_of(x)
    plan = norm_plan(x.shape, x.strides, x.dtype, reduced, features, False)
    dtype = mean.dtype if mean.dtype == var.dtype and mean.dtype in _GIVEN else _GIVEN[-1]
    mean, var = place.dense(mean, dtype), place.dense(var, dtype)
    if out is not None:
        mean, var = (place.duplicate(s) if place.overlap(out, s) else s for s in (mean, var))
    source, y, plan = _source_and_output(place, x, out, parameters, plan, (reduced, features, False))
    if x.size:
        apply_statistics(backend, place, source, y, plan, mean, var, gamma, beta, scale[:2])
    if out is not None:
        y = _delivered(place, y, out)
    if not want:
        return (y,)
    mean, var = place.duplicate(mean).reshape(plan.statistics), var.reshape(plan.statistics)
    return (y, *saved(x, mean, var, scale))


def _source_and_output(
    place: Any, x: Array, out: Array | None, operands: tuple[Any, ...], plan: NormPlan, roles: tuple[Axes, Axes, bool]
) -> tuple[Array, Array, NormPlan]:
    """(source, y, plan of y) of one dense layout: y to be written; x, or its copy in y.

    No memory of x's size is taken but for the result: an x with gaps is gathered into y
    and normalised there. y is `out` where that can be written directly.
    """
    usable = plan.dense and place.is_aligned(x)
    if out is None or not _can_hold(place, out, x, plan.dtype, operands):
        y = empty(place, plan)
    else:
        y = np.asarray(out) if place is _arrays.HOST else out  # a subclass may have its own idea of reshape
        own = norm_plan(y.shape, y.strides, y.dtype, *roles)
        usable = usable and own.lay == plan.lay
        plan = own
    if usable:
        return x, y, plan
    place.copy(y, x)
    return y, y, plan


def _can_hold(place: Any, out: Array, x: Array, dtype: np.dtype[Any], operands: tuple[Any, ...]) -> bool:
    """Whether kernels may write to `out`: dense, of the right dtype, not over their operands (the first are axes)."""
    if out.dtype != dtype or out.size == 0 or not place.is_aligned(out):
        return False
    lay = _layout.storage(out.shape, out.strides, out.itemsize)
    if not lay.dense or lay.flipped:
        return False
    if any(p is not None and place.overlap(out, p) for p in operands[1:]):
        return False
    return out is x or not place.overlap(out, x) or _same_memory(place, out, x)


def _delivered(place: Any, y: Array, out: Array) -> Array:
    """The caller's own `out` with the contents of y."""
    if y is not out and not _same_memory(place, y, out):
        place.copy(out, y)
    return out


def _same_memory(place: Any, a: Array, b: Array) -> bool:
    return bool(a.strides == b.strides and a.dtype == b.dtype and place.address(a) == place.address(b))


def _normalize_fused(
    backend: Any,
    place: Any,
    x: Array,
    y: Array,
    plan: NormPlan,
    gamma: Array | None,
    beta: Array | None,
    scale: Scale,
    want: str,
) -> tuple[Array, ...]:
    """One launch; statistics shaped to broadcast against x, if wanted."""
    norm = plan.norm
    gammas, betas = flat(place, gamma, 1, plan), flat(place, beta, 0, plan)
    source, target = (x, y) if norm.c_order else (norm.arranged(x), norm.arranged(y))
    if source.shape != norm.view:
        source, target = source.reshape(norm.view), target.reshape(norm.view)
    eps, eps_on_std, use_mean, _ = scale
    if norm.launcher == "norm_channels":
        # On a device a variance in float64 would cost a launch: its kernels know the compute dtype only.
        dtype = plan.compute if backend.name == "cuda" else np.dtype(np.float64)
        mean, spread = place.empty(norm.view[1], dtype), place.empty(norm.view[1], dtype)
        backend.norm_channels(source, gammas, betas, eps, eps_on_std, target, mean, spread)
    else:
        launch = backend.norm_rows if norm.launcher == "norm_rows" else backend.norm_groups
        if not want:
            mean = spread = place.nothing(plan.compute)
            launch(source, gammas, betas, eps, eps_on_std, use_mean, target, mean, spread)
            return ()
        mean, spread = place.empty(norm.view[0], plan.compute), place.empty(norm.view[0], plan.compute)
        launch(source, gammas, betas, eps, eps_on_std, use_mean, target, mean, spread)
    if not want:
        return ()
    if norm.launcher == "norm_channels" and want == "rstd":
        return saved(x, _restored(mean, plan), _restored(spread, plan), scale)
    return _restored(mean, plan), _restored(spread, plan)


def _restored(statistic: Array, plan: NormPlan) -> Array:
    """A statistic in storage order of the kept axes, shaped to broadcast against x."""
    if plan.transposed is None:
        return statistic.reshape(plan.statistics)
    return statistic.reshape(plan.kept).transpose(plan.restored).reshape(plan.statistics)


def saved(x: Array, mean: Array, var: Array, scale: Scale) -> tuple[Array, Array]:
    """mean and rstd in the compute dtype, as a caller sees them."""
    place, dtype = _arrays.place_of(x), compute_dtype(x.dtype)
    rstd = place.evaluate(lambda v: reciprocal_std(v.astype(np.float64), scale.eps, scale.eps_on_std), var)
    return place.dense(mean, dtype), place.dense(rstd, dtype)


def _normalize_in_two(
    backend: Any,
    place: Any,
    x: Array,
    y: Array,
    plan: NormPlan,
    reduced: Axes,
    gamma: Array | None,
    beta: Array | None,
    scale: Scale,
    want: str,
) -> tuple[Array, ...]:
    """Moments, then their application: for the layouts and options without a fused launcher."""
    _, mean, var = statistics(backend, x, reduced, None, scale.ddof, scale.use_mean)
    apply_statistics(backend, place, x, y, plan, mean, var, gamma, beta, scale[:2])
    if not want:
        return ()
    mean, var = mean.reshape(plan.statistics), var.reshape(plan.statistics)
    return saved(x, mean, var, scale) if want == "rstd" else (mean, var)
