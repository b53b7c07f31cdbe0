"""What the libraries compute for a gradient, from dy, x, gamma and what their forward left.

Each returns (dx, dgamma, dbeta), as far as there are parameters. numbanorm has functions for it, which
take the saved mean and rstd; torch's users go through autograd, here on a graph that is kept; NumPy
has neither, and begins with the statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Axes = int | tuple[int, ...]


@lru_cache(maxsize=1)
def dy_of(shape: tuple[int, ...]) -> Array:
    """Normal numbers that have nothing to do with x."""
    return np.random.default_rng(20160721).standard_normal(shape, np.float32)


def ours(function: Callable[..., Any], d: Any, result: tuple[Array, ...], *middle: Any, **options: Any) -> Any:
    """A call of a function of ``numbanorm.norms_backward`` after a forward's `result` with statistics."""
    _, mean, rstd = result
    return partial(function, dy_of(d.x.shape).astype(d.x.dtype), d.x, *middle, d.gamma, mean, rstd, **options)


def by_torch(forward: Callable[[Any, Any], Callable[[], Any]], *leaves: str) -> Callable[[Any, Any], Any]:
    """A factory for torch's autograd through its `forward`, with respect to these of the data."""

    def factory(torch: Any, d: Any) -> Any:
        """The graph is made here and kept, so that only the gradient is timed."""
        d = d._replace(**{name: getattr(d, name).detach().requires_grad_() for name in leaves})
        y = forward(torch, d)()
        inputs = [getattr(d, name) for name in leaves]
        return partial(torch.autograd.grad, y, inputs, torch.from_numpy(dy_of(tuple(y.shape))), retain_graph=True)

    return factory


def numpy_gradient(
    x: Array,
    gamma: Any,
    axis: Axes,
    rest: Axes | None,
    *,
    eps: float = 1e-5,
    use_mean: bool = True,
    given: tuple[Array, Array] | None = None,
    num_groups: int | None = None,
) -> tuple[Array, ...]:
    """Statistics over `axis`, or `given` as mean and var; parameters are shared over `rest`, and None without."""
    dy = dy_of(x.shape).astype(x.dtype)
    view = x.shape if num_groups is None else (len(x), num_groups, -1)
    wide, g = x.reshape(view), (dy * gamma).reshape(view)
    if given is not None:
        mean, var = given
    else:
        mean = wide.mean(axis, keepdims=True) if use_mean else np.zeros((), x.dtype)
        var = np.square(wide - mean).mean(axis, keepdims=True)
    rstd = 1 / np.sqrt(var + eps)
    xhat = (wide - mean) * rstd
    if given is None:
        g -= xhat * (g * xhat).mean(axis, keepdims=True) + (g.mean(axis, keepdims=True) if use_mean else 0)
    dx = (g * rstd).reshape(x.shape)
    if rest is None:
        return (dx,)
    dgamma = (dy * xhat.reshape(x.shape)).sum(rest)
    return (dx, dgamma, dy.sum(rest)) if use_mean else (dx, dgamma)
