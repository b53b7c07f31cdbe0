"""Writing masked results past the caches, as whole lines formed in registers; see :mod:`._stream`."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from numbanorm.backends.cpu import _lanes
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import below, flags, loaded, store_past_caches
from numbanorm.backends.cpu._stream import Lines


@intrinsic
def _write_masked_line(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at, limit, index, keep):
    def codegen(context, builder, signature, arguments):
        lines, first = Lines(context, builder, signature, arguments), context.get_constant(types.intp, 0)
        if isinstance(signature.args[10], types.Array):
            inside = flags(builder, _lanes.address(context, builder, signature, arguments, 10, arguments[11]), lines.n)
        else:
            inside = below(builder, arguments[11], arguments[10], lines.n)
        value = lines.normalized(first, lines.operands(first))
        itself, zero = lines.numbers(0, lines.kind, arguments[1]), ir.Constant(value.type, None)
        padding = builder.select(arguments[12], itself, zero)
        lines.store(builder.select(inside, value, padding), first)
        return context.get_dummy_value()

    word = types.intp
    return types.void(x, word, y, word, high, low, rstd, gamma, beta, word, limit, word, types.boolean), codegen


@exact
def write_masked_line(x, i, y, k, high, low, rstd, gamma, beta, at, limit, index, keep):
    """As :func:`._stream.write_line` where elements of x are taken; else x itself if `keep`, or zero.

    `limit` is a mask, of which the line's elements begin at `index`, or the first `index` that is not taken.
    """
    _write_masked_line(x, i, y, k, high, low, rstd, gamma, beta, at, limit, index, keep)


@intrinsic
def _write_padding_line(typingctx, x, i, y, keep):
    def codegen(context, builder, signature, arguments):
        source, target = (_lanes.address(context, builder, signature, arguments, k, arguments[1]) for k in (0, 2))
        with builder.if_else(arguments[3]) as (kept, zeroed):
            with kept:
                store_past_caches(builder, loaded(builder, source, "bits", _lanes.LINE // 2), target)
            with zeroed:
                zeros = ir.Constant(ir.VectorType(ir.IntType(16), _lanes.LINE // 2), None)
                store_past_caches(builder, zeros, target)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.boolean), codegen


@exact
def write_padding_line(x, i, y, keep):
    """The cache line from y[i] on: that of x if `keep`, else zeros, without a look at x."""
    _write_padding_line(x, i, y, keep)


@intrinsic
def _write_flags(typingctx, flags, i, n):
    def codegen(context, builder, signature, arguments):
        stop = builder.trunc(arguments[2], ir.IntType(8))
        inside = builder.zext(below(builder, stop.type(0), stop, _lanes.LINE), ir.VectorType(stop.type, _lanes.LINE))
        target = _lanes.address(context, builder, signature, arguments, 0, arguments[1])
        builder.store(inside, builder.bitcast(target, inside.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(flags, types.intp, types.intp), codegen


def write_flags(flags, i, n):
    """A cache line of booleans from flags[i] on, of which the first n are true."""
    flags[i : i + _lanes.LINE] = np.arange(_lanes.LINE) < n


@overload(write_flags)
def _jit_write_flags(flags, i, n):
    return lambda flags, i, n: _write_flags(flags, i, n)
