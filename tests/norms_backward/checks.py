"""Right gradients: the formulas in float64, and central differences of the forward."""

import numpy as np

from tests import oracle


def expected(dy, x, gamma, axes, features, *, eps=1e-5, eps_on="var", use_mean=True, ddof=0):
    """(dx, dgamma, dbeta); gamma with x's rank or None, axes of statistics, axes of parameters."""
    wide, gradient = np.asarray(x).astype("f8"), np.asarray(dy).astype("f8")
    xhat, _, rstd = oracle.normalized(wide, axes, eps, eps_on=eps_on, use_mean=use_mean, ddof=ddof)
    g = gradient if gamma is None else gradient * gamma
    n = np.prod([x.shape[axis] for axis in axes])
    slope = 1 if eps_on == "var" else 1 / (1 - eps * rstd)
    projection = xhat * (g * xhat).sum(axes, keepdims=True) / (n - ddof) * slope
    dx = rstd * (g - g.mean(axes, keepdims=True) * use_mean - projection)
    rest = tuple(axis for axis in range(wide.ndim) if axis not in features)
    return dx, (gradient * xhat).sum(rest), gradient.sum(rest)


def central_differences(function, x, dy, step=1e-5):
    """d sum(function(x) * dy) / dx, one element at a time."""
    result = np.empty_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += step
        below[i] -= step
        result[i] = ((function(above) - function(below)) * dy).sum() / (2 * step)
    return result


def assert_gradient(actual, wanted, dtype=None, scale=1.0):
    """Equal to `wanted` in proportion to its largest element."""
    actual = np.asarray(actual)
    assert actual.shape == np.shape(wanted)
    bound = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 3e-6, "float64": 1e-11}[
        np.dtype(dtype or actual.dtype).name
    ]
    largest = max(np.abs(wanted).max(initial=0), scale)
    np.testing.assert_allclose(actual.astype("f8"), wanted, rtol=bound, atol=bound * largest)
