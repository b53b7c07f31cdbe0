"""Reading and writing one element, whatever its dtype.

Numba has no 16-bit floating point on the CPU, so float16 and bfloat16 arrays travel
as records of their bits: two record types, hence two specialisations, that share every
kernel with float32. LLVM turns the conversions into packed instructions
(``vcvtph2ps``, shifts). The bodies of :func:`load` and :func:`store` are what runs with
the JIT off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype
from numpy.typing import NDArray

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._lanes import INTO_L1, LINE, address, fetch
from numbanorm.backends.cpu._launch import BRIDGE_BYTES


@lru_cache(maxsize=64)
def _carrier(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The record of bits in which a 16-bit float travels."""
    return np.dtype([(dtype.name, np.uint16)])


def flat_output(array: NDArray[Any]) -> NDArray[Any]:
    """A dense array as a kernel takes it: 1-D, 16-bit floats as records of their bits."""
    if array.itemsize == 2 and array.dtype.kind not in "iu":
        array = array.view(_carrier(array.dtype))
    return array.ravel()  # the same memory; half the time of reshape(-1)


def flat_input(array: NDArray[Any]) -> NDArray[Any]:
    """The same, read-only: no kernel can write to it, and Numba sees one type for all inputs."""
    flat = flat_output(array)
    flat.setflags(False)  # type: ignore[call-arg]  # by keyword it takes three times as long
    return flat


@intrinsic
def _half_to_float(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def _float_to_half(typingctx, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), codegen


@intrinsic
def _bits_to_float(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def _float_to_bits(typingctx, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


@exact
def _bfloat_to_float(bits):
    """A bfloat16 is the upper half of a float32."""
    return _bits_to_float(np.uint32(bits) << np.uint32(16))


@exact
def _float_to_bfloat(value):
    """Round to nearest even; a NaN stays a NaN."""
    bits = _float_to_bits(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.uint16(rounded if value == value else quiet)


def load(x, i):
    """Element `i` of the 1-D array `x`: float32 for 16-bit floats, else as it is.

    Compiled code takes `i` as unsigned: Numba would otherwise allow for negative indices,
    and LLVM would gather element by element.
    """
    if x.dtype.names is None:
        return x[i]
    if x.dtype.names[0] == "float16":
        return np.float32(x[i][0].view(np.float16))
    return (np.uint32(x[i][0]) << np.uint32(16)).view(np.float32)


@overload(load)
def _jit_load(x, i):
    if not isinstance(x.dtype, types.Record):
        return lambda x, i: x[np.uintp(i)]
    if "float16" in x.dtype.fields:
        return lambda x, i: _half_to_float(x[np.uintp(i)].float16)
    return lambda x, i: _bfloat_to_float(x[np.uintp(i)].bfloat16)


@intrinsic
def _prefetch(typingctx, x, i):
    def codegen(context, builder, signature, args):
        fetch(builder, address(context, builder, signature, args, 0, args[1]), INTO_L1)
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


def bridge(x, start, stop):
    """Prefetch what is left out after a segment that has been read, if that is little.

    The processor reads ahead in a stream, and where that jumps waits for memory more than once: for as
    long as thousands of bytes take. With the JIT off there is nothing to do.
    """


@overload(bridge)
def _jit_bridge(x, start, stop):
    line = LINE // as_dtype(x.dtype).itemsize
    most = BRIDGE_BYTES // LINE * line

    # One prefetch a turn: of those that come in bursts, as from an unrolled loop, the processor drops some.
    def jit_bridge(x, start, stop):
        if stop - start <= most:
            for i in range(start, stop, line):
                _prefetch(x, i)

    return jit_bridge


def store(y, i, value):
    """Write `value` (in the compute dtype) to element `i` of the 1-D array `y`, rounded."""
    if y.dtype.names is None:
        y[i] = value
    elif y.dtype.names[0] == "float16":
        y[i] = (np.float16(value).view(np.uint16),)
    else:
        bits = np.float32(value).view(np.uint32)
        rounded = (int(bits) + 0x7FFF + (int(bits) >> 16 & 1)) >> 16
        y[i] = (rounded if value == value else int(bits) >> 16 | 0x40,)


@overload(store)
def _jit_store(y, i, value):
    if not isinstance(y.dtype, types.Record):

        def plain(y, i, value):
            y[np.uintp(i)] = value

        return plain
    if "float16" in y.dtype.fields:

        def half(y, i, value):
            y[np.uintp(i)].float16 = _float_to_half(value)

        return half

    def bfloat(y, i, value):
        y[np.uintp(i)].bfloat16 = _float_to_bfloat(value)

    return bfloat


@exact
def _odd_float(value):
    """A float64 as float32, with an odd last bit where that is not exact: to round it again is to round once."""
    nearest = np.float32(value)
    same = np.float64(nearest)
    bits = _float_to_bits(nearest)
    if same != value and value == value:
        bits = (bits - np.uint32(abs(same) > abs(value))) | np.uint32(1)
    return _bits_to_float(bits)


def store_float64(y, i, value):
    """Write a float64 to element `i` of the 1-D array `y`, rounded once."""
    if y.dtype.names is None:
        y[i] = value
    elif y.dtype.names[0] == "float16":
        y[i] = (np.float16(value).view(np.uint16),)
    else:
        nearest = np.float32(value)
        if nearest != value and value == value:
            bits = int(nearest.view(np.uint32)) - (abs(float(nearest)) > abs(value)) | 1
            nearest = np.uint32(bits).view(np.float32)
        store(y, i, nearest)


@overload(store_float64)
def _jit_store_float64(y, i, value):
    if isinstance(y.dtype, types.Record):
        return lambda y, i, value: store(y, i, _odd_float(value))
    return lambda y, i, value: store(y, i, value)
