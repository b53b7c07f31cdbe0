"""The line that a run of neighbours leaves open, written past the caches when the next run has filled it.

Past the caches only whole lines can go, while runs begin and end anywhere. What has no such neighbour
is written the ordinary way: element by element, since a store under a mask to what is not in cache
takes a tenth of a microsecond.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from numbanorm.backends.cpu._jit import spliced
from numbanorm.backends.cpu._lanes import LINE
from numbanorm.backends.cpu._lanes import store as store_line
from numbanorm.backends.cpu._memory import small_memory
from numbanorm.backends.cpu._stream import settle

#: Words of an edge: how many elements of an open line it holds, or -1 where nothing goes past the caches;
#: the first element's index in the output; how far ahead x is asked for; and the line.
_EDGE = 3 + LINE // 8
_room = small_memory(1, _EDGE)


@spliced
def new_edge(past_caches, ahead=0):
    """Room for the line that a run leaves open, for one part; it also says whether to write past the caches.

    Elements of x that lie `ahead` of those that are written are asked for: memory is read meanwhile.
    """
    edge = _room(np.int64)[0]
    edge[0] = 0 if past_caches else -1
    edge[2] = ahead
    return edge


class Edge:
    """An edge among the arguments of an intrinsic, and the output whose lines it holds."""

    def __init__(self, context, builder, signature, arguments, of, into):
        self.builder = builder
        start, self._output = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (into, of)
        )
        word = context.get_value_type(types.intp)
        self.n_held, self.first, self._ahead, self.line = (builder.gep(start, [word(k)]) for k in range(4))

    def ahead(self):
        """How far ahead x is asked for."""
        return self.builder.load(self._ahead)

    def put(self, line, first, n):
        """Hold a line, of whose elements the first n are part of the output from its element `first` on."""
        store_line(self.builder, line, self.line)
        self.builder.store(n, self.n_held)
        self.builder.store(first, self.first)

    def write(self, lower, upper, first):
        """Write elements [lower, upper) of the line, of which element 0 is the output's element `first`."""
        builder, element = self.builder, self._output.type
        line = builder.bitcast(self.line, element)
        with cgutils.for_range_slice(builder, lower, upper, lower.type(1)) as (lane, _):
            value = builder.load(builder.gep(line, [lane]), align=1)
            builder.store(value, builder.gep(self._output, [builder.add(first, lane)]), align=1)

    def flush(self):
        """Write what is held."""
        builder = self.builder
        n = builder.load(self.n_held)
        with builder.if_then(builder.icmp_signed(">", n, n.type(0)), likely=False):
            self.write(n.type(0), n, builder.load(self.first))
            builder.store(n.type(0), self.n_held)


@intrinsic
def _flush(typingctx, y, edge):
    def codegen(context, builder, signature, arguments):
        Edge(context, builder, signature, arguments, 0, 1).flush()
        return context.get_dummy_value()

    return types.void(y, edge), codegen


def _write_edge(y, edge):
    """Write the elements of the line that is still open."""


@overload(_write_edge)
def _jit_write_edge(y, edge):
    return lambda y, edge: _flush(y, edge)


@spliced
def settle_edge(y, edge):
    """Write what is left, and make all that was streamed visible before the part ends."""
    _write_edge(y, edge)
    settle()
