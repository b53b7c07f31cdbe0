"""Loads, stores and bits that Numba cannot say: 16 bytes at once, 16-bit floats, ordered memory.

A *kind* is the name of a dtype; its values are computed with as :func:`real`. Every
function here builds an intrinsic for a kind and, where it touches memory, a caching
policy; pointers are of :func:`pointer` and indices count elements.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic
from numba.cuda.typing import signature

#: Elements in 16 bytes.
VECTOR = {"float16": 8, "bfloat16": 8, "float32": 4, "float64": 2}

#: Caching of what is visited once, of parameters, and of what other blocks wrote just now.
STREAM, KEEP, ORDERED = ".L1::no_allocate", "", ".cg"

F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def real(kind: str) -> Any:
    """The Numba type in which elements of this kind are computed with."""
    return types.float64 if kind == "float64" else types.float32


def pointer(kind: str) -> Any:
    """The type of a kernel's parameter that points to elements of this kind."""
    item = {"float16": types.uint16, "bfloat16": types.uint16, "float32": types.float32, "float64": types.float64}
    return types.CPointer(item.get(kind) or getattr(types, kind))


def _named(name: str, define: Callable[..., Any]) -> Any:
    define.__name__ = name
    return intrinsic(define)


def _address(builder: Any, base: Any, index: Any) -> Any:
    return builder.ptrtoint(builder.gep(base, [index]), I64)


def _constant(value: int) -> Any:
    return ir.Constant(I32, value)


def _expand(kind: str, builder: Any, word: Any) -> list[Any]:
    """The float32 values in one 32-bit word."""
    if kind == "float32":
        return [builder.bitcast(word, F32)]
    if kind == "float16":
        pair = builder.bitcast(word, ir.VectorType(F16, 2))
        return [builder.fpext(builder.extract_element(pair, _constant(k)), F32) for k in (0, 1)]
    high = builder.and_(word, _constant(0xFFFF0000))
    return [builder.bitcast(bits, F32) for bits in (builder.shl(word, _constant(16)), high)]


def _shrink(kind: str, builder: Any, values: list[Any]) -> Any:
    """One 32-bit word of float32 values, rounded to nearest even."""
    if kind == "float32":
        return builder.bitcast(values[0], I32)
    convert = {"float16": "cvt.rn.f16x2.f32", "bfloat16": "cvt.rn.bf16x2.f32"}[kind]
    asm = ir.InlineAsm(ir.FunctionType(I32, [F32, F32]), f"{convert} $0, $2, $1;", "=r,f,f")
    return builder.call(asm, values)


def _load_asm(policy: str, suffix: str, register: str, item: Any, count: int) -> Any:
    """``(address, wanted) -> count items``, zeros where not wanted, without a branch."""
    outputs = [f"${k}" for k in range(count)]
    targets = f"{{{','.join(outputs)}}}" if count > 1 else "$0"
    zeros = " ".join(f"mov.b{item_bits(item)} {output}, 0;" for output in outputs)
    text = (
        f"{{ .reg .pred wanted; setp.ne.b32 wanted, ${count + 1}, 0; {zeros} "
        f"@wanted ld.global{policy}{suffix} {targets}, [${count}]; }}"
    )
    result = ir.LiteralStructType([item] * count) if count > 1 else item
    ordered = policy == ORDERED
    constraints = ",".join([f"=&{register}"] * count + ["l", "r"] + ["~{memory}"] * ordered)
    return ir.InlineAsm(ir.FunctionType(result, [I64, I32]), text, constraints, side_effect=ordered)


def item_bits(item: Any) -> int:
    """Bits of an integer register."""
    return int(item.width)


def _store_asm(policy: str, suffix: str, register: str, item: Any, count: int) -> Any:
    """``(address, wanted, count items)``."""
    inputs = ",".join(f"${k + 2}" for k in range(count))
    text = (
        f"{{ .reg .pred wanted; setp.ne.b32 wanted, $1, 0; "
        f"@wanted st.global{policy}{suffix} [$0], {f'{{{inputs}}}' if count > 1 else inputs}; }}"
    )
    constraints = ",".join(["l", "r"] + [register] * count + ["~{memory}"])
    return ir.InlineAsm(
        ir.FunctionType(ir.VoidType(), [I64, I32] + [item] * count), text, constraints, side_effect=True
    )


