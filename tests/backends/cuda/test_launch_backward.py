"""Plans of gradients: every element has its place, sums are short, and no more bytes move than must."""

import pytest

from numbanorm.backends.cuda import _launch_backward as plans
from numbanorm.backends.cuda._columns_backward_kernels import ROWS_AT_ONCE, THREADS
from numbanorm.backends.cuda._launch_norms import split_plan

ITEMS = (2, 4, 8)
LENGTHS = (1, 7, 8, 31, 32, 33, 100, 128, 1000, 1024, 1025, 2056, 4096, 8192, 12288, 16384, 32768, 65536, 262144)


def moved(itemsize, plan, n_rows):
    """Sizes of x that layer norm's gradient moves; the sums that blocks leave are written, and read from the L2."""
    if plan.tier == "split":
        return 5
    left = plan.n_parts * 2 * max(4, itemsize) if plan.shared else 0
    return 3 + left / (n_rows * itemsize)


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("n_rows", [1, 3, 100, 1024, 8192, 1 << 20])
@pytest.mark.parametrize("sums", [True, False])
def test_a_row_has_room_in_its_team(itemsize, vector, n_rows, sums):
    width = 16 // itemsize if vector else 1
    for n_cols in LENGTHS:
        plan = plans.rows_plan(itemsize, vector, n_rows, n_cols, sums)
        if plan.tier == "split":
            continue
        teams = plan.threads // plan.lanes
        assert plan.lanes * plan.n_units * width >= n_cols
        assert plan.lanes in (1, 2, 4, 8, 16, 32, plan.threads)
        assert plan.grid * teams * plan.n_steps >= n_rows
        assert (plan.grid - 1) * teams * plan.n_steps < n_rows
        assert plan.n_steps <= plans.MOST_ROWS
        assert plan.threads % 32 == 0
        assert plan.threads <= (1024 if plan.n_units == plans.FEW_UNITS and itemsize < 8 else 512)
        assert plan.shared == sums * plan.threads * plan.n_units * width * 2 * max(4, itemsize)
        assert plan.shared <= 225 << 10


@pytest.mark.parametrize(("itemsize", "longest"), [(2, 16384), (4, 16384), (8, 8192)])
def test_rows_up_to_64_kilobytes_fit_on_chip(itemsize, longest):
    for n_cols in LENGTHS:
        if n_cols * itemsize % 16 == 0:
            fits = plans.rows_plan(itemsize, True, 8192, n_cols, False).tier == "registers"
            assert fits == (n_cols <= longest)


@pytest.mark.parametrize("itemsize", ITEMS)
def test_bytes_of_rows_that_fit_on_chip(itemsize):
    """Bytes moved over the least possible ones: dy, x and dx once, and what blocks leave of dgamma and dbeta."""
    for n_rows in (1 << 17, 1 << 20):
        for n_cols in LENGTHS:
            plan = plans.rows_plan(itemsize, True, n_rows, n_cols, True)
            if n_cols * itemsize % 16 == 0 and plan.tier == "registers":
                assert moved(itemsize, plan, n_rows) / 3 <= 1.02, (n_rows, n_cols)
    for n_cols in (4096, 8192):
        # With fewer rows the same two or three blocks of each multiprocessor leave sums.
        plan = plans.rows_plan(itemsize, True, 16384, n_cols, True)
        assert plan.n_parts <= 3 * 132
        assert moved(itemsize, plan, 16384) / 3 <= (1.035 if itemsize == 2 else 1.02)
        assert moved(itemsize, plans.rows_plan(itemsize, True, 1024, n_cols, False), 1024) == 3


@pytest.mark.parametrize("n_cols", [1024, 4096, 8192, 12288, 16384])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_bytes_in_flight(itemsize, n_cols):
    """At least 24 KB a multiprocessor, from the blocks that fit it."""
    plan = plans.rows_plan(itemsize, True, 8192, n_cols, True)
    registers = 64 if plan.n_units == plans.FEW_UNITS else 128
    blocks = min(65536 // (registers * plan.threads), (227 << 10) // (plan.shared + (2 << 10)), plan.grid)
    assert blocks >= 1
    assert (
        2 * min(n_cols * itemsize * (plan.threads // plan.lanes), plan.threads * 16 * plan.n_units) * blocks >= 24 << 10
    )


def test_few_long_rows_are_split():
    assert plans.rows_plan(4, True, 8, 32768, True).tier == "split"
    assert plans.rows_plan(4, True, 1, 1000, True).tier == "registers"
    assert plans.sets_plan(4, True, 8, 32768, 1024, True).tier == "split"


@pytest.mark.parametrize("kilobytes", [64, 99, 163, 227])
@pytest.mark.parametrize("itemsize", ITEMS)
def test_no_plan_asks_for_more_shared_memory_than_the_device_has(itemsize, kilobytes):
    for n_cols in range(8, 1 << 15, 520):
        for vector in (True, False):
            limit = kilobytes << 10
            assert plans.rows_plan(itemsize, vector, 4096, n_cols, True, limit).shared <= limit - 1024
            assert plans.sets_plan(itemsize, vector, 4096, n_cols, 8, True, limit).shared <= limit - 1024


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("segment", [1, 4, 8, 49, 64, 3136])
@pytest.mark.parametrize("n_segments", [1, 2, 16])
def test_sets_and_their_segments(itemsize, vector, segment, n_segments):
    width, n_cols = 16 // itemsize if vector else 1, segment * n_segments
    plan = plans.sets_plan(itemsize, vector, 1024, n_cols, segment, True)
    if plan.tier == "split":
        return
    assert plan.lanes * plan.n_units * width >= n_cols
    assert plan.grid * (plan.threads // plan.lanes) >= 1024
    assert plan.length == (segment if segment % width else segment // width)
    assert plan.n_slots >= plan.length * n_segments
    assert plan.together <= min(32, plan.lanes, plan.length)
    assert plan.lanes % plan.together == 0


@pytest.mark.parametrize("units", [1, 3, 64, 65, 200, 3000])
@pytest.mark.parametrize("n_rows", [1, 7, 1000, 1 << 20, 1 << 26])
def test_columns_are_covered_by_short_sums(units, n_rows):
    plan = plans.column_sums_plan(units, n_rows, THREADS, ROWS_AT_ONCE, True)
    assert (plan.tiles - 1) * plan.lanes < units <= plan.tiles * plan.lanes
    assert (plan.n_chunks - 1) * plan.rows_per_chunk < n_rows <= plan.n_chunks * plan.rows_per_chunk
    assert -(-plan.rows_per_chunk // (THREADS // plan.lanes)) <= plans.MOST_ROWS


@pytest.mark.parametrize("n_channels", [64, 512])
@pytest.mark.parametrize("n", [8, 64])
def test_bytes_of_batch_norm(n, n_channels):
    """5 sizes of x, and the sums of pieces, which are next to nothing, in both layouts."""
    size = n * n_channels * 3136
    pieces = split_plan(4, n_channels, n * 3136)
    assert 5 + 2 * 3 * pieces.n_splits * n_channels / size <= 5 * 1.02
    columns = plans.column_sums_plan(n_channels // 4, n * 3136, THREADS, ROWS_AT_ONCE, True)
    assert 5 + 2 * 3 * columns.n_chunks * n_channels / size <= 5 * 1.02
