"""Plans of norms: every element has its place, and no more bytes move than must."""

import pytest

from numbanorm.backends.cuda import _launch_norms as plans

ITEMS = (2, 4, 8)
LENGTHS = (1, 7, 8, 31, 32, 33, 100, 128, 1000, 1024, 1025, 2056, 4096, 8192, 12288, 16384, 32768, 57344, 65536, 262144)


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_rows", [1, 3, 100, 1024, 1 << 20])
def test_a_row_has_room_in_its_team(itemsize, vector, n_rows):
    for n_cols in LENGTHS:
        plan = plans.rows_plan(itemsize, vector, n_rows, n_cols)
        width = 16 // itemsize if vector else 1
        if plan.tier == "registers":
            assert plan.lanes * plans.units_held(itemsize, vector) * width >= n_cols
            assert plan.lanes in (1, 2, 4, 8, 16, 32, plan.threads)
            assert plan.grid * (plan.threads // plan.lanes) >= n_rows
            assert plan.threads <= 512
        elif plan.tier == "shared":
            assert plan.shared >= -(-n_cols // width) * (16 if vector else max(4, itemsize))
            assert plan.shared <= 227 << 10
            assert plan.grid == n_rows
        assert plan.threads % 32 == 0
        assert plan.threads <= 1024


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("n_rows", [128, 1024, 8192, 1 << 20])
def test_bytes_of_rows_that_fit_on_chip(itemsize, n_rows):
    """Bytes moved over the least possible ones: x once, y once."""
    for n_cols in LENGTHS:
        if n_cols * itemsize <= 224 << 10 and n_cols * itemsize % 16 == 0:
            plan = plans.rows_plan(itemsize, True, n_rows, n_cols)
            assert (plan.reads + 1) / 2 <= 1.02, n_cols


def test_long_rows_are_split_and_few_rows_are_shared_out():
    assert plans.rows_plan(4, True, 1024, 262144).reads == 2
    assert plans.rows_plan(4, True, 8, 32768).tier == "split"
    assert plans.rows_plan(4, True, 1024, 12288).tier == "shared"
    assert plans.rows_plan(4, True, 1, 1000).tier == "registers"


@pytest.mark.parametrize("n_cols", [4096, 8192, 12288, 16384])
def test_bytes_in_flight(n_cols):
    """At least 24 KB a multiprocessor, when blocks of 64 registers a thread fill it."""
    plan = plans.rows_plan(4, True, 8192, n_cols)
    by_registers = 65536 // (64 * plan.threads)
    blocks = min(by_registers, (227 << 10) // plan.shared) if plan.shared else by_registers
    assert blocks >= 2
    assert min(n_cols * 4, plan.threads * 64) * blocks >= 24 << 10


@pytest.mark.parametrize("segment", [1, 2, 3, 7, 49, 64, 3136, 65535, 65536, 1_000_003, (1 << 30) - 1])
def test_division_is_exact(segment):
    magic, shift = plans.division(segment, 1 << 31)
    assert 0 < magic < 1 << 32
    last = ((1 << 31) - 1) // segment
    for quotient in {*range(min(last, 1000) + 1), *range(max(0, last - 1000), last + 1)}:
        for j in (quotient * segment, min((quotient + 1) * segment, 1 << 31) - 1):
            assert j * magic >> shift == quotient
    assert (((1 << 31) - 1) * magic).bit_length() <= 64


def test_one_segment_needs_no_division():
    assert plans.division(100, 100) == (0, 0)


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("n_rows", [1, 64, 512, 100_000])
@pytest.mark.parametrize("n_cols", [1, 1000, 100_352, 10_000_000, 3 << 30])
def test_pieces_cover_a_row(itemsize, n_rows, n_cols):
    plan = plans.split_plan(itemsize, n_rows, n_cols)
    assert (plan.n_splits - 1) * plan.piece < n_cols <= plan.n_splits * plan.piece
    assert plan.piece * itemsize % 16 == 0
    assert plan.piece < 1 << 31 or n_rows * n_cols > 1 << 40
    assert plan.n_splits == 1 or n_rows <= 16384


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_rows", [1, 1000])
def test_chunks_cover_a_row(itemsize, vector, n_rows):
    width = 16 // itemsize if vector else 1
    for n_cols in LENGTHS:
        plan = plans.pieces_plan(itemsize, vector, n_rows, n_cols)
        chunk = plan.lanes * plans.units_held(itemsize, vector) * width
        assert (plan.n_chunks - 1) * chunk < n_cols <= plan.n_chunks * chunk
        assert plan.grid * (plan.threads // plan.lanes) >= n_rows * plan.n_chunks
        assert plan.threads <= 512


@pytest.mark.parametrize("units", [1, 3, 5, 64, 65, 200, 1024, 3000])
@pytest.mark.parametrize("n_rows", [1, 7, 1000, 1 << 20])
def test_columns_are_covered(units, n_rows):
    plan = plans.columns_plan(units, n_rows, 256, 2, 8 * 132)
    assert (plan.tiles - 1) * plan.lanes < units <= plan.tiles * plan.lanes
    assert (plan.n_chunks - 1) * plan.rows_per_chunk < n_rows <= plan.n_chunks * plan.rows_per_chunk
    assert plan.lanes <= 64
    # Threads beside the last whole line idle.
    assert 256 // plan.lanes * plan.lanes >= 190


@pytest.mark.parametrize("kilobytes", [64, 99, 163, 227])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_no_plan_asks_for_more_shared_memory_than_the_device_has(kilobytes, itemsize):
    tiers = set()
    for n_cols in range(1024, 1 << 18, 1000):
        for vector in (True, False):
            plan = plans.rows_plan(itemsize, vector, 4096, n_cols, kilobytes << 10)
            assert plan.shared <= (kilobytes - 1) << 10
            tiers.add(plan.tier)
    assert tiers == {"registers", "shared", "split"}
