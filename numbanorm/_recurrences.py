"""Scalar moment arithmetic: the one place where the formulas stand.

Every backend compiles these same functions, so a formula is corrected once.
The functions are closed over their dtype (float32 in, float32 out): a literal
such as ``0.5`` or an integer divisor would turn float32 into float64 in
compiled code, so none appears.

A set of numbers is summarised by its moments ``(count, mean, m2)``, where
``m2 = sum((x - mean)**2)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Scalar = Any
MomentsOf = tuple[Scalar, Scalar, Scalar]


def block_moments(count: Scalar, shift: Scalar, total: Scalar, squares: Scalar) -> MomentsOf:
    """Moments of a block from the sums of ``x - shift`` and ``(x - shift)**2``.

    With `shift` one of the block's own numbers, ``total**2 / count`` cancels at
    most ``1 - 1/count`` of `squares`; rounding may still leave a tiny negative
    difference for equal numbers, hence the clamp (NaN passes through it).
    """
    offset = total / count
    m2 = squares - offset * total
    if m2 < m2 - m2:
        m2 = m2 - m2
    return count, shift + offset, m2


def welford_combine(
    count_a: Scalar, mean_a: Scalar, m2_a: Scalar, count_b: Scalar, mean_b: Scalar, m2_b: Scalar
) -> MomentsOf:
    """Moments of the union of two disjoint sets (Chan, Golub & LeVeque 1979)."""
    if not count_b > count_b - count_b:
        return count_a, mean_a, m2_a
    if not count_a > count_a - count_a:
        return count_b, mean_b, m2_b
    count = count_a + count_b
    delta = mean_b - mean_a
    if delta - delta != delta - delta:
        # An infinite mean: inf + inf is inf, where mean + (inf - inf) * w would be NaN.
        return count, mean_a + mean_b, delta - delta
    offset = delta * (count_b / count)
    return count, mean_a + offset, m2_a + m2_b + delta * offset * count_a


def reciprocal_std(var: Any, eps: Scalar, eps_on_std: bool) -> Any:
    """``1 / sqrt(var + eps)``, or ``1 / (sqrt(var) + eps)`` when `eps_on_std`.

    The only expression of the package in which `eps` appears. Also applied to
    whole arrays of variances on the host.
    """
    if eps_on_std:
        return np.reciprocal(np.sqrt(var) + eps)
    return np.reciprocal(np.sqrt(var + eps))


def centred(value: Scalar, mean_hi: Scalar, mean_lo: Scalar) -> Scalar:
    """``value - mean`` with the mean kept as an unevaluated sum of two parts.

    The first difference is exact for values near the mean, so nothing is lost
    at ``|mean| / std`` up to 1e6, where ``value * a + b`` would cancel.
    """
    return (value - mean_hi) - mean_lo
