"""Writing past the caches.

An ordinary store to memory that is not in cache reads the line first, a third more
traffic for a norm. Large outputs are therefore written as whole, aligned cache lines
that bypass the caches, formed in registers: through a buffer the stores would wait for
one another. What lies before the first and after the last whole line of a segment is
written the ordinary way, or waits for the next segment (:mod:`._runs`).
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import (
    LINE,
    elements_of_line,
    fetch,
    kind_of,
    line_length,
    loaded,
    loaded_where,
    repeated,
    rounded,
    store,
    store_past_caches,
    store_where,
)
from numbanorm.backends.cpu._launch import SHORTEST_RUN, STREAM_BYTES


def goes_past_caches(x: NDArray[Any], y: NDArray[Any], run: int) -> bool:
    """Whether to stream y, written in runs of `run` neighbouring elements.

    Not in place: the lines of y have been read already.
    """
    if y.nbytes < STREAM_BYTES or run * y.itemsize < SHORTEST_RUN or numba.config.DISABLE_JIT:
        return False
    return bool(x.__array_interface__["data"] != y.__array_interface__["data"])


class Lines:
    """What intrinsics that write normalised lines do with their arguments ``x, i, y, k, ...``.

    Those of a single run go on with ``high, low, rstd, gamma, beta, at``: numbers, or arrays of which the
    elements from `at` on are taken.
    """

    def __init__(self, context, builder, signature, arguments):
        self.builder, self.kinds, self.values = builder, signature.args, arguments
        self.kind, self.n = kind_of(signature.args[0].dtype), line_length(context, signature.args[2])
        assert self.kind == kind_of(signature.args[2].dtype), "x and y have one dtype"
        self._starts = [
            context.make_array(kind)(context, builder, arguments[position]).data
            if isinstance(kind, types.Array)
            else None
            for position, kind in enumerate(signature.args)
        ]

    def numbers(self, position, kind, index, mask=None):
        """A line of an array's elements from `index` on, or those of it that the mask says."""
        pointer = self.builder.gep(self._starts[position], [index])
        if mask is None:
            return loaded(self.builder, pointer, kind, self.n)
        return loaded_where(self.builder, mask, pointer, kind, self.n)

    def fetch(self, offset):
        """Ask for the line of x that is `offset` elements after the first."""
        fetch(self.builder, self.builder.gep(self._starts[0], [self.builder.add(self.values[1], offset)]))

    def operand(self, position, index, mask=None):
        """A line of an argument: of an array from `index` on, or of a number again and again."""
        if self._starts[position] is None:
            return repeated(self.builder, self.values[position], self.n)
        return self.numbers(position, self.kinds[position].dtype.name, index, mask)

    def operands(self, offset, mask=None):
        """high, low, rstd, gamma and beta of the line `offset` elements after the first."""
        index = self.builder.add(self.values[9], offset)
        return [self.operand(position, index, mask) for position in range(4, 9)]

    def normalized(self, offset, operands, mask=None):
        """The line `offset` elements after the first, in the compute dtype."""
        builder = self.builder
        high, low, rstd, gamma, beta = operands
        numbers = self.numbers(0, self.kind, builder.add(self.values[1], offset), mask)
        centred = builder.fsub(builder.fsub(numbers, high), low)
        return builder.fadd(builder.fmul(builder.fmul(centred, rstd), gamma), beta)

    def target(self, offset):
        """Where the line `offset` elements after the first goes."""
        return self.builder.gep(self._starts[2], [self.builder.add(self.values[3], offset)])

    def store(self, value, offset, past_caches=True):
        """Round a line and write it."""
        write = store_past_caches if past_caches else store
        write(self.builder, self.bits(value), self.target(offset))

    def store_part(self, value, offset, mask):
        """Round a line, and write what the mask says of it, the ordinary way."""
        store_where(self.builder, mask, self.bits(value), self.target(offset))

    def bits(self, value):
        """A line as it is stored."""
        value = rounded(self.builder, value, self.kind, self.n)
        if value.type.element == ir.HalfType():
            return self.builder.bitcast(value, ir.VectorType(ir.IntType(16), self.n))
        return value

    def elements_before(self, offset):
        """How many elements of its cache line lie before that which is `offset` after the first."""
        builder, word = self.builder, offset.type
        address = builder.ptrtoint(self.target(offset), word)
        return builder.lshr(builder.and_(address, word(LINE - 1)), word((LINE // self.n).bit_length() - 1))


@intrinsic
def _write_line(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at):
    def codegen(context, builder, signature, arguments):
        lines, zero = Lines(context, builder, signature, arguments), context.get_constant(types.intp, 0)
        lines.store(lines.normalized(zero, lines.operands(zero)), zero)
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
        n = elements_of_line(y)
        if not past_caches:
            return length, 0, n
        head = min(length, (-_address(y, start) % LINE) // (LINE // n))
        return head, (length - head) // n, n

    return implementation


def settle() -> None:
    """Make what was streamed visible before the part ends."""


@overload(settle)
def _jit_settle():
    return lambda: _fence()
