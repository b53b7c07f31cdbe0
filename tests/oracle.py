"""Right answers: every formula written out in float64 (or wider), and the hard inputs."""

from __future__ import annotations

from itertools import combinations

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = ("float16", "bfloat16", "float32", "float64")

#: Half a unit in the last place of a result near 1, for each dtype.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def as_dtype(x, dtype):
    return np.asarray(x).astype(BFLOAT16 if dtype == "bfloat16" else dtype)


def mean_var(x, axis=None, ddof=0, keepdims=False, where=True):
    """Two passes in extended precision: exact to the last bit of float64."""
    wide = np.asarray(x).astype(np.float64).astype(np.longdouble)
    mean = wide.mean(axis, keepdims=True, where=where)
    var = wide.var(axis, ddof=ddof, keepdims=keepdims, where=where)
    if not keepdims:
        mean = wide.mean(axis, where=where)
    return np.asarray(mean, np.float64), np.asarray(var, np.float64)


def normalized(x, axis, eps, *, eps_on="var", use_mean=True, ddof=0, where=True):
    """(y, mean, rstd) of x over `axis` before parameters, in float64."""
    wide = np.asarray(x).astype(np.float64).astype(np.longdouble)
    mean = wide.mean(axis, keepdims=True, where=where) * use_mean
    count = np.broadcast_to(np.asarray(where), wide.shape).sum(axis, keepdims=True)
    var = (np.square(wide - mean) * where).sum(axis, keepdims=True) / (count - ddof)
    rstd = 1 / np.sqrt(var + eps) if eps_on == "var" else 1 / (np.sqrt(var) + eps)
    return tuple(np.asarray(a, np.float64) for a in ((wide - mean) * rstd, mean, rstd))


def spread(parameter, axes, ndim):
    """A parameter with x's shape over `axes`, shaped to broadcast against x."""
    lengths = iter(np.shape(parameter))
    return np.reshape(np.asarray(parameter, np.float64), [next(lengths) if i in axes else 1 for i in range(ndim)])


def tolerance(dtype, scale=1.0):
    """Largest error of a norm's output of size `scale`: 2e-6 in float32, a rounding in the others."""
    name = np.dtype(dtype).name
    return {"float32": 2e-6, "float64": 1e-9}.get(name, 2 * ROUNDING[name]) * max(scale, 1.0)


def assert_normalized(actual, expected, dtype=None):
    """`actual` is `expected` within the dtype's tolerance, element by element."""
    actual = np.asarray(actual)
    bound = tolerance(dtype or actual.dtype) * np.maximum(np.abs(expected), 1)
    error = np.abs(actual.astype(np.float64) - expected)
    assert actual.shape == np.shape(expected)
    assert np.all(error <= bound), (
        f"worst error {np.nanmax(error / bound):.3g} times the bound; NaN: {np.isnan(error).sum()}"
    )


def axis_subsets(ndim):
    """Every set of axes, the empty one included."""
    return [axes for k in range(ndim + 1) for axes in combinations(range(ndim), k)]


def layouts(x):
    """The same shape and dtype in every memory layout that users have; (name, array) pairs."""
    x = np.asarray(x)
    yield "C", x.copy()
    yield "F", np.asfortranarray(x)
    order = np.roll(np.arange(x.ndim), 1)
    yield "permuted", np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    big = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    view = big[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    view[...] = x
    yield "sliced", view
    flip = (slice(None, None, -1),) * x.ndim
    yield "reversed", np.ascontiguousarray(x[flip])[flip]
    readonly = x.copy()
    readonly.flags.writeable = False
    yield "read-only", readonly
    if x.dtype.name != "bfloat16":
        yield "swapped", x.astype(x.dtype.newbyteorder())
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    unaligned = raw.view(x.dtype).reshape(x.shape) if x.nbytes else x.copy()
    unaligned[...] = x
    yield "unaligned", unaligned
