"""What the compiler makes of every kernel of the gradients that a plan can choose."""

import pytest

from numbanorm.backends.cuda._columns_backward_kernels import ROWS_AT_ONCE, columns_backward
from numbanorm.backends.cuda._intrinsics import VECTOR
from numbanorm.backends.cuda._launch_backward import FEW_UNITS, many_units
from numbanorm.backends.cuda._launch_norms import units_held
from numbanorm.backends.cuda._merge_backward_kernels import convert_statistics, merge_parts, merge_segments
from numbanorm.backends.cuda._rows_backward_kernels import rows_backward
from numbanorm.backends.cuda._sets_backward_kernels import sets_backward
from numbanorm.backends.cuda._split_backward_kernels import planes_backward, split_backward, units_at_once
from tests.backends.cuda import compile_checks

pytestmark = pytest.mark.compiled


def kernels():
    """(maker, arguments, most registers, 16-byte loads and stores on sm_90)"""
    for kind, width in VECTOR.items():
        # Parameters are float32 beside 16-bit elements: twice the bytes.
        parameters = width // 4 or 1
        for vector in (True, False):
            many = many_units(16 // width, vector)
            for n in (FEW_UNITS, many) if vector else (many,):
                # Two visits of a row look at gamma.
                accesses = 2 * n + 2 * n * parameters, n
                most = 64 if n == FEW_UNITS and kind != "float64" else 128
                yield rows_backward, (kind, vector, n), most, accesses
            yield sets_backward, (kind, vector, many), 232, (2 * many, many)
            n = units_at_once(vector)
            yield split_backward, (kind, vector), 112, (2 * n + n * parameters, n)
            n = units_held(16 // width, vector)
            yield planes_backward, (kind, vector, n), 96, (2 * n, n)
            for by_row in (True, False):
                n = ROWS_AT_ONCE
                loads = 2 * n + parameters * (1 if by_row else 3)
                yield columns_backward, (kind, vector, by_row), 144, (loads, n)
    for kind in ("float32", "float64"):
        yield merge_parts, (kind,), 64, None
        yield merge_segments, (kind,), 80, None


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
def test_conversion_compiles(kinds):
    compiled = compile_checks.check_everywhere(convert_statistics(*kinds), double=True)
    assert max(c.registers for c in compiled.values()) <= 40
