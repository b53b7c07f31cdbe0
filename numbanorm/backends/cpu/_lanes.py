"""Vectors of as many numbers as a cache line of an array holds, for intrinsics: LLVM's own, built by hand.

A line of 16-bit floats is twice as many float32 lanes as a line of float32.
"""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import overload

LINE = 64
#: Which half of a 32-bit number in memory is the upper one.
_UPPER = int(sys.byteorder == "little")


def elements_of_line(array):
    """How many elements of an array a cache line holds."""
    return LINE // array.itemsize


@overload(elements_of_line)
def _jit_elements_of_line(array):
    itemsize = array.dtype.size if isinstance(array.dtype, types.Record) else array.dtype.bitwidth // 8
    n = LINE // itemsize  # a constant: the array's own itemsize would be divided by
    return lambda array: n


def loaded(builder, pointer, kind, n):
    """Load n elements from any address; 16-bit floats become float32, integers and booleans float64."""
    value = builder.load(builder.bitcast(pointer, ir.VectorType(_element(kind), n).as_pointer()))
    value.align = 1
    return _widened(builder, value, kind, n)


def _widened(builder, value, kind, n):
    if kind in _INTEGERS:
        convert = builder.sitofp if kind.startswith("int") else builder.uitofp
        return convert(value, ir.VectorType(ir.DoubleType(), n))
    if kind == "float16":
        return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), n)), ir.VectorType(ir.FloatType(), n))
    if kind == "bfloat16":
        wide = ir.VectorType(ir.IntType(32), n)
        upper = builder.shl(builder.zext(value, wide), ir.Constant(wide, [16] * n))
        return builder.bitcast(upper, ir.VectorType(ir.FloatType(), n))
    return value


#: Kinds that are not floats, and their bits.
_INTEGERS = {"bool": 8, **{f"{kind}{bits}": bits for kind in ("int", "uint") for bits in (8, 16, 32, 64)}}


def _element(kind):
    """How an element is stored; of 16-bit floats the bits."""
    return {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(kind, ir.IntType(_INTEGERS.get(kind, 16)))


def below(builder, i, stop, n):
    """Which of the n indices from `i` on are below `stop`."""
    count = builder.sub(stop, i)
    if count.type.width > 32:  # as many lanes as a register of 32-bit numbers has; indices may be far apart
        least, most = (count.type(bound) for bound in (0, n))
        count = builder.select(builder.icmp_signed("<", count, least), least, count)
        count = builder.trunc(builder.select(builder.icmp_signed(">", count, most), most, count), ir.IntType(32))
    lanes = ir.Constant(ir.VectorType(count.type, n), list(range(n)))
    return builder.icmp_signed("<", lanes, repeated(builder, count, n))


def _masked(builder, name, result, vector, *arguments):
    """Call LLVM's masked load or store: what is masked out is not touched."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.masked.{name}.v{vector.count}{vector.element.intrinsic_name}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def loaded_where(builder, mask, pointer, kind, n):
    """As :func:`loaded` where the mask says so, zero elsewhere."""
    stored = ir.VectorType(_element(kind), n)
    pointer = builder.bitcast(pointer, ir.PointerType())
    others = pointer, ir.IntType(32)(1), mask, ir.Constant(stored, None)
    return _widened(builder, _masked(builder, "load", stored, stored, *others), kind, n)


def store_where(builder, mask, value, target):
    """Store those elements of a line that the mask says, the ordinary way."""
    others = value, builder.bitcast(target, ir.PointerType()), ir.IntType(32)(1), mask
    _masked(builder, "store", ir.VoidType(), value.type, *others)


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
        odd = builder.and_(builder.lshr(bits, all_of(16)), all_of(1))
        nearest = builder.add(builder.add(bits, all_of(0x7FFF)), odd)
        is_number = builder.fcmp_ordered("ord", value, value)
        chosen = builder.select(is_number, nearest, builder.or_(bits, all_of(0x400000)))
        halves = builder.bitcast(chosen, ir.VectorType(ir.IntType(16), 2 * n))
        # One permutation of two registers, where shifting and truncating would take seven instructions.
        upper = ir.Constant(ir.VectorType(ir.IntType(32), n), [2 * lane + _UPPER for lane in range(n)])
        return builder.shuffle_vector(halves, halves, upper)
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


#: How near a line is brought: into all caches, or into the second, where the first has no room for it yet.
INTO_L1, INTO_L2 = 3, 2


def fetch(builder, pointer, into=INTO_L2):
    """Ask for a line that will be read soon."""
    target = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    hints = [ir.Constant(ir.IntType(32), hint) for hint in (0, into, 1)]  # to read, how near, as data
    kind = ir.FunctionType(ir.VoidType(), [target.type, *(hint.type for hint in hints)])
    builder.call(builder.module.declare_intrinsic("llvm.prefetch", [target.type], kind), [target, *hints])


def store(builder, value, target):
    """Store a line at any address."""
    builder.store(value, builder.bitcast(target, value.type.as_pointer())).align = 1


def store_past_caches(builder, value, target):
    """Store a whole, aligned line that bypasses the caches."""
    store = builder.store(value, builder.bitcast(target, value.type.as_pointer()), align=LINE)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
