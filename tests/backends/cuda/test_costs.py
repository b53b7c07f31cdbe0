"""Bytes that every launcher moves over the least possible ones, for each class of shapes, from its plan.

``python -m tests.backends.cuda.test_costs`` prints the table, with what falls short marked.
"""

import numpy as np
import pytest

from numbanorm.backends.cuda import _launch_norms, affine, moments, normalize
from tests.backends.cuda import costs, host_arrays, twins
from tests.backends.cuda.test_normalize import clear_plans

#: Nothing but what must move; columns, whose parts the L2 hides; x from memory twice, since it is larger than that.
ONCE, PARTS, TWICE = 1.02, 1.07, 1.52
ITEMS = (2, 4, 8)

#: (launcher, class, its arguments, the most for every itemsize). A bound above ONCE is a shortfall.
CLASSES = [
    ("norm_rows", "short", (1 << 20, 128), ONCE),
    ("norm_rows", "registers", (8192, 4096), ONCE),
    ("norm_rows", "unaligned", (8192, 4097), ONCE),
    ("norm_rows", "shared", (1024, 12288), ONCE),
    ("norm_rows", "longest on chip", (1024, (224 << 10) // 8), ONCE),
    ("norm_rows", "few and long, in L2", (8, 524288), ONCE),
    ("norm_rows", "beyond the chip", (1024, 262144), TWICE),
    ("norm_rows", "few and long", (64, 1 << 21), TWICE),
    ("norm_groups", "instances", (64 * 256, 1, 3136), ONCE),
    ("norm_groups", "groups", (64 * 32, 8, 3136), ONCE),
    ("norm_groups", "large groups", (64 * 4, 64, 3136), TWICE),
    ("norm_groups", "few groups, in L2", (32, 16, 4096), ONCE),
    ("norm_channels", "on chip", (8, 1024, 196), ONCE),
    ("norm_channels", "first, in L2", (32, 64, 784), ONCE),
    ("norm_channels", "first", (64, 256, 3136), TWICE),
    ("norm_channels", "last, in L2", (16384, 128, 1), PARTS),
    ("norm_channels", "last", (200704, 256, 1), TWICE),
    ("norm_channels", "last, narrow", (1 << 24, 3, 1), TWICE),
    ("norm_channels", "last, tall", (1 << 24, 16, 1), TWICE),
    ("affine_rows", "evaluation", (64, 256, 3136), ONCE),
    ("affine_rows", "evaluation, float64 statistics", (64, 256, 3136, 8), ONCE),
    ("affine_rows", "short rows", (64, 2048, 49), ONCE),
    ("affine_cols", "evaluation", (1, 200704, 256), ONCE),
    ("affine_cols", "evaluation, float64 statistics", (1, 200704, 256, 8), ONCE),
    ("affine_cols", "narrow", (1, 1 << 24, 3), ONCE),
    ("mean_var_rows", "short", (1 << 20, 32), ONCE),
    ("mean_var_rows", "rows", (8192, 4096), ONCE),
    ("mean_var_rows", "all", (1, 1 << 25), ONCE),
    ("mean_var_cols", "columns", (1, 65536, 1024), PARTS),
    ("mean_var_cols", "narrow", (1, 1 << 24, 3), ONCE),
    ("mean_var_cols", "many planes", (4096, 64, 64), ONCE),
    ("mean_var_cols", "few rows, wide", (1, 1000, 1 << 16), PARTS),
    ("mean_var_channels", "images", (64, 256, 3136), ONCE),
    ("moments_rows", "rows", (8192, 4096), ONCE),
    ("moments_rows", "all", (1, 1 << 25), ONCE),
    ("moments_rows", "short", (1 << 20, 32), 1.7),
    ("moments_cols", "columns", (1, 65536, 1024), PARTS),
    ("moments_cols", "few rows", (1, 16, 1 << 20), 2.2),
    ("weighted", "rows", (8192, 4096, 1), ONCE),
    ("weighted", "columns", (1, 65536, 1024), PARTS),
    ("combine_moments", "minibatches", (1, 64, 1 << 16), ONCE),
    ("combine_moments", "channels first", (1, 64, 256), ONCE),
    ("combine_moments", "outer", (1024, 100, 7), ONCE),
]


def cost(launcher, arguments, itemsize):
    return getattr(costs, launcher)(itemsize, *arguments)


@pytest.mark.parametrize("itemsize", ITEMS)
@pytest.mark.parametrize(
    ("launcher", "arguments", "most"), [pytest.param(a, c, d, id=f"{a}-{b}") for a, b, c, d in CLASSES]
)
def test_bytes(launcher, arguments, most, itemsize):
    found = cost(launcher, arguments, itemsize)
    assert 1 <= found.ratio <= most, found


@pytest.fixture
def touched(simulator, monkeypatch):
    """How many elements kernels touch of the memory at an address."""
    counts = {}
    span = twins.Pointer.span

    def counted(self, index, count, aligned=True):
        address = self.array.ctypes.data
        counts[address] = counts.get(address, 0) + count
        return span(self, index, count, aligned)

    monkeypatch.setattr(twins.Pointer, "span", counted)
    return counts


def operands(*shapes, dtype="f4"):
    return [host_arrays.array(np.random.default_rng(0).standard_normal(shape).astype(dtype)) for shape in shapes]


def norm(launcher, shape, n, n_parameters, *use_mean):
    x, y, gamma, beta, mean, rstd = operands(shape, shape, n_parameters, n_parameters, n, n)
    launcher(x, gamma, beta, 1e-5, False, *use_mean, y, mean, rstd)
    return x, y


def given(launcher, shape, *statistic):
    x, y, mean, gamma, beta = operands(shape, shape, statistic, statistic, statistic)
    launcher(x, mean, gamma, 1e-5, False, gamma, beta, y)
    return x, y


def reduced(launcher, shape, n, *first):
    x, mean, var = operands(shape, n, n)
    launcher(x, *first, mean, var)
    return x, None


#: name -> (call that returns x and y, the launcher and its arguments to the model)
CALLS = {
    "registers": (lambda: norm(normalize.norm_rows, (5, 100), 5, 100, True), "norm_rows", (5, 100)),
    "unaligned": (lambda: norm(normalize.norm_rows, (5, 33), 5, 33, True), "norm_rows", (5, 33)),
    "split": (lambda: norm(normalize.norm_rows, (2, 4800), 2, 4800, True), "norm_rows", (2, 4800)),
    "groups": (lambda: norm(normalize.norm_groups, (2, 3, 40), 2, 6, True), "norm_groups", (2, 3, 40)),
    "split groups": (lambda: norm(normalize.norm_groups, (1, 3, 1000), 1, 3, True), "norm_groups", (1, 3, 1000)),
    "channels": (lambda: norm(normalize.norm_channels, (2, 3, 40), 3, 3), "norm_channels", (2, 3, 40)),
    "split channels": (lambda: norm(normalize.norm_channels, (3, 2, 800), 2, 2), "norm_channels", (3, 2, 800)),
    "channels last": (lambda: norm(normalize.norm_channels, (90, 12, 1), 12, 12), "norm_channels", (90, 12, 1)),
    "affine_rows": (lambda: given(affine.affine_rows, (2, 3, 40), 1, 3, 1), "affine_rows", (2, 3, 40)),
    "affine_cols": (lambda: given(affine.affine_cols, (2, 9, 33), 1, 1, 33), "affine_cols", (2, 9, 33)),
    "mean_var_rows": (lambda: reduced(moments.mean_var_rows, (3, 500), 3, 0, False), "mean_var_rows", (3, 500)),
    "mean_var_cols": (
        lambda: reduced(moments.mean_var_cols, (1, 300, 36), (1, 36), 0, False),
        "mean_var_cols",
        (1, 300, 36),
    ),
    "mean_var_channels": (
        lambda: reduced(moments.mean_var_channels, (3, 2, 50), 2, 0, False),
        "mean_var_channels",
        (3, 2, 50),
    ),
}


@pytest.mark.parametrize(("call", "launcher", "arguments"), CALLS.values(), ids=CALLS)
def test_kernels_touch_what_the_model_says(touched, monkeypatch, call, launcher, arguments):
    """The emulated kernels load x as often, and store y once."""
    monkeypatch.setattr(_launch_norms, "SPLIT_FEW_BYTES", 1 << 10)
    clear_plans()
    x, y = call()
    clear_plans()
    assert touched[x.data.ptr] == cost(launcher, arguments, 4).reads * x.size
    assert y is None or touched[y.data.ptr] == y.size


def test_splits_are_among_the_calls(monkeypatch):
    monkeypatch.setattr(_launch_norms, "SPLIT_FEW_BYTES", 1 << 10)
    reads = {name: cost(launcher, arguments, 4).reads for name, (_, launcher, arguments) in CALLS.items()}
    assert [name for name, n in reads.items() if n == 2] == ["split", "split groups", "split channels", "channels last"]


def table():
    """All classes as text."""
    columns = "".join(f"{n} bytes: plan, ratio".rjust(26) for n in ITEMS)
    lines = [f"{'launcher':18}{'class':32}{'arguments':22}{columns}"]
    for launcher, name, arguments, _ in CLASSES:
        found = [cost(launcher, arguments, itemsize) for itemsize in ITEMS]
        cells = "".join(f"{one.plan:>20}{one.ratio:6.3f}" for one in found)
        short = "  short" * (max(one.ratio for one in found) > ONCE)
        lines.append(f"{launcher:18}{name:32}{arguments!s:22}{cells}{short}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
