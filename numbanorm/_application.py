"""Statistics and parameters applied to x: operands of any rank brought down to three axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm._norm_plan import NormPlan

Array = NDArray[Any]
Axes = tuple[int, ...]

#: A last run shorter than this is merged with its neighbour before parameters are applied.
SHORT_RUN = 64


def flat(place: Any, parameter: Array | None, default: float, plan: NormPlan) -> Array:
    """gamma or beta in the compute dtype and x's storage order, 1-D; of length 1 if missing."""
    if parameter is None:
        return place.constant(default, plan.compute)  # type: ignore[no-any-return]
    if plan.spread is not None:
        parameter = parameter.reshape(plan.spread).transpose(plan.norm.order)
    parameter = place.dense(parameter, plan.compute)
    return parameter if parameter.ndim == 1 else parameter.reshape(-1)


def apply_statistics(
    backend: Any,
    place: Any,
    x: Array,
    y: Array,
    plan: NormPlan,
    mean: Array,
    var: Array,
    gamma: Array | None,
    beta: Array | None,
    divisor: tuple[float, bool],
) -> None:
    """y = (x - mean) * rstd * gamma + beta; statistics in C order of x's kept axes, `divisor` eps and eps_on_std."""
    norm = plan.norm
    if not norm.c_order:
        x, y = norm.arranged(x), norm.arranged(y)
        mean, var = (place.dense(norm.arranged(s.reshape(plan.statistics))) for s in (mean, var))
    gammas, betas = flat(place, gamma, 1, plan), flat(place, beta, 0, plan)
    _apply_runs(
        backend,
        place,
        divisor,
        x.reshape(norm.cube),
        y.reshape(norm.cube),
        mean.reshape(norm.per_statistic),
        var.reshape(norm.per_statistic),
        gammas.reshape(norm.per_parameter if gammas.size > 1 else norm.single),
        betas.reshape(norm.per_parameter if betas.size > 1 else norm.single),
    )


def _apply_runs(
    backend: Any,
    place: Any,
    divisor: tuple[float, bool],
    x: Array,
    y: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
) -> None:
    """Bring operands of any rank down to the three axes that the launchers take."""
    if x.ndim == 3:
        launch = backend.affine_cols if mean.shape[2] > 1 else backend.affine_rows
        launch(x, mean, var, *divisor, gamma, beta, y)
        return
    arrays = (x, y, mean, var, gamma, beta)
    if x.shape[-1] < SHORT_RUN:
        _apply_runs(backend, place, divisor, *(_merged_tail(place, a, x.shape[-2:]) for a in arrays))
    else:
        for i in range(len(x)):
            _apply_runs(backend, place, divisor, *(a[i if len(a) > 1 else 0] for a in arrays))


def _merged_tail(place: Any, operand: Array, tail: Axes) -> Array:
    """The last two axes as one; an operand that varies along one of them is spread over both."""
    if operand.shape[-2:] not in (tail, (1, 1)):
        operand = place.dense(np.broadcast_to(operand, (*operand.shape[:-2], *tail)))
    return operand.reshape(*operand.shape[:-2], -1)
