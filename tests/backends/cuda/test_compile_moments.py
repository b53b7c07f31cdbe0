"""What the compiler makes of the kernels of statistics that plans choose.

One of each sort by default; with ``NUMBANORM_EVERY_KERNEL=1`` all of them, which takes a
quarter of an hour.
"""

import os

import pytest

from numbanorm.backends.cuda._column_accumulate import rows_at_once
from numbanorm.backends.cuda._intrinsics import VECTOR
from numbanorm.backends.cuda._moments_cols import column_sums, thread_column_sums
from numbanorm.backends.cuda._moments_combine import combine, finish, update
from numbanorm.backends.cuda._moments_rows import row_sums
from numbanorm.backends.cuda._moments_weighted import weighted_sums
from tests.backends.cuda.compile_checks import check_everywhere

KINDS = ("float32", "bfloat16", "float16", "float64")
EVERY = os.environ.get("NUMBANORM_EVERY_KERNEL") == "1"


def every(kind):
    """All kernels that plans can choose for a kind."""
    for vector in (VECTOR[kind], 1):
        for lanes in (1, 2, 4, 8, 16, 32):
            for final in (True, False):
                yield row_sums(kind, vector, lanes, False, final, False)
                if lanes <= 2:
                    yield row_sums(kind, vector, lanes, False, final, True)
        for split, final in ((True, True), (False, True), (True, False), (False, False)):
            yield row_sums(kind, vector, 256, split, final, False)
        for final in (True, False):
            yield column_sums(kind, vector, 8 if vector > 1 else 32, final)
            yield column_sums(kind, vector, 0, final)
            yield thread_column_sums(kind, vector, final)
    yield from (weighted_sums(kind, width) for width in (1, 32))


def some(kind):
    """Those that matter most, and at least one of each source."""
    full = VECTOR[kind]
    yield from (row_sums(kind, vector, 256, True, True, False) for vector in (full, 1))
    yield row_sums(kind, full, 32, False, True, False)
    yield row_sums(kind, full, 2, False, True, True)
    yield from (column_sums(kind, full, width, True) for width in (8, 0))
    yield thread_column_sums(kind, full, True)
    if kind == "float32":
        yield column_sums(kind, 1, 0, True)
        yield weighted_sums(kind, 1)


KERNELS = [kernel for kind in KINDS for kernel in (every if EVERY else some)(kind)]
OTHERS = [combine("float32", 128), combine("float64", 1), combine("moments", 8), update("float32", "float32")]
OTHERS += [finish(kind, kind) for kind in ("float32", "bfloat16", "float64")]


def is_double(kernel):
    return "float64" in kernel.name


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_compiles(kernel):
    compiled = check_everywhere(kernel, is_double(kernel))[9, 0]
    kind, vector = (part.strip(" ()") for part in kernel.name.partition("(")[2].split(",")[:2])
    rows = rows_at_once(kind, int(vector))
    if "weighted" not in kernel.name and vector != "1":
        loads = rows if "column" in kernel.name else 4 if kind in ("float32", "float64") else 2
        # Again for a step that is not whole, but for its first load.
        assert loads <= compiled.count(r"LDG\.E(?:\.\w+)*\.128") <= 2 * loads
    # x on its way in every multiprocessor: 24 KB or more, and of columns 32.
    resident = min(65536 // (compiled.registers * kernel.threads), 2048 // kernel.threads) * kernel.threads
    if "column" in kernel.name and vector != "1":
        assert resident * rows * 16 >= 32 << 10
    else:
        assert resident >= 512


@pytest.mark.parametrize("kernel", OTHERS, ids=str)
def test_small_kernels(kernel):
    check_everywhere(kernel, double=True)
