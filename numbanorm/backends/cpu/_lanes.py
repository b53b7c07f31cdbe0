"""Vectors of as many numbers as a cache line of an array holds, for intrinsics: LLVM's own, built by hand.

A line of 16-bit floats is twice as many float32 lanes as a line of float32.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import overload

LINE = 64


def elements_of_line(array):
    """How many elements of an array a cache line holds."""
    return LINE // array.itemsize


@overload(elements_of_line)
def _jit_elements_of_line(array):
    itemsize = array.dtype.size if isinstance(array.dtype, types.Record) else array.dtype.bitwidth // 8
    n = LINE // itemsize  # a constant: the array's own itemsize would be divided by
    return lambda array: n


def loaded(builder, pointer, kind, n):
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


def flags(builder, pointer, n):
    """Load n booleans from any address, as a vector of bits."""
    of_bytes = ir.VectorType(ir.IntType(8), n)
    value = builder.load(builder.bitcast(pointer, of_bytes.as_pointer()))
    value.align = 1
    return builder.icmp_unsigned("!=", value, ir.Constant(of_bytes, [0] * n))


def rounded(builder, value, kind, n):
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


def repeated(builder, value, n):
    """A number in all n lanes."""
    nothing = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n))


def kind_of(dtype):
    """Name of the floats that an array holds, as such or as records of their bits."""
    return next(iter(dtype.fields)) if isinstance(dtype, types.Record) else dtype.name


def line_length(context, array):
    """Elements of a line of an array of this type."""
    return LINE // context.get_abi_sizeof(context.get_data_type(array.dtype))


def address(context, builder, signature, arguments, position, index):
    """Where element `index` of the array among the arguments lies."""
    data = context.make_array(signature.args[position])(context, builder, arguments[position]).data
    return builder.gep(data, [index])


def store_past_caches(builder, value, target):
    """Store a whole, aligned line that bypasses the caches."""
    store = builder.store(value, builder.bitcast(target, value.type.as_pointer()), align=LINE)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
