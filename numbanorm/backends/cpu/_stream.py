"""Writing past the caches.

An ordinary store to memory that is not in cache reads the line first, a third more
traffic for a norm. Large outputs are therefore written as whole, aligned cache lines
that bypass the caches, formed in registers: through a buffer the stores would wait for
one another. Elements before the first and after the last whole line of a segment are
written the ordinary way.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._launch import SHORTEST_RUN, STREAM_BYTES

LINE = 64


def goes_past_caches(x: NDArray[Any], y: NDArray[Any], run: int) -> bool:
    """Whether to stream y, written in runs of `run` neighbouring elements.

    Not in place: the lines of y have been read already.
    """
    if y.nbytes < STREAM_BYTES or run * y.itemsize < SHORTEST_RUN or numba.config.DISABLE_JIT:
        return False
    return bool(x.__array_interface__["data"] != y.__array_interface__["data"])


def _vector(builder, pointer, kind, n):
    """Load n elements from any address; 16-bit floats become float32."""
    element = {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(kind, ir.IntType(16))
    value = builder.load(builder.bitcast(pointer, ir.VectorType(element, n).as_pointer()))
    value.align = 2
    if kind == "float16":
        return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), n)), ir.VectorType(ir.FloatType(), n))
    if kind == "bfloat16":
        wide = ir.VectorType(ir.IntType(32), n)
        upper = builder.shl(builder.zext(value, wide), ir.Constant(wide, [16] * n))
        return builder.bitcast(upper, ir.VectorType(ir.FloatType(), n))
    return value


def _rounded(builder, value, kind, n):
    """float32 to the bits of a 16-bit float, to nearest even; other kinds as they are."""
    if kind == "float16":
        return builder.fptrunc(value, ir.VectorType(ir.HalfType(), n))
    if kind == "bfloat16":
        wide = ir.VectorType(ir.IntType(32), n)

        def all_of(constant):
            return ir.Constant(wide, [constant] * n)

        bits = builder.bitcast(value, wide)
        upper = builder.lshr(bits, all_of(16))
        nearest = builder.add(builder.add(bits, all_of(0x7FFF)), builder.and_(upper, all_of(1)))
        is_number = builder.fcmp_ordered("ord", value, value)
        chosen = builder.select(is_number, builder.lshr(nearest, all_of(16)), builder.or_(upper, all_of(0x40)))
        return builder.trunc(chosen, ir.VectorType(ir.IntType(16), n))
    return value


def _kind(dtype):
    return next(iter(dtype.fields)) if isinstance(dtype, types.Record) else dtype.name


@intrinsic
def _write_line(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at):
    def codegen(context, builder, signature, arguments):
        kind = _kind(signature.args[0].dtype)
        n = LINE // context.get_abi_sizeof(context.get_data_type(signature.args[2].dtype))
        source, target = (
            builder.gep(context.make_array(kind_of)(context, builder, array).data, [index])
            for kind_of, array, index in (
                (signature.args[0], arguments[0], arguments[1]),
                (signature.args[2], arguments[2], arguments[3]),
            )
        )

        def operand(position):
            kind_of, value = signature.args[position], arguments[position]
            if isinstance(kind_of, types.Array):
                data = context.make_array(kind_of)(context, builder, value).data
                return _vector(builder, builder.gep(data, [arguments[-1]]), kind_of.dtype.name, n)
            vector = ir.VectorType(value.type, n)
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
            mask = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
            return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

        high, low, rstd, gamma, beta = (operand(position) for position in range(4, 9))
        centred = builder.fsub(builder.fsub(_vector(builder, source, kind, n), high), low)
        value = builder.fadd(builder.fmul(builder.fmul(centred, rstd), gamma), beta)
        value = _rounded(builder, value, kind, n)
        store = builder.store(value, builder.bitcast(target, value.type.as_pointer()), align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp, high, low, rstd, gamma, beta, types.intp), codegen


@exact
def write_line(x, i, y, k, high, low, rstd, gamma, beta, at):
    """The cache line from y[k] on: ``((x - high) - low) * rstd * gamma + beta`` of x[i] on.

    The last five are numbers, or arrays whose elements from `at` on are taken. Rounded as
    elements are that are written one by one.
    """
    _write_line(x, i, y, k, high, low, rstd, gamma, beta, at)


@intrinsic
def _address(typingctx, array, index):
    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(builder.gep(data, [arguments[1]]), context.get_value_type(types.intp))

    return types.intp(array, types.intp), codegen


@intrinsic
def _fence(typingctx):
    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def whole_lines(y: Any, start: int, length: int, past_caches: bool) -> tuple[int, int, int]:
    """(elements before the first whole line of y[start : start + length], lines, elements of a line)."""
    return length, 0, 1


@overload(whole_lines)
def _jit_whole_lines(y, start, length, past_caches):
    def implementation(y, start, length, past_caches):
        n = LINE // y.itemsize
        if not past_caches:
            return length, 0, n
        head = min(length, (-_address(y, start) % LINE) // y.itemsize)
        return head, (length - head) // n, n

    return implementation


def settle() -> None:
    """Make what was streamed visible before the part ends."""


@overload(settle)
def _jit_settle():
    return lambda: _fence()
