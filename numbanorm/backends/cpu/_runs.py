"""Writing runs of neighbours, line by line in vector registers.

LLVM's own loops take 64 elements a turn and the rest one by one, as many as an image of 7 by 7 has.
The runs of a batch are written in one loop: to call a function for each would cost as much as some lines.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from numbanorm.backends.cpu._edges import Edge
from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import below, repeated, store_past_caches
from numbanorm.backends.cpu._lanes import store as store_line
from numbanorm.backends.cpu._line_sums import LineSums
from numbanorm.backends.cpu._stream import Lines


def parameter(values, i):
    """Element `i` of an array of parameters, or the one that serves all."""
    return load(values, i) if isinstance(values, np.ndarray) else values


@overload(parameter)
def _jit_parameter(values, i):
    if isinstance(values, types.Array):
        return lambda values, i: load(values, i)
    return lambda values, i: values


class _Run:
    """A run of n elements, `base` after the first; with operands of its own, or those among the arguments."""

    def __init__(self, lines, edge, base, n, operands=None):
        self.builder, self._lines, self._edge, self._n = lines.builder, lines, edge, n
        self._base, self._operands = base, operands
        self._k = self.builder.add(lines.values[3], base)

    def write(self):
        """All of it, past the caches or not, as the edge says."""
        builder, lines, n = self.builder, self._lines, self._n
        word, whole = n.type, n.type(-lines.n)
        past_caches = builder.icmp_signed(">=", builder.load(self._edge.n_held), word(0))
        with builder.if_else(past_caches) as (streamed, stored):
            with streamed:
                ahead = self._edge.ahead()
                head = self.begin()
                stop = builder.add(head, builder.and_(builder.sub(n, head), whole))
                with cgutils.for_range_slice(builder, head, stop, word(lines.n)) as (offset, _):
                    lines.fetch(builder.add(builder.add(self._base, offset), ahead))
                    self.line(offset)
                self.end(stop)
            with stored:
                stop = builder.and_(n, whole)
                with cgutils.for_range_slice(builder, word(0), stop, word(lines.n)) as (offset, _):
                    self.line(offset, past_caches=False)
                n_rest = builder.sub(n, stop)
                with builder.if_then(builder.icmp_signed(">", n_rest, word(0))):
                    mask = below(builder, word(0), n_rest, lines.n)
                    lines.store_part(self._normalized(stop, mask), builder.add(self._base, stop), mask)

    def line(self, offset, past_caches=True):
        """The line `offset` elements after the run's first."""
        self._lines.store(self._normalized(offset), self.builder.add(self._base, offset), past_caches)

    def _normalized(self, offset, mask=None):
        operands = self._operands(offset, mask) if self._operands else self._lines.operands(offset, mask)
        return self._lines.normalized(self.builder.add(self._base, offset), operands, mask)

    def begin(self):
        """Past the caches, up to the first whole line: fill the open one, or write the ordinary way. How many."""
        builder, lines, edge, n = self.builder, self._lines, self._edge, self._n
        word = n.type
        zero = word(0)
        before = lines.elements_before(self._base)
        first = builder.sub(self._k, before)
        length = builder.and_(builder.sub(zero, before), word(lines.n - 1))
        shorter = builder.icmp_signed("<", n, length)
        length = builder.select(shorter, n, length)
        held = builder.icmp_signed("==", builder.load(edge.n_held), before)
        follows = builder.and_(held, builder.icmp_signed("==", builder.load(edge.first), first))
        with builder.if_else(builder.icmp_signed("!=", before, zero)) as (inside, at_start):
            with inside:
                lanes = builder.not_(below(builder, zero, before, lines.n))
                lanes = builder.and_(lanes, below(builder, zero, builder.add(before, length), lines.n))
                offset = builder.neg(before)
                line = lines.bits(self._normalized(offset, lanes))
                with builder.if_else(builder.and_(follows, builder.not_(shorter))) as (fills, part):
                    with fills:
                        held_line = builder.load(builder.bitcast(edge.line, line.type.as_pointer()), align=8)
                        whole = builder.select(lanes, line, held_line)
                        store_past_caches(builder, whole, lines.target(builder.add(self._base, offset)))
                        builder.store(zero, edge.n_held)
                    with part:
                        edge.flush()
                        store_line(builder, line, edge.line)
                        edge.write(before, builder.add(before, length), first)
            with at_start:
                edge.flush()
        return length

    def end(self, stop):
        """Hold what follows the whole lines, which end at `stop`."""
        builder, lines = self.builder, self._lines
        n_rest = builder.sub(self._n, stop)
        with builder.if_then(builder.icmp_signed(">", n_rest, n_rest.type(0))):
            mask = below(builder, n_rest.type(0), n_rest, lines.n)
            line = lines.bits(self._normalized(stop, mask))
            self._edge.put(line, builder.add(self._k, stop), n_rest)


