"""What the compiler makes of every kernel of the norms that a plan can choose."""

import pytest

from numbanorm.backends.cuda._affine_kernels import ROWS_AT_ONCE, affine_columns, affine_planes, prepare
from numbanorm.backends.cuda._intrinsics import VECTOR
from numbanorm.backends.cuda._launch_norms import units_held
from numbanorm.backends.cuda._norm_columns_kernels import column_statistics
from numbanorm.backends.cuda._norm_rows_kernels import norm_rows_registers
from numbanorm.backends.cuda._norm_shared_kernels import AT_ONCE, norm_rows_shared
from numbanorm.backends.cuda._norm_split_kernels import elements_at_once, split_mean_var, split_statistics
from tests.backends.cuda import compile_checks

pytestmark = pytest.mark.compiled

#: Registers with which two blocks of 512 threads, or four of 256, fill a multiprocessor.
HALF = 64


def held(kind, vector):
    return units_held(16 // VECTOR[kind], vector)


def kernels():
    """(maker, arguments, most registers, 16-byte loads and stores on sm_90)"""
    for kind, width in VECTOR.items():
        # Parameters are float32 beside 16-bit elements: twice the bytes.
        parameters = 2 * (width // 4 or 1)
        for vector in (True, False):
            n = held(kind, vector)
            loads = n * (1 + parameters)
            most = 96 if kind == "float64" else HALF
            yield norm_rows_registers, (kind, vector, n), most, (loads, n)
            yield norm_rows_shared, (kind, vector), most, (AT_ONCE + parameters, 1)
            yield affine_planes, (kind, vector, n), HALF + 8, (loads, n)
            per_row = ROWS_AT_ONCE * parameters // 2 * 5
            yield affine_columns, (kind, vector), 96, (ROWS_AT_ONCE + per_row, ROWS_AT_ONCE)
            loads = elements_at_once(kind) // width
            yield split_statistics, (kind, vector), 80, (2 * loads, 0)
            yield split_mean_var, (kind, vector), 80, (2 * loads, 0)
        for cut in ((width, 0), (width, 8), (1, 0), (1, 32)):
            yield column_statistics, (kind, *cut), 176, None


@pytest.mark.parametrize(
    ("make", "arguments", "registers", "accesses"),
    [pytest.param(*case, id=f"{case[0].__name__}-{'-'.join(map(str, case[1]))}") for case in kernels()],
)
def test_compiles(make, arguments, registers, accesses):
    everywhere = compile_checks.check_everywhere(make(*arguments), double="float64" in arguments)
    assert max(compiled.registers for compiled in everywhere.values()) <= registers
    if accesses and arguments[1]:
        hopper = everywhere[9, 0]
        assert [hopper.count(rf"{name}\.E(?:\.\w+)*\.128") for name in ("LDG", "STG")] == [*accesses]


@pytest.mark.parametrize("kinds", [("float32", "float64", "float64"), ("float64", "float32", "float32")], ids=str)
def test_preparing_compiles(kinds):
    compiled = compile_checks.check_everywhere(prepare(*kinds), double=True)
    assert max(c.registers for c in compiled.values()) <= 40


@pytest.mark.parametrize("cc", compile_checks.ARCHITECTURES)
def test_compiles_natively(cc):
    compile_checks.check(norm_rows_registers("bfloat16", True, 4), cc)
    compile_checks.check(split_statistics("float32", True), cc)