def _words_of(kind: str) -> tuple[str, str, Any, int]:
    """How 16 bytes of a kind travel: PTX suffix, register, type, count."""
    return (".v2.b64", "l", I64, 2) if kind == "float64" else (".v4.b32", "r", I32, 4)


@cache
def vector_load(kind: str, policy: str = STREAM) -> Any:
    """``load(pointer, index, wanted)``: 16 bytes as a tuple of reals, zeros where not wanted."""
    suffix, register, item, count = _words_of(kind)
    number = real(kind)

    def load(typingctx, base, index, wanted):
        def codegen(context, builder, signature, args):
            asm = _load_asm(policy, suffix, register, item, count)
            words = builder.call(asm, [_address(builder, args[0], args[1]), builder.zext(args[2], I32)])
            values = [builder.extract_value(words, k) for k in range(count)]
            if kind == "float64":
                values = [builder.bitcast(value, F64) for value in values]
            else:
                values = [value for word in values for value in _expand(kind, builder, word)]
            return cgutils.pack_array(builder, values)

        return signature(types.UniTuple(number, VECTOR[kind]), base, types.int64, types.boolean), codegen

    return _named(f"vector_load_{kind}", load)


@cache
def vector_store(kind: str, policy: str = "") -> Any:
    """``store(pointer, index, values, wanted)``: a tuple of reals as 16 bytes, rounded."""
    suffix, register, item, count = _words_of(kind)
    number = real(kind)

    def store(typingctx, base, index, values, wanted):
        def codegen(context, builder, signature, args):
            numbers = [builder.extract_value(args[2], k) for k in range(VECTOR[kind])]
            if kind == "float64":
                words = [builder.bitcast(value, I64) for value in numbers]
            else:
                per_word = VECTOR[kind] // 4
                pairs = [numbers[k : k + per_word] for k in range(0, len(numbers), per_word)]
                words = [_shrink(kind, builder, pair) for pair in pairs]
            asm = _store_asm(policy, suffix, register, item, count)
            builder.call(asm, [_address(builder, args[0], args[1]), builder.zext(args[3], I32), *words])
            return context.get_dummy_value()

        tuple_type = types.UniTuple(number, VECTOR[kind])
        return signature(types.void, base, types.int64, tuple_type, types.boolean), codegen

    return _named(f"vector_store_{kind}", store)


@cache
def words_load(kind: str, policy: str = STREAM) -> Any:
    """``load(pointer, index, wanted)``: 16 bytes as 4 words, still packed (to keep rows in few registers)."""

    def load(typingctx, base, index, wanted):
        def codegen(context, builder, signature, args):
            asm = _load_asm(policy, ".v4.b32", "r", I32, 4)
            words = builder.call(asm, [_address(builder, args[0], args[1]), builder.zext(args[2], I32)])
            return cgutils.pack_array(builder, [builder.extract_value(words, k) for k in range(4)])

        return signature(types.UniTuple(types.uint32, 4), base, types.int64, types.boolean), codegen

    return _named(f"words_load_{kind}", load)


@cache
def unpack(kind: str) -> Any:
    """``unpack(word)``: the two float32 values in a word of a 16-bit kind."""

    def expand(typingctx, word):
        def codegen(context, builder, signature, args):
            return cgutils.pack_array(builder, _expand(kind, builder, args[0]))

        return signature(types.UniTuple(types.float32, 2), types.uint32), codegen

    return _named(f"unpack_{kind}", expand)


@cache
def scalar_load(kind: str, policy: str = STREAM) -> Any:
    """``load(pointer, index, wanted)``: one element as a real, zero where not wanted."""
    item = {"float64": I64, "float32": I32}.get(kind, I16)
    register = {"float64": "l", "float32": "r"}.get(kind, "h")
    number = real(kind)

    def load(typingctx, base, index, wanted):
        def codegen(context, builder, signature, args):
            asm = _load_asm(policy, f".b{item.width}", register, item, 1)
            bits = builder.call(asm, [_address(builder, args[0], args[1]), builder.zext(args[2], I32)])
            if kind == "float16":
                return builder.fpext(builder.bitcast(bits, F16), F32)
            if kind == "bfloat16":
                return builder.bitcast(builder.shl(builder.zext(bits, I32), _constant(16)), F32)
            return builder.bitcast(bits, F64 if kind == "float64" else F32)

        return signature(number, base, types.int64, types.boolean), codegen

    return _named(f"scalar_load_{kind}", load)


