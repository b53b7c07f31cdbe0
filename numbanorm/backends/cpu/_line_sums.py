"""Sums of whole lines in vector registers, always in the same order.

A row has the same sums whether it is summed on its own or while another one is written;
LLVM, free to reorder, would not promise that.
"""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import address, kind_of, line_length, loaded, repeated

#: Lines that are summed side by side, so that none waits for the one before.
ABREAST = 4


class LineSums:
    """Differences from a shift and their squares, summed lane by lane; line i goes to slot i % ABREAST."""

    def __init__(self, builder, shift):
        self.builder, self.shift = builder, shift
        zero = ir.Constant(shift.type, [0.0] * shift.type.count)
        self._slots = [[cgutils.alloca_once_value(builder, zero) for _ in range(2)] for _ in range(ABREAST)]
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

    def add(self, numbers, slot):
        """Add a line."""
        builder = self.builder
        difference = builder.fsub(numbers, self.shift)
        square = builder.fmul(difference, difference, flags=["contract"])
        for place, term in zip(self._slots[slot], (difference, square), strict=True):
            builder.store(builder.fadd(builder.load(place), term, flags=["contract"]), place)

    def totals(self):
        """The sums of all lanes, half by half."""
        return [self._total([self.builder.load(slot[which]) for slot in self._slots]) for which in range(2)]

    def _total(self, terms):
        vector = self._halved(terms)
        return self._halved(
            [self.builder.extract_element(vector, ir.IntType(32)(lane)) for lane in range(vector.type.count)]
        )

    def _halved(self, terms):
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [self.builder.fadd(a, b) for a, b in zip(terms[:half], terms[half:], strict=True)]
        return terms[0]


@intrinsic
def _sum_lines(typingctx, x, i, shift, n_lines):
    def codegen(context, builder, signature, arguments):
        n = line_length(context, signature.args[0])
        _, first, shift, n_lines = arguments
        sums = LineSums(builder, repeated(builder, shift, n))
        for line, slot in sums.in_turn(n_lines, n_lines):
            with sums.guarded(line, n_lines):
                index = builder.add(first, builder.mul(line, n_lines.type(n)))
                source = address(context, builder, signature, arguments, 0, index)
                sums.add(loaded(builder, source, kind_of(signature.args[0].dtype), n), slot)
        return context.make_tuple(builder, signature.return_type, sums.totals())

    return types.UniTuple(shift, 2)(x, types.intp, shift, types.intp), codegen


@exact
def sum_lines(x, i, shift, n_lines):
    """Sums, over the n_lines from x[i] on, of differences from `shift` and of their squares."""
    return _sum_lines(x, i, shift, n_lines)
