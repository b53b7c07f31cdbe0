"""The pipeline of every norm: plan, allocate, launch, reshape.

The only place that allocates arrays of x's size, and the only one that knows backends,
layouts and dtypes at once. Callers validate before they come here.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _layout, _pool
from numbanorm._dtypes import compute_dtype, norm_dtype
from numbanorm._recurrences import reciprocal_std
from numbanorm._reduction import moments

Array = NDArray[Any]
Axes = tuple[int, ...]

#: A last run shorter than this is merged with its neighbour before parameters are applied.
SHORT_RUN = 64


def empty(shape: Axes, dtype: np.dtype[Any], lay: _layout.Storage) -> Array:
    """Uninitialised memory for an output, dense, with its axes in the storage order of `lay`.

    Every output of x's size is allocated here.
    """
    if lay.c_order:
        return _pool.empty(shape, dtype)
    return _pool.empty(tuple(shape[axis] for axis in lay.order), dtype).transpose(np.argsort(lay.order))


class Parameters(NamedTuple):
    """gamma and beta with the shape of x over the axes `features`, or None."""

    features: Axes = ()
    gamma: Array | None = None
    beta: Array | None = None


class Scale(NamedTuple):
    """How a variance becomes a divisor."""

    eps: float
    eps_on_std: bool = False
    use_mean: bool = True
    ddof: float = 0

    def divisor(self) -> tuple[float, bool]:
        """eps and eps_on_std, whatever number types they came as: one specialisation for all."""
        return float(self.eps), bool(self.eps_on_std)


class Normalized(NamedTuple):
    """A norm's output; float64 or compute-dtype statistics that broadcast against x."""

    y: Array
    mean: Array | None = None
    rstd: Array | None = None
    var: Array | None = None


def normalize(
    backend: Any,
    x: Array,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    *,
    out: Array | None = None,
    want: str = "",
) -> Normalized:
    """Standardise x over the axes `reduced`, then apply the parameters.

    `want` is "" for y alone, "rstd" for mean and rstd in the compute dtype too, "var" for
    mean and biased var in float64.
    """
    if want != "var" and parameters.gamma is None and parameters.beta is None:
        parameters = Parameters()  # without parameters more axes play the same role
    source, y = _source_and_output(x, out, parameters)
    statistics: tuple[Array, ...] = ()
    if x.size == 0:
        shape = tuple(1 if axis in reduced else n for axis, n in enumerate(x.shape))
        statistics = (np.full(shape, np.nan), np.full(shape, np.nan))
    else:
        plan = _layout.normalization(
            source.shape, source.strides, source.itemsize, reduced, parameters.features, want == "var"
        )
        fused = plan.launcher is not None and not scale.ddof
        run = _normalize_fused if fused else _normalize_in_two
        statistics = run(backend, source, y, plan, reduced, parameters, scale, want)
    y = _delivered(y, out)
    if not want:
        return Normalized(y)
    if want == "var":
        return Normalized(y, mean=statistics[0], var=statistics[1])
    dtype = compute_dtype(x.dtype)
    return Normalized(y, *(statistic.astype(dtype, copy=False) for statistic in statistics))


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
) -> Normalized:
    """Normalise with the given statistics, which have x's rank and length 1 over `reduced`.

    `want` is "" for y alone, "rstd" for mean and rstd in the compute dtype too.
    """
    mean, var = (statistic.astype(np.float64) for statistic in (mean, var))  # copies, because `out` may overlap them
    source, y = _source_and_output(x, out, parameters)
    if x.size:
        plan = _layout.normalization(source.shape, source.strides, source.itemsize, reduced, parameters.features, False)
        _apply(backend, source, y, plan, mean, var, parameters, scale)
    y = _delivered(y, out)
    if not want:
        return Normalized(y)
    dtype = compute_dtype(x.dtype)
    return Normalized(y, mean=mean.astype(dtype), rstd=_reciprocal_std(var, scale).astype(dtype))


def _source_and_output(x: Array, out: Array | None, parameters: Parameters) -> tuple[Array, Array]:
    """(source, y) of one dense layout: y to be written; x, or its copy in y.

    No memory of x's size is taken but for the result: an x with gaps is gathered into y
    and normalised there. y is `out` where that can be written directly.
    """
    dtype = norm_dtype(x.dtype)
    if out is not None:
        out = np.asarray(out)  # a subclass may have its own idea of reshape
    x_lay = _layout.storage(x.shape, x.strides, x.itemsize)
    usable = x_lay.dense and not x_lay.flipped and x.flags.aligned and x.dtype == dtype
    if out is None or not _can_hold(out, x, dtype, parameters):
        y = empty(x.shape, dtype, x_lay)
        y_lay = x_lay
    else:
        y = out
        y_lay = _layout.storage(y.shape, y.strides, y.itemsize)
    if usable and y_lay == x_lay:
        return x, y
    np.copyto(y, x)
    return y, y


def _can_hold(out: Array, x: Array, dtype: np.dtype[Any], parameters: Parameters) -> bool:
    """Whether kernels may write to `out`: dense, of the right dtype, not over their operands."""
    if out.dtype != dtype or not out.flags.aligned or out.size == 0:
        return False
    lay = _layout.storage(out.shape, out.strides, out.itemsize)
    if not lay.dense or lay.flipped:
        return False
    if any(p is not None and np.may_share_memory(out, p) for p in parameters[1:]):
        return False
    return _same_memory(out, x) or not np.may_share_memory(out, x)


def _delivered(y: Array, out: Array | None) -> Array:
    """y, in the caller's own `out` where there is one."""
    if out is None:
        return y
    if not _same_memory(y, out):
        np.copyto(out, y, casting="same_kind")
    return out


