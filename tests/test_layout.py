"""Plans are integers: they are tested without arrays, except where NumPy's strides are the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from numbanorm import _layout
from tests.oracle import axis_subsets


@pytest.mark.parametrize(
    ("shape", "strides", "order", "flipped", "dense"),
    [
        ((2, 3, 4), (48, 16, 4), (0, 1, 2), (), True),
        ((2, 3, 4), (4, 8, 24), (2, 1, 0), (), True),
        ((2, 3), (-12, 4), (0, 1), (0,), True),
        ((2, 3), (24, 8), (0, 1), (), False),
        ((5, 1, 3), (12, 999, 4), (1, 0, 2), (), True),
        ((4, 3), (0, 4), (1, 0), (), False),
        ((), (), (), (), True),
    ],
)
def test_storage(shape, strides, order, flipped, dense):
    assert _layout.storage(shape, strides, 4) == _layout.Storage(order, flipped, dense)


@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=5).flatmap(
        lambda shape: st.tuples(st.just(tuple(shape)), st.permutations(range(len(shape))))
    )
)
def test_storage_finds_any_permutation(case):
    shape, order = case
    x = np.zeros([shape[i] for i in order], np.int16).transpose(np.argsort(order))
    lay = _layout.storage(x.shape, x.strides, x.itemsize)
    assert lay.dense
    assert not lay.flipped
    assert x.transpose(lay.order).flags.c_contiguous


@pytest.mark.parametrize(
    ("lengths", "roles", "expected"),
    [
        ((8, 64, 56, 56), "rkrr", ((8, 64, 3136), "rkr")),
        ((1, 5, 1, 7), "rkkk", ((35,), "k")),
        ((1, 1), "rk", ((), "")),
        ((2, 3, 4), "kKr", ((2, 3, 4), "kKr")),
    ],
)
def test_merge_runs(lengths, roles, expected):
    assert _layout.merge_runs(lengths, roles) == expected


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("kr")), min_size=0, max_size=6))
def test_a_reduction_covers_x_once_and_ends_with_the_kept_shape(axes):
    lengths, roles = tuple(n for n, _ in axes), "".join(role for _, role in axes)
    plan = _layout.reduction(lengths, roles)
    kept = np.prod([n for n, role in axes if role == "k"], dtype=int)
    assert np.prod(plan.view, dtype=int) == np.prod(lengths, dtype=int)
    parts = plan.n_parts
    for outer, reduced, inner in plan.merges:
        assert outer * reduced * inner == parts
        parts = outer * inner
    assert parts == kept
    assert (plan.view[0] if plan.launcher == "moments_rows" else plan.view[0] * plan.view[2]) == plan.n_parts


@pytest.mark.parametrize(
    ("shape", "reduced", "features", "channels", "launcher", "view"),
    [
        ((32, 768), (1,), (1,), False, "norm_rows", (32, 768)),
        ((2, 3, 4), (1, 2), (1, 2), False, "norm_rows", (2, 12)),
        ((2, 3, 4), (0, 1, 2), (), False, "norm_rows", (1, 24)),
        ((8, 64, 7, 7), (2, 3), (1,), False, "norm_groups", (512, 1, 49)),
        ((8, 4, 16, 7, 7), (2, 3, 4), (1, 2), False, "norm_groups", (32, 16, 49)),
        ((8, 64, 7, 7), (0, 2, 3), (1,), True, "norm_channels", (8, 64, 49)),
        ((1, 64, 7, 7), (0, 2, 3), (1,), True, "norm_channels", (1, 64, 49)),
        ((8, 1, 7, 7), (0, 2, 3), (1,), True, "norm_channels", (1, 1, 392)),
        ((8, 7, 7, 64), (0, 1, 2), (3,), True, "norm_channels", (392, 64, 1)),
        ((8, 64, 7, 7), (1,), (1,), False, None, ()),
        ((8, 7, 7, 4, 16), (1, 2, 4), (3, 4), False, None, ()),
        ((5, 1), (1,), (), False, "norm_rows", (5, 1)),
    ],
)
def test_each_norm_finds_its_launcher(shape, reduced, features, channels, launcher, view):
    strides = np.zeros(shape, np.float32).strides
    plan = _layout.normalization(shape, strides, 4, reduced, features, channels)
    assert (plan.launcher, plan.view) == (launcher, view)


def test_batch_norm_is_always_fused():
    for ndim in range(2, 6):
        shape = tuple(range(2, 2 + ndim))
        for channel in range(ndim):
            reduced = tuple(i for i in range(ndim) if i != channel)
            plan = _layout.normalization(shape, np.zeros(shape, "f4").strides, 4, reduced, (channel,), True)
            assert plan.launcher == "norm_channels"


def test_plans_for_every_axis_subset_describe_x():
    for ndim in range(1, 6):
        shape = tuple(range(2, 2 + ndim))
        for reduced in axis_subsets(ndim):
            for features in axis_subsets(ndim):
                plan = _layout.normalization(shape, np.zeros(shape, "f4").strides, 4, reduced, features, False)
                assert np.prod(plan.runs, dtype=int) == np.prod(shape)
                assert plan.launcher is None or np.prod(plan.view, dtype=int) == np.prod(shape)


def test_more_than_two_billion_elements():
    huge = as_strided(np.zeros(1, np.float32), (1 << 20, 1 << 12), (4 << 12, 4))
    plan = _layout.reduction(huge.shape, "rk")
    assert plan.view == (1, 1 << 20, 1 << 12)
    assert _layout.normalization(huge.shape, huge.strides, 4, (1,), (1,), False).view == huge.shape
