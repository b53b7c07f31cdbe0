"""Writing dx past the caches, as whole lines formed in registers; see :mod:`._stream`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanorm.backends.cpu._jit import exact
from numbanorm.backends.cpu._stream import LINE, _kind, _rounded, _vector


@intrinsic
def _write_gradient_line(typingctx, dy, x, i, dx, high, rstd, gamma, at, slope, constant):
    def codegen(context, builder, signature, arguments):
        n = LINE // context.get_abi_sizeof(context.get_data_type(signature.args[3].dtype))

        def address(position, index):
            data = context.make_array(signature.args[position])(context, builder, arguments[position]).data
            return builder.gep(data, [arguments[index]])

        def everywhere(position):
            value = arguments[position]
            vector = ir.VectorType(value.type, n)
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
            mask = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
            return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

        gradient, value = (_vector(builder, address(k, 2), _kind(signature.args[k].dtype), n) for k in (0, 1))
        high, rstd, slope, constant = (everywhere(position) for position in (4, 5, 8, 9))
        factor = rstd
        if isinstance(signature.args[6], types.Array):
            factor = builder.fmul(_vector(builder, address(6, 7), signature.args[6].dtype.name, n), rstd)
        else:
            factor = builder.fmul(everywhere(6), rstd)
        xhat = builder.fmul(builder.fsub(value, high), rstd)
        result = builder.fadd(builder.fadd(builder.fmul(gradient, factor), builder.fmul(xhat, slope)), constant)
        result = _rounded(builder, result, _kind(signature.args[3].dtype), n)
        store = builder.store(result, builder.bitcast(address(3, 2), result.type.as_pointer()), align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(dy, x, types.intp, dx, high, rstd, gamma, types.intp, slope, constant), codegen


@exact
def write_gradient_line(dy, x, i, dx, high, rstd, gamma, at, slope, constant):
    """The cache line from dx[i] on; gamma is a number, or an array whose elements from `at` on are taken."""
    _write_gradient_line(dy, x, i, dx, high, rstd, gamma, at, slope, constant)
