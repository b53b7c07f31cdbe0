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
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import (
    LINE,
    elements_of_line,
    kind_of,
    line_length,
    loaded,
    repeated,
    rounded,
    store_past_caches,
)
from numbanorm.backends.cpu._launch import SHORTEST_RUN, STREAM_BYTES
from numbanorm.backends.cpu._line_sums import LineSums


def goes_past_caches(x: NDArray[Any], y: NDArray[Any], run: int) -> bool:
    """Whether to stream y, written in runs of `run` neighbouring elements.

    Not in place: the lines of y have been read already.
    """
    if y.nbytes < STREAM_BYTES or run * y.itemsize < SHORTEST_RUN or numba.config.DISABLE_JIT:
        return False
    return bool(x.__array_interface__["data"] != y.__array_interface__["data"])


class Lines:
    """What the intrinsics that write normalised lines do with their arguments ``x, i, y, k, high, ..., beta, at``."""

    def __init__(self, context, builder, signature, arguments):
        self.builder, self.kinds, self.values = builder, signature.args, arguments
        self.kind, self.n = kind_of(signature.args[0].dtype), line_length(context, signature.args[2])
        self._starts = [
            context.make_array(kind)(context, builder, arguments[position]).data
            if isinstance(kind, types.Array)
            else None
            for position, kind in enumerate(signature.args)
        ]
        self._repeated = {
            position: repeated(builder, arguments[position], self.n)
            for position in range(4, 9)
            if not isinstance(signature.args[position], types.Array)
        }

    def numbers(self, position, kind, index):
        """A line of an array's elements from `index` on."""
        return loaded(self.builder, self.builder.gep(self._starts[position], [index]), kind, self.n)

    def operand(self, position, at):
        if position in self._repeated:
            return self._repeated[position]
        return self.numbers(position, self.kinds[position].dtype.name, at)

    def normalized(self, offset):
        """The line `offset` elements after the first, in the compute dtype."""
        builder = self.builder
        i, at = (builder.add(self.values[position], offset) for position in (1, 9))
        high, low, rstd, gamma, beta = (self.operand(position, at) for position in range(4, 9))
        centred = builder.fsub(builder.fsub(self.numbers(0, self.kind, i), high), low)
        return builder.fadd(builder.fmul(builder.fmul(centred, rstd), gamma), beta)

    def store(self, value, offset):
        """Round a line and write it `offset` elements after the first."""
        target = self.builder.gep(self._starts[2], [self.builder.add(self.values[3], offset)])
        store_past_caches(self.builder, rounded(self.builder, value, self.kind, self.n), target)

    def write(self, offset):
        """The line `offset` elements after the first."""
        self.store(self.normalized(offset), offset)


@intrinsic
def _write_line(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at):
    def codegen(context, builder, signature, arguments):
        Lines(context, builder, signature, arguments).write(context.get_constant(types.intp, 0))
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
def _write_and_sum_lines(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at, n_lines, ahead, shift, n_sums):
    def codegen(context, builder, signature, arguments):
        lines = Lines(context, builder, signature, arguments)
        n_lines, ahead, shift, n_sums = arguments[10:]
        sums = LineSums(builder, repeated(builder, shift, lines.n))
        for line, slot in sums.in_turn(n_lines, n_sums):
            offset = builder.mul(line, n_sums.type(lines.n))
            with sums.guarded(line, n_lines):
                lines.write(offset)
            with sums.guarded(line, n_sums):
                sums.add(lines.numbers(0, lines.kind, builder.add(ahead, offset)), slot)
        return context.make_tuple(builder, signature.return_type, sums.totals())

    word = types.intp
    arguments = x, word, y, word, high, low, rstd, gamma, beta, word, word, word, shift, word
    return types.UniTuple(shift, 2)(*arguments), codegen


@exact
def write_and_sum_lines(x, i, y, k, high, low, rstd, gamma, beta, at, n_lines, ahead, shift, n_sums):
    """Write n_lines as :func:`write_line` does, and meanwhile sum n_sums from x[ahead] on as :func:`sum_lines` does.

    There is at most one line more to sum than to write.
    """
    return _write_and_sum_lines(x, i, y, k, high, low, rstd, gamma, beta, at, n_lines, ahead, shift, n_sums)


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
