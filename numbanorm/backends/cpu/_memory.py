"""Memory in which a kernel keeps numbers of its own: taken at its beginning, given back at its end.

Numba counts the references to an array with atomic instructions, and such an instruction waits until all
that was streamed to memory has arrived there: for a row of a thousand numbers, as long as the row itself takes.
Kernels are therefore compiled without reference counts, and take memory from where Numba itself does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, overload, type_callable
from numba.np.arrayobj import populate_array
from numpy.typing import DTypeLike, NDArray

from numbanorm.backends.cpu._lanes import LINE

#: ``malloc`` and ``free`` as Numba's runtime names them for compiled code, on every system.
_TAKE, _GIVE_BACK = "NRT_Allocate", "NRT_Free"


def memory(shape: int | tuple[int, int], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """An array with undefined contents, which begins with a cache line, until :func:`free` gets it.

    Where there is no memory the part ends, and the kernel raises ``MemoryError``.
    """
    return np.empty(shape, dtype)


def small_memory(n_rows: int, n_cols: int) -> Any:
    """A function of a dtype that gives an array of that shape, with undefined contents, which goes with its caller.

    It lies on the stack: asking for memory takes as long as normalising some hundred numbers. For kernels.
    """

    def of(dtype: DTypeLike) -> NDArray[Any]:
        return np.empty((n_rows, n_cols), dtype)

    @type_callable(of)
    def type_of(context):
        return lambda dtype: types.Array(dtype.dtype, 2, "C")

    @lower_builtin(of, types.Any)
    def on_stack(context, builder, signature, arguments):
        kind, word = signature.return_type, context.get_value_type(types.intp)
        element = context.get_data_type(kind.dtype)
        itemsize = context.get_abi_sizeof(element)
        room = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), n_rows * n_cols * itemsize))
        room.align = LINE
        array = context.make_array(kind)(context, builder)
        data = builder.bitcast(room, element.as_pointer())
        shape, strides = [word(n_rows), word(n_cols)], [word(n_cols * itemsize), word(itemsize)]
        populate_array(array, data, shape, strides, word(itemsize), meminfo=None)
        return array._getvalue()

    return of


def free(*arrays: NDArray[Any]) -> None:
    """Give back what :func:`memory` gave; nothing must touch it from then on."""


@type_callable(memory)
def _type_of_memory(context):
    def of(shape, dtype=None):
        lengths = [shape] if isinstance(shape, types.Integer) else list(shape)
        return types.Array(types.float64 if dtype is None else dtype.dtype, len(lengths), "C")

    return of


@lower_builtin(memory, types.VarArg(types.Any))
def _memory(context, builder, signature, arguments):
    """The address that was given is kept just before the array."""
    word, byte = context.get_value_type(types.intp), ir.IntType(8)
    kind, shape = signature.return_type, signature.args[0]
    given = [arguments[0]] if kind.ndim == 1 else cgutils.unpack_tuple(builder, arguments[0])
    kinds = [shape] if kind.ndim == 1 else list(shape)
    lengths = [context.cast(builder, n, of, types.intp) for n, of in zip(given, kinds, strict=True)]
    itemsize = word(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [itemsize]
    for n in reversed(lengths):
        strides.insert(0, builder.mul(strides[0], n))
    take = cgutils.get_or_insert_function(builder.module, ir.FunctionType(byte.as_pointer(), [word]), _TAKE)
    start = builder.call(take, [builder.add(strides[0], word(2 * LINE))])
    with builder.if_then(cgutils.is_null(builder, start), likely=False):
        context.call_conv.return_user_exc(builder, MemoryError, ())
    start = builder.ptrtoint(start, word)
    data = builder.and_(builder.add(start, word(2 * LINE - 1)), word(-LINE))
    builder.store(start, _origin(builder, data))
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(data, context.get_data_type(kind.dtype).as_pointer())
    populate_array(array, data, lengths, strides[1:], itemsize, meminfo=None)
    return array._getvalue()


def _origin(builder, data):
    """Where the address that was given is kept, from that of the first element."""
    word = data.type
    return builder.inttoptr(builder.sub(data, word(word.width // 8)), word.as_pointer())


@intrinsic
def _free(typingctx, arrays):
    def codegen(context, builder, signature, arguments):
        word, byte = context.get_value_type(types.intp), ir.IntType(8)
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer()])
        release = cgutils.get_or_insert_function(builder.module, kind, _GIVE_BACK)
        for position, array in enumerate(signature.args[0]):
            data = context.make_array(array)(context, builder, builder.extract_value(arguments[0], position)).data
            start = builder.load(_origin(builder, builder.ptrtoint(data, word)))
            builder.call(release, [builder.inttoptr(start, byte.as_pointer())])
        return context.get_dummy_value()

    return types.void(arrays), codegen


@overload(free)
def _jit_free(*arrays):
    return lambda *arrays: _free(arrays)
