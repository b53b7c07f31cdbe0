"""Sums of whole lines in vector registers, always in the same order.

A row has the same sums whether it is summed on its own or while another one is written;
LLVM, free to reorder, would not promise that.
"""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import address, below, kind_of, line_length, loaded, loaded_where, repeated

#: Lines that are summed side by side, so that none waits for the one before.
ABREAST = 4
#: Lanes of float64 at most: the sums of more would not fit the registers.
WIDEST = 16


class LineSums:
    """Differences from a shift and their squares, summed lane by lane; line i goes to slot i % ABREAST."""

    def __init__(self, builder, shift, n):
        self.builder, self.n, self.shift = builder, n, repeated(builder, shift, n)
        self._zero = ir.Constant(self.shift.type, None)
        self._slots = [[cgutils.alloca_once_value(builder, self._zero) for _ in range(2)] for _ in range(ABREAST)]
        self._careful = False

    def in_turn(self, n_full, n_lines):
        """Emit a loop over lines as long as ABREAST of the first n_full are left, then ABREAST guarded ones.

        Yields each line and its slot, for which the body is emitted.
        """
        builder, word = self.builder, n_lines.type
        together = builder.and_(n_full, word(-ABREAST))
        with cgutils.for_range_slice(builder, word(0), together, word(ABREAST)) as (line, _):
            yield from ((builder.add(line, word(slot)), slot) for slot in range(ABREAST))
        self._careful = True
        yield from ((builder.add(together, word(slot)), slot) for slot in range(ABREAST))

    @contextmanager
    def guarded(self, line, n_lines):
        """Emit what only lines below n_lines need; inside the loop all are."""
        if not self._careful:
            yield
            return
        with self.builder.if_then(self.builder.icmp_signed("<", line, n_lines)):
            yield

    @contextmanager
    def rest(self, n):
        """Emit what the numbers need that are left of n and fill no line; yields their offset and mask."""
        builder, word = self.builder, n.type
        n_rest = builder.and_(n, word(self.n - 1))
        with builder.if_then(builder.icmp_signed(">", n_rest, word(0))):
            yield builder.sub(n, n_rest), below(builder, word(0), n_rest, self.n)

    def add(self, numbers, slot=0, mask=None):
        """Add a line, or what the mask says of it."""
        builder = self.builder
        if numbers.type != self.shift.type:
            numbers = builder.fpext(numbers, self.shift.type)
        difference = builder.fsub(numbers, self.shift)
        if mask is not None:
            difference = builder.select(mask, difference, self._zero)
        square = builder.fmul(difference, difference, flags=["contract"])
        for place, term in zip(self._slots[slot], (difference, square), strict=True):
            builder.store(builder.fadd(builder.load(place), term, flags=["contract"]), place)

    def totals(self):
        """The sums of all lanes, half by half."""
        return [self._total([self.builder.load(slot[which]) for slot in self._slots]) for which in range(2)]

    def _total(self, terms):
        builder = self.builder
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [builder.fadd(a, b) for a, b in zip(terms[:half], terms[half:], strict=True)]
        vector = terms[0]
        while vector.type.count > 1:
            lanes = ir.VectorType(ir.IntType(32), vector.type.count // 2)
            lower, upper = (
                builder.shuffle_vector(vector, vector, ir.Constant(lanes, list(range(first, first + lanes.count))))
                for first in (0, lanes.count)
            )
            vector = builder.fadd(lower, upper)
        return builder.extract_element(vector, ir.IntType(32)(0))


@intrinsic
def _line_sums(typingctx, x, i, n, shift):
    def codegen(context, builder, signature, arguments):
        _, first, n, shift = arguments
        kind, word = kind_of(signature.args[0].dtype), n.type
        lanes = line_length(context, signature.args[0])
        if signature.args[3] == types.float64:
            lanes = min(lanes, WIDEST)
        sums = LineSums(builder, shift, lanes)

        def source(offset):
            return address(context, builder, signature, arguments, 0, builder.add(first, offset))

        n_lines = builder.sdiv(n, word(lanes))
        for line, slot in sums.in_turn(n_lines, n_lines):
            with sums.guarded(line, n_lines):
                sums.add(loaded(builder, source(builder.mul(line, word(lanes))), kind, lanes), slot)
        with sums.rest(n) as (offset, mask):
            sums.add(loaded_where(builder, mask, source(offset), kind, lanes), mask=mask)
        return context.make_tuple(builder, signature.return_type, sums.totals())

    return types.UniTuple(shift, 2)(x, types.intp, types.intp, shift), codegen


@exact
def _lines_summed(x, i, n, shift):
    """Kept apart from its callers, whose fastmath would reorder it."""
    return _line_sums(x, i, n, shift)


def line_sums(x, i, n, shift):
    """Sums, over the n numbers from x[i] on, of differences from `shift` and of their squares, in its dtype."""
    total, squares = type(shift)(0), type(shift)(0)
    for k in range(i, i + n):
        difference = type(shift)(load(x, k)) - shift
        total += difference
        squares += difference * difference
    return total, squares


@overload(line_sums)
def _jit_line_sums(x, i, n, shift):
    return lambda x, i, n, shift: _lines_summed(x, i, n, shift)