@intrinsic
def _write_runs(typingctx, x, i, y, k, operands, gamma, beta, at, n_runs, n, edge):
    def codegen(context, builder, signature, arguments):
        lines = Lines(context, builder, signature, arguments)
        n_runs, n = arguments[8:10]
        table = context.make_array(signature.args[4])(context, builder, arguments[4])
        width = builder.extract_value(table.shape, 1)

        def of_run(run):
            """The operands of a run: those that it has for itself, and gamma and beta unless they are arrays."""

            def number(row):
                pointer = builder.gep(table.data, [builder.add(builder.mul(width, n.type(row)), run)])
                return repeated(builder, builder.load(pointer), lines.n)

            shared = isinstance(signature.args[5], types.Array)
            numbers = [number(row) for row in range(3 if shared else 5)]

            def of_line(offset, mask):
                index = builder.add(arguments[7], offset)
                return numbers + ([lines.operand(position, index, mask) for position in (5, 6)] if shared else [])

            return of_line

        held = Edge(context, builder, signature, arguments, 2, 10)
        with cgutils.for_range(builder, n_runs) as loop:
            _Run(lines, held, builder.mul(loop.index, n), n, of_run(loop.index)).write()
        return context.get_dummy_value()

    word = types.intp
    return types.void(x, word, y, word, operands, gamma, beta, word, word, word, edge), codegen


@exact
def _written_runs(x, i, y, k, operands, gamma, beta, at, n_runs, n, edge):
    """Kept apart from its callers, whose fastmath would reorder it."""
    _write_runs(x, i, y, k, operands, gamma, beta, at, n_runs, n, edge)


def write_runs(x, start, y, operands, gamma, beta, at, n_runs, n, edge):
    """n_runs runs of n elements that follow one another: ``((x - high) - low) * rstd * gamma + beta``.

    Each has a column of operands; gamma and beta are None if they are among these, or arrays of which the
    elements from `at` on serve each run. Past the caches, the last elements may stay in the edge until
    it is settled.
    """
    for run in range(n_runs):
        high, low, rstd = operands[0, run], operands[1, run], operands[2, run]
        gammas, betas = (operands[3, run], operands[4, run]) if gamma is None else (gamma, beta)
        first = start + run * n
        write_run(x, first, y, first, high, low, rstd, gammas, betas, at, n, edge)


@overload(write_runs)
def _jit_write_runs(x, start, y, operands, gamma, beta, at, n_runs, n, edge):
    def jit_write_runs(x, start, y, operands, gamma, beta, at, n_runs, n, edge):
        _written_runs(x, start, y, start, operands, gamma, beta, at, n_runs, n, edge)

    return jit_write_runs


@intrinsic
def _write_run(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at, n, edge):
    def codegen(context, builder, signature, arguments):
        lines = Lines(context, builder, signature, arguments)
        n = arguments[10]
        _Run(lines, Edge(context, builder, signature, arguments, 2, 11), n.type(0), n).write()
        return context.get_dummy_value()

    word = types.intp
    return types.void(x, word, y, word, high, low, rstd, gamma, beta, word, word, edge), codegen


@exact
def _written_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge):
    """Kept apart from its callers, whose fastmath would reorder it."""
    _write_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge)


def write_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge):
    """The n elements from y[k] on: ``((x - high) - low) * rstd * gamma + beta`` of x[i] on.

    The five operands are numbers, or arrays whose elements from `at` on are taken. Past the caches, the
    last elements may stay in the edge until :func:`settle_edge`.
    """
    for j in range(n):
        value = (load(x, i + j) - parameter(high, at + j)) - parameter(low, at + j)
        value = value * parameter(rstd, at + j) * parameter(gamma, at + j)
        store(y, k + j, value + parameter(beta, at + j))


@overload(write_run)
def _jit_write_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge):
    def jit_write_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge):
        _written_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge)

    return jit_write_run


@intrinsic
def _write_and_sum(typingctx, x, i, y, k, high, low, rstd, gamma, beta, at, n, edge, shift):
    def codegen(context, builder, signature, arguments):
        lines = Lines(context, builder, signature, arguments)
        first, n, shift = (arguments[position] for position in (1, 10, 12))
        run = _Run(lines, Edge(context, builder, signature, arguments, 2, 11), n.type(0), n)
        ahead, word = builder.add(first, n), n.type
        sums = LineSums(builder, shift, lines.n)
        head = run.begin()
        n_lines, n_sums = (builder.sdiv(length, word(lines.n)) for length in (builder.sub(n, head), n))
        for line, slot in sums.in_turn(n_lines, n_sums):
            offset = builder.mul(line, word(lines.n))
            with sums.guarded(line, n_lines):
                run.line(builder.add(head, offset))
            with sums.guarded(line, n_sums):
                sums.add(lines.numbers(0, lines.kind, builder.add(ahead, offset)), slot)
        run.end(builder.add(head, builder.mul(n_lines, word(lines.n))))
        with sums.rest(n) as (offset, mask):
            sums.add(lines.numbers(0, lines.kind, builder.add(ahead, offset), mask), mask=mask)
        return context.make_tuple(builder, signature.return_type, sums.totals())

    word = types.intp
    return types.UniTuple(shift, 2)(x, word, y, word, high, low, rstd, gamma, beta, word, word, edge, shift), codegen


@exact
def write_and_sum_run(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge, shift):
    """Write n elements past the caches as :func:`write_run` does, and sum the n that follow in x as ``line_sums``."""
    return _write_and_sum(x, i, y, k, high, low, rstd, gamma, beta, at, n, edge, shift)