def _same_memory(a: Array, b: Array) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.dtype == b.dtype


@cache
def _constant(value: float, dtype: np.dtype[Any]) -> Array:
    constant = np.full(1, value, dtype)
    constant.flags.writeable = False
    return constant


def _flat_parameters(x: Array, parameters: Parameters, order: Axes) -> tuple[Array, Array]:
    """gamma and beta in the compute dtype and x's storage order, 1-D; of length 1 if missing."""
    dtype = compute_dtype(x.dtype)

    def flat(parameter: Array | None, default: float) -> Array:
        if parameter is None:
            return _constant(default, dtype)
        if len(parameters.features) > 1:
            shape = [x.shape[axis] if axis in parameters.features else 1 for axis in range(x.ndim)]
            parameter = parameter.reshape(shape).transpose(order)
        return np.ascontiguousarray(parameter, dtype).reshape(-1)

    return flat(parameters.gamma, 1), flat(parameters.beta, 0)


def _normalize_fused(
    backend: Any,
    x: Array,
    y: Array,
    plan: _layout.Normalization,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    want: str,
) -> tuple[Array, ...]:
    """One launch; statistics shaped to broadcast against x, if wanted."""
    gamma, beta = _flat_parameters(x, parameters, plan.order)
    source, target = plan.arranged(x).reshape(plan.view), plan.arranged(y).reshape(plan.view)
    if plan.launcher == "norm_channels":
        mean, spread = np.empty((2, plan.view[1]))
        backend.norm_channels(source, gamma, beta, *scale.divisor(), target, mean, spread)
        if want == "rstd":
            spread = _reciprocal_std(spread, scale)
    else:
        n_rows = plan.view[0] if want else 0
        mean, spread = np.empty((2, n_rows), compute_dtype(x.dtype))
        launch = getattr(backend, str(plan.launcher))
        launch(source, gamma, beta, *scale.divisor(), scale.use_mean, target, mean, spread)
    if not want:
        return ()
    return tuple(_restore(statistic, x, plan.order, reduced) for statistic in (mean, spread))


def _restore(statistic: Array, x: Array, order: Axes, reduced: Axes) -> Array:
    """A statistic in storage order of the kept axes, shaped to broadcast against x."""
    kept = [axis for axis in order if axis not in reduced]
    shaped = statistic.reshape([x.shape[axis] for axis in kept]).transpose(np.argsort(kept))
    return shaped.reshape([1 if axis in reduced else n for axis, n in enumerate(x.shape)])


def _normalize_in_two(
    backend: Any,
    x: Array,
    y: Array,
    plan: _layout.Normalization,
    reduced: Axes,
    parameters: Parameters,
    scale: Scale,
    want: str,
) -> tuple[Array, ...]:
    """Moments, then their application: for the layouts and options without a fused launcher."""
    count, mean, m2 = (np.expand_dims(m, reduced) for m in moments(x, reduced))
    flat = (m.reshape(-1) for m in (count, mean, m2, mean, m2))
    backend.finish_moments(*itertools.islice(flat, 3), scale.ddof, scale.use_mean, False, *flat)
    var = m2
    _apply(backend, x, y, plan, mean, var, parameters, scale)
    return mean, (_reciprocal_std(var, scale) if want == "rstd" else var)


def _reciprocal_std(var: Array, scale: Scale) -> Array:
    """The factor that a caller sees, with inf and NaN as compiled code gives them: without a warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(reciprocal_std(var, *scale.divisor()))


def _apply(
    backend: Any,
    x: Array,
    y: Array,
    plan: _layout.Normalization,
    mean: Array,
    var: Array,
    parameters: Parameters,
    scale: Scale,
) -> None:
    """y = (x - mean) * rstd * gamma + beta over the runs of the plan."""
    gamma, beta = _flat_parameters(x, parameters, plan.order)
    per_statistic = [n if role in "kK" else 1 for n, role in zip(plan.runs, plan.roles, strict=True)]
    per_parameter = [n if role in "KR" else 1 for n, role in zip(plan.runs, plan.roles, strict=True)]
    statistics = (np.ascontiguousarray(plan.arranged(s)).reshape(per_statistic) for s in (mean, var))
    scales = (p.reshape(per_parameter if p.size > 1 else [1] * len(plan.runs)) for p in (gamma, beta))
    views = (plan.arranged(a).reshape(plan.runs) for a in (x, y))
    _apply_runs(backend, scale.divisor(), *views, *statistics, *scales)


def _apply_runs(
    backend: Any,
    divisor: tuple[float, bool],
    x: Array,
    y: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
) -> None:
    """Bring operands of any rank down to the three axes that the launchers take."""
    arrays = (x, y, mean, var, gamma, beta)
    if x.ndim > 3 and x.shape[-1] < SHORT_RUN:
        _apply_runs(backend, divisor, *(_merged_tail(a, x.shape[-2:]) for a in arrays))
    elif x.ndim > 3:
        for i in range(len(x)):
            _apply_runs(backend, divisor, *(a[i if len(a) > 1 else 0] for a in arrays))
    else:
        source, target, mean, var, gamma, beta = (a.reshape((1,) * (3 - a.ndim) + a.shape) for a in arrays)
        launch = backend.affine_cols if mean.shape[2] > 1 else backend.affine_rows
        launch(source, mean, var, *divisor, gamma, beta, target)


def _merged_tail(operand: Array, tail: Axes) -> Array:
    """The last two axes as one; an operand that varies along one of them is spread over both."""
    if operand.shape[-2:] in (tail, (1, 1)):
        return operand.reshape(*operand.shape[:-2], -1)
    return np.broadcast_to(operand, (*operand.shape[:-2], *tail)).reshape(*operand.shape[:-2], -1)
