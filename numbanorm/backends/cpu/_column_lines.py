"""Sums of columns over eight rows at a time, one line of columns after the other, in vector registers.

The processor reads ahead where one line follows another. Eight rows of a few hundred columns, each
left after a kilobyte, defeat it: read so, memory gives half of what it could. The lines of the next
eight rows are therefore asked for while those of these are summed.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import LINE, address, below, fetch, kind_of, loaded, loaded_where
from numbanorm.backends.cpu._launch import TILE

#: Rows of a visit: as many spare loads and stores of the sums, and fit the registers.
ROWS = 8
#: Columns of a step, as many as fit the registers: a line of float32, two of float64, half of one of 16-bit floats.
COLUMNS = 16


class _Columns:
    """What the intrinsics below do with their arguments ``x, i, column, stride, width, sums``."""

    def __init__(self, context, builder, signature, arguments):
        self.builder, self._parts = builder, (context, builder, signature, arguments)
        _, self.first, self.column, self.stride, self.width, _ = arguments
        self.numbers = ir.VectorType(ir.DoubleType(), COLUMNS)
        self.kind = kind_of(signature.args[0].dtype)
        self.n_lines = max(1, COLUMNS * context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype)) // LINE)

    def add(self, n_rows):
        """Add n_rows rows, step by step, but for what fills no step."""
        builder, word = self.builder, self.width.type
        stop = builder.and_(self.width, word(-COLUMNS))
        with cgutils.for_range_slice(builder, self.column, stop, word(COLUMNS)) as (column, _):
            self._step(n_rows, column)

    def add_rest(self):
        """Add what is left of one row, and nothing to the columns beyond the width."""
        mask = below(self.builder, self.column, self.width, COLUMNS)
        self._step(1, self.column, mask)

    def _step(self, n_rows, column, mask=None):
        builder = self.builder
        shift = builder.load(self._slot(0, column), align=8)
        differences = [builder.fsub(self._row(row, column, mask), shift) for row in range(n_rows)]
        if mask is not None:
            differences = [builder.select(mask, d, ir.Constant(d.type, None)) for d in differences]
        squares = [builder.fmul(d, d, flags=["contract"]) for d in differences]
        for which, terms in ((1, differences), (2, squares)):
            slot = self._slot(which, column)
            builder.store(builder.fadd(builder.load(slot, align=8), self._sum(terms)), slot, align=8)

    def _slot(self, which, column):
        pointer = address(*self._parts, 5, self.builder.add(column, column.type(which * TILE)))
        return self.builder.bitcast(pointer, self.numbers.as_pointer())

    def _row(self, row, column, mask):
        """A step of a row, in float64; the same of ROWS rows later is asked for."""
        builder, word = self.builder, column.type
        index = builder.add(builder.add(self.first, column), builder.mul(self.stride, word(row)))
        pointer = address(*self._parts, 0, index)
        ahead = builder.gep(pointer, [builder.mul(self.stride, word(ROWS))])
        for line in range(self.n_lines):
            fetch(builder, builder.gep(ahead, [word(line * COLUMNS // self.n_lines)]))
        if mask is None:
            value = loaded(builder, pointer, self.kind, COLUMNS)
        else:
            value = loaded_where(builder, mask, pointer, self.kind, COLUMNS)
        return value if value.type == self.numbers else builder.fpext(value, self.numbers)

    def _sum(self, terms):
        """Pair by pair."""
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2], strict=True)
            terms = [self.builder.fadd(a, b, flags=["contract"]) for a, b in pairs]
        return terms[0]


def _adding(n_rows):
    """The intrinsic that adds n_rows rows, or if that is 0 the rest of a row."""

    @intrinsic
    def add(typingctx, x, i, column, stride, width, sums):
        def codegen(context, builder, signature, arguments):
            columns = _Columns(context, builder, signature, arguments)
            columns.add(n_rows) if n_rows else columns.add_rest()
            return context.get_dummy_value()

        return types.void(x, types.intp, types.intp, types.intp, types.intp, sums), codegen

    return add


_add_some, _add_one, _add_rest = _adding(ROWS), _adding(1), _adding(0)


@exact
def _rows_added(x, i, stride, n_rows, width, sums):
    """Kept apart from its callers, whose fastmath would reorder it."""
    rest = width // COLUMNS * COLUMNS
    row = 0
    while row < n_rows:
        first = i + row * stride
        n = ROWS if row + ROWS <= n_rows else 1
        if n == ROWS:
            _add_some(x, first, 0, stride, width, sums)
        else:
            _add_one(x, first, 0, stride, width, sums)
        if rest < width:
            for k in range(n):
                _add_rest(x, first + k * stride, rest, stride, width, sums)
        row += n


def add_rows(x, i, stride, n_rows, width, sums):
    """Add n_rows rows of `width` columns, the first from x[i] on, to the sums of their columns.

    These are a shift, the sum of differences from it, and that of their squares, TILE apart.
    """
    for row in range(n_rows):
        for j in range(width):
            difference = np.float64(load(x, i + row * stride + j)) - sums[j]
            sums[TILE + j] += difference
            sums[2 * TILE + j] += difference * difference


@overload(add_rows)
def _jit_add_rows(x, i, stride, n_rows, width, sums):
    return lambda x, i, stride, n_rows, width, sums: _rows_added(x, i, stride, n_rows, width, sums)