@cache
def scalar_store(kind: str, policy: str = "") -> Any:
    """``store(pointer, index, value, wanted)``: one real as an element, rounded."""
    item = {"float64": I64, "float32": I32}.get(kind, I16)
    register = {"float64": "l", "float32": "r"}.get(kind, "h")
    number = real(kind)

    def store(typingctx, base, index, value, wanted):
        def codegen(context, builder, signature, args):
            if kind in ("float16", "bfloat16"):
                bits = builder.trunc(_shrink(kind, builder, [args[2], args[2]]), I16)
            else:
                bits = builder.bitcast(args[2], item)
            asm = _store_asm(policy, f".b{item.width}", register, item, 1)
            builder.call(asm, [_address(builder, args[0], args[1]), builder.zext(args[3], I32), bits])
            return context.get_dummy_value()

        return signature(types.void, base, types.int64, number, types.boolean), codegen

    return _named(f"scalar_store_{kind}", store)


def _take_ticket(typingctx, base, index, last):
    """``take_ticket(tickets, index, last)``: 0, 1, ... `last`, then 0 again.

    Releases what this block wrote before its barrier and acquires what earlier takers did.
    """

    def codegen(context, builder, signature, args):
        text = "atom.acq_rel.gpu.global.inc.u32 $0, [$1], $2;"
        kind = ir.FunctionType(I32, [I64, I32])
        asm = ir.InlineAsm(kind, text, "=r,l,r,~{memory}", side_effect=True)
        return builder.call(asm, [_address(builder, args[0], args[1]), args[2]])

    return signature(types.uint32, base, types.int64, types.uint32), codegen


def _product(typingctx, a, b):
    """``product(a, b)``: rounded for itself, never fused with an addition that follows."""

    def codegen(context, builder, signature, args):
        suffix, register = ("f64", "d") if signature.return_type == types.float64 else ("f32", "f")
        item = args[0].type
        asm = ir.InlineAsm(
            ir.FunctionType(item, [item, item]), f"mul.rn.{suffix} $0, $1, $2;", f"={register},{register},{register}"
        )
        return builder.call(asm, args)

    return signature(a, a, a), codegen


def _power_of_two(typingctx, exponent):
    """``power_of_two(exponent)``: float32 for -126 to 127."""

    def codegen(context, builder, signature, args):
        biased = builder.add(args[0], _constant(127))
        return builder.bitcast(builder.shl(biased, _constant(23)), F32)

    return signature(types.float32, types.int32), codegen


def _exponent_of(typingctx, value):
    """``exponent_of(value)``: e with 2**e <= |value| < 2**(e + 1); -127 for zero, 128 for inf and NaN."""

    def codegen(context, builder, signature, args):
        bits = builder.lshr(builder.bitcast(args[0], I32), _constant(23))
        return builder.sub(builder.and_(bits, _constant(255)), _constant(127))

    return signature(types.int32, types.float32), codegen


def _forgotten(typingctx, value):
    """``forgotten(value)``: the same value, which the optimiser cannot know to be the same.

    What was computed from it before is computed again instead of being kept in registers.
    """

    def codegen(context, builder, signature, args):
        item = args[0].type
        register = {"float": "f", "double": "d", "i64": "l"}.get(str(item), "r")
        kind = ir.FunctionType(item, [item])
        return builder.call(ir.InlineAsm(kind, "", f"={register},0", side_effect=True), args)

    return signature(value, value), codegen


forgotten = _named("forgotten", _forgotten)
take_ticket = _named("take_ticket", _take_ticket)
product = _named("product", _product)
power_of_two = _named("power_of_two", _power_of_two)
exponent_of = _named("exponent_of", _exponent_of)
