"""Plans of statistics: integers from shapes; every element once, few bytes more than x has."""

import pytest

from numbanorm.backends.cuda import _launch_moments as plans
from numbanorm.backends.cuda._arithmetic import N_SUMS
from numbanorm.backends.cuda._jit import N_TICKETS

KINDS = ("float32", "bfloat16", "float64")
LENGTHS = (1, 3, 8, 31, 32, 100, 1000, 1024, 4096, 4100, 16384, 65536, 262_144, 10**6)


def parts_bytes(kind, n):
    """Sums written once and read once."""
    return 2 * n * N_SUMS * (8 if kind == "float64" else 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 2, 7, 100, 1000, 5000, 2**20])
@pytest.mark.parametrize("n_cols", LENGTHS)
@pytest.mark.parametrize("aligned", [True, False])
def test_rows(kind, n_rows, n_cols, aligned):
    plan = plans.rows(kind, n_rows, n_cols, aligned)
    assert n_cols % plan.vector == 0
    assert aligned or plan.vector == 1
    assert plan.piece % plan.vector == 0 or plan.n_splits == 1
    assert (plan.n_splits - 1) * plan.piece < n_cols <= plan.n_splits * plan.piece
    assert plan.n_blocks < 2**31
    assert plan.n_splits == 1 or n_rows <= N_TICKETS
    if plan.lanes < plans.THREADS:
        assert plan.n_blocks * (plans.THREADS // plan.lanes) >= n_rows
    else:
        assert plan.n_blocks == n_rows * plan.n_splits
    size = n_rows * n_cols * plans.item_size(kind)
    if size >= 1 << 20 and plan.n_splits > 1:
        assert parts_bytes(kind, plan.n_blocks) <= 0.02 * size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 10**7), (1, 10**9), (16, 10**7), (300, 262_144), (2000, 65536)], ids=str)
def test_long_rows_are_shared_out(kind, shape):
    assert plans.rows(kind, *shape, True).n_blocks >= min(plans.BUSY, shape[0] * shape[1] // 20_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_outer", [1, 2, 64, 5000])
@pytest.mark.parametrize("n_reduce", [1, 2, 64, 65, 1000, 8192, 10**6])
@pytest.mark.parametrize("n_inner", [1, 2, 3, 7, 8, 31, 33, 64, 65, 100, 128, 1000, 1001, 8192])
@pytest.mark.parametrize("aligned", [True, False])
def test_columns(kind, n_outer, n_reduce, n_inner, aligned):
    plan = plans.cols(kind, n_outer, n_reduce, n_inner, aligned)
    assert aligned or plan.vector == 1
    assert n_reduce * n_inner % plan.vector == 0
    assert (plan.n_splits - 1) * plan.piece < n_reduce <= plan.n_splits * plan.piece
    threads = plans.column_threads(plan.vector)
    if not plan.blocks_share:
        assert n_inner % plan.vector == 0
        assert plan.n_blocks * threads * plan.vector >= n_outer * n_inner
        return
    check_tiles(plan, n_outer, n_inner)
    if plan.width:
        assert n_inner % plan.vector == 0
        assert plan.n_tiles * plan.width * plan.vector >= n_inner
    else:
        assert plan.across * n_inner <= threads * plan.vector
        assert plan.across * n_inner % plan.vector == 0
        assert plan.n_splits == 1 or plan.piece % plan.across == 0
    size = n_outer * n_reduce * n_inner * plans.item_size(kind)
    if size >= 1 << 20 and plan.n_splits > 1:
        # Parts are read back at once and stay in the L2 (50 MB): memory sees x alone.
        moved = parts_bytes(kind, n_outer * plan.n_parts * n_inner)
        assert moved <= 0.13 * size
        assert moved <= max(0.02 * size, 8 << 20)


def check_tiles(plan, n_outer, n_inner):
    """Every level of merging has its tickets and its parts, and no thread merges many of these in turn."""
    levels = [plan.n_splits]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // plan.group))
    assert len(levels) <= 3
    assert plan.n_parts == max(1, sum(level for level in levels if level > 1))
    assert n_outer * plan.n_tiles * sum(levels[1:]) <= N_TICKETS
    threads = plans.column_threads(plan.vector)
    columns = plan.width * plan.vector or n_inner
    assert plan.group // max(1, threads // columns) <= plans.IN_TURN


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("n_channels", [1, 3, 24, 64, 65, 72, 1000, 4096])
@pytest.mark.parametrize("n_rows", [1, 7, 200, 100_000, 1 << 24])
def test_channels_last(itemsize, n_channels, n_rows):
    plan = plans.tiles(itemsize, 1, n_rows, n_channels, True)
    assert (plan.n_splits - 1) * plan.piece < n_rows <= plan.n_splits * plan.piece
    if plan.width:
        assert n_channels % plan.vector == 0
        assert (plan.n_tiles - 1) * plan.width * plan.vector < n_channels <= plan.n_tiles * plan.width * plan.vector
    else:
        assert plan.across * n_channels % plan.vector == 0
    check_tiles(plan, 1, n_channels)


@pytest.mark.parametrize(("n_inner", "vector", "expected"), [(3, 4, 340), (1, 8, 1024), (33, 4, 28), (1001, 4, 0)])
def test_narrow_rows_make_up_whole_vectors(n_inner, vector, expected):
    assert plans.across_block(n_inner, vector, 1024) == expected


def test_combine_width():
    assert plans.combine_width(1, 10**6) == 128
    assert plans.combine_width(1000, 1) == 1
    assert plans.combine_width(1000, 100) == 8
