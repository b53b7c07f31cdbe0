"""Writing dx past the caches, as whole lines formed in registers; see :mod:`._stream`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanorm.backends.cpu import _lanes
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import (
    LINE,
    flags,
    kind_of,
    line_length,
    loaded,
    repeated,
    rounded,
    store_past_caches,
)


@intrinsic
def _write_gradient_line(typingctx, dy, x, i, dx, high, rstd, gamma, at, slope, constant, taken, keep):
    def codegen(context, builder, signature, arguments):
        n = line_length(context, signature.args[3])

        def address(position, index):
            return _lanes.address(context, builder, signature, arguments, position, arguments[index])

        gradient, value = (loaded(builder, address(k, 2), kind_of(signature.args[k].dtype), n) for k in (0, 1))
        high, rstd, slope, constant = (repeated(builder, arguments[position], n) for position in (4, 5, 8, 9))
        if isinstance(signature.args[6], types.Array):
            gamma = loaded(builder, address(6, 7), signature.args[6].dtype.name, n)
        else:
            gamma = repeated(builder, arguments[6], n)
        xhat = builder.fmul(builder.fsub(value, high), rstd)
        scaled = builder.fmul(gradient, builder.fmul(gamma, rstd))
        result = builder.fadd(builder.fadd(scaled, builder.fmul(xhat, slope)), constant)
        if isinstance(signature.args[10], types.Array) and signature.args[10].dtype == types.boolean:
            zero = ir.Constant(gradient.type, None)
            inside = flags(builder, address(10, 2), n)
            padding = builder.select(arguments[11], gradient, zero)
            result = builder.select(inside, result, padding)
        store_past_caches(builder, rounded(builder, result, kind_of(signature.args[3].dtype), n), address(3, 2))
        return context.get_dummy_value()

    arguments = dy, x, types.intp, dx, high, rstd, gamma, types.intp, slope, constant, taken, types.boolean
    return types.void(*arguments), codegen


@exact
def write_gradient_line(dy, x, i, dx, high, rstd, gamma, at, slope, constant, taken, keep):
    """The cache line from dx[i] on; gamma is a number, or an array whose elements from `at` on are taken.

    `taken` says which elements take part, as in :mod:`._masked_elements`.
    """
    _write_gradient_line(dy, x, i, dx, high, rstd, gamma, at, slope, constant, taken, keep)


@intrinsic
def _copy_line(typingctx, dy, dx, i):
    def codegen(context, builder, signature, arguments):
        n, kind = line_length(context, signature.args[1]), kind_of(signature.args[1].dtype)

        def address(position):
            return _lanes.address(context, builder, signature, arguments, position, arguments[2])

        if isinstance(dy, types.Array):
            value = rounded(builder, loaded(builder, address(0), kind, n), kind, n)
        else:
            bits = ir.IntType(LINE // n * 8)
            value = ir.Constant(ir.VectorType(bits, n), None)
        store_past_caches(builder, value, address(1))
        return context.get_dummy_value()

    return types.void(dy, dx, types.intp), codegen


@exact
def copy_line(dy, dx, i):
    """The cache line from dx[i] on as in dy, or 0 if dy is None."""
    _copy_line(dy, dx, i)
