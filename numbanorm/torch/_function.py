"""A norm as a node of torch's graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from numbanorm.torch._calls import Call
from numbanorm.torch._tensors import array_of, is_batched, layout_of, tensor_of

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def normalize(call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """y, with a history only if one of the operands has one: else nothing is kept, nor computed for it."""
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    ):
        y: Tensor = Normalization.apply(x, weight, bias, call)
        return y
    return _forward(call, x, weight, bias, False)


def _forward(call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None, stats: bool) -> Any:
    """y, or with `stats` y, mean and rstd; y is no view, so that it may be modified."""
    out = layout_of(x, channels=call.channels)
    result = call.forward(array_of(x), array_of(weight), array_of(bias), stats, array_of(out))
    y = out if out is not None else tensor_of(result[0] if stats else result)
    return (y, tensor_of(result[1]), tensor_of(result[2])) if stats else y


class Normalization(torch.autograd.Function):
    """Keeps x, weight, and one mean and rstd per set."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
        """y."""
        y, mean, rstd = _forward(call, x, weight, bias, True)
        ctx.call = call
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias, as far as these are needed; torch casts them to their dtypes."""
        x, weight, mean, rstd = ctx.saved_tensors
        needs_dx, needs_dgamma, needs_dbeta, _ = ctx.needs_input_grad
        if torch.is_grad_enabled() or is_batched(dy):  # create_graph, is_grads_batched
            dx, dgamma, dbeta = differentiable(ctx.call, dy, x, weight, mean, rstd)
        else:
            operands = array_of(dy), array_of(x), array_of(weight), array_of(mean), array_of(rstd)
            dx, dgamma, dbeta = map(tensor_of, ctx.call.backward(*operands))
        return dx if needs_dx else None, dgamma if needs_dgamma else None, dbeta if needs_dbeta else None, None


def differentiable(call: Call, dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> Gradients:
    """The gradient written in torch's operations, from which torch finds the next one; see ``norms_backward``."""
    sets = call.sets(tuple(x.shape))
    dtype = mean.dtype  # in which sums are
    g, xhat = dy.to(dtype).reshape(sets.view), x.to(dtype).reshape(sets.view)

    def average(t: Tensor) -> Tensor:
        return t.mean(sets.reduced, keepdim=True)

    if sets.fixed:
        xhat = (xhat - mean) * rstd
    else:
        xhat = xhat - average(xhat) if sets.use_mean else xhat
        rstd = (average(xhat.square()) + call.eps).rsqrt()
        xhat = xhat * rstd
    dgamma = dbeta = None
    if weight is not None:
        shape = [n if axis in sets.features else 1 for axis, n in enumerate(sets.view)]
        dgamma, dbeta = (t.sum_to_size(shape).reshape(weight.shape) for t in (g * xhat, g))
        g = g * weight.to(dtype).reshape(shape)
    if not sets.fixed:
        g = g - xhat * average(g * xhat) - (average(g) if sets.use_mean else 0)
    return (g * rstd).reshape(x.shape).to(x.dtype), dgamma, dbeta
