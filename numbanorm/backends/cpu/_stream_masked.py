"""Writing masked results past the caches, as whole lines formed in registers; see :mod:`._stream`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanorm.backends.cpu import _lanes
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import loaded, store_past_caches
from numbanorm.backends.cpu._stream import Lines


def _truths(builder, pointer, n):
    """Load n booleans from any address."""
    flags = builder.load(builder.bitcast(pointer, ir.VectorType(ir.IntType(8), n).as_pointer()))
    flags.align = 1
    return builder.icmp_unsigned("!=", flags, ir.Constant(flags.type, None))


@intrinsic
def _write_masked_line(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at, mask, keep):
    def codegen(context, builder, signature, arguments):
        lines, first = Lines(context, builder, signature, arguments), context.get_constant(types.intp, 0)
        taken = _truths(builder, _lanes.address(context, builder, signature, arguments, 10, arguments[1]), lines.n)
        value = lines.normalized(first)
        itself, zero = lines.numbers(0, lines.kind, arguments[1]), ir.Constant(value.type, None)
        padding = builder.select(arguments[11], itself, zero)
        lines.store(builder.select(taken, value, padding), first)
        return context.get_dummy_value()

    word = types.intp
    return types.void(x, word, y, word, high, low, rstd, gamma, beta, word, mask, types.boolean), codegen


@exact
def write_masked_line(x, i, y, k, high, low, rstd, gamma, beta, at, mask, keep):
    """As :func:`._stream.write_line`; where mask from i on is false, x itself if `keep`, else zero."""
    _write_masked_line(x, i, y, k, high, low, rstd, gamma, beta, at, mask, keep)


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
