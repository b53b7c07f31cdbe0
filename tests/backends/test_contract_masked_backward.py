"""Launchers of gradients in which not all elements take part, against the formula for those that do."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanorm._dtypes import compute_dtype
from numbanorm.backends import cpu, reference
from numbanorm.backends.cpu import _jit, _stream
from tests import oracle
from tests.oracle import as_dtype

BACKENDS = (cpu, reference)
AXES = {"rows": (1,), "groups": (1, 2), "channels": (0, 2)}
LIMIT = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-6, "float64": 1e-12}

dimension = st.sampled_from([1, 2, 3, 5, 8, 31, 33, 64, 70])
dtypes = st.sampled_from(oracle.FLOATS)
seeds = st.integers(0, 1000)
kinds = st.sampled_from(["mask", "lengths"])
wanting = st.tuples(st.booleans(), st.booleans(), st.booleans())


def line_length(name, shape):
    """Of the lines of which the first elements take part."""
    return shape[1] if name == "channels" and shape[2] == 1 else shape[-1]


def make_taken(name, shape, kind, rng):
    """(as a launcher takes it, as booleans); some lines are empty, some full."""
    if kind == "mask":
        taken = rng.random(shape) < rng.choice([0.0, 0.3, 0.7, 1.0], shape[:1] + (1,) * (len(shape) - 1))
        return taken, taken
    length = line_length(name, shape)
    lengths = rng.integers(0, length + 1, int(np.prod(shape)) // length)
    lengths = np.where(rng.random(lengths.size) < 0.2, rng.choice([0, length]), lengths)
    return lengths, (np.arange(length) < lengths[:, None]).reshape(shape)


def rounded(values, compute):
    return values.astype(compute).astype("f8")


class Case:
    """Operands of a launcher; what does not take part is NaN, inf, or huge."""

    def __init__(self, name, shape, n, dtype, seed=0, kind="mask", use_mean=True, fixed=False, offset=3.0, scale=2.0):
        rng = np.random.default_rng(seed)
        self.name, self.axes, self.use_mean, self.fixed = name, AXES[name], use_mean, fixed
        self.taken, self.inside = make_taken(name, shape, kind, rng)
        x, dy = rng.standard_normal(shape) * scale + offset, rng.standard_normal(shape)
        self.x, self.dy = as_dtype(x, dtype), as_dtype(dy, dtype)
        compute = compute_dtype(self.x.dtype)
        wide = np.where(self.inside, self.x.astype("f8"), np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean = np.nanmean(wide, self.axes, keepdims=True) * use_mean
            var = np.nanmean((wide - mean) ** 2, self.axes, keepdims=True)
        self.mean = rounded(np.squeeze(mean, self.axes), compute)
        self.rstd = rounded(np.squeeze(1 / np.sqrt(var + 0.1 * scale**2 / 4), self.axes), compute)
        if fixed:
            self.mean, self.rstd = np.nan_to_num(self.mean), np.nan_to_num(self.rstd, nan=1.0)
        self.gamma = rng.standard_normal(n).astype(compute)
        junk = as_dtype(rng.choice([np.nan, np.inf, -np.inf, 6e4], shape), dtype)
        self.x[~self.inside] = junk[~self.inside]
        self.dy[~self.inside] = junk[::-1][~self.inside]
        for array in (self.x, self.dy, self.taken, self.mean, self.rstd, self.gamma):
            array.flags.writeable = False

    def run(self, backend, n, std_eps=0.0, ddof=0.0, keep=False, wanted=(True, True, True), dx=None):
        compute = self.gamma.dtype
        dx = np.full(self.x.shape if wanted[0] else 0, np.nan, self.x.dtype) if dx is None else dx
        parameters = [np.full(n if want else 0, np.nan, compute) for want in wanted[1:]]
        inputs = self.dy, self.x, self.taken, self.gamma, self.mean, self.rstd
        flag = self.fixed if self.name == "channels" else self.use_mean
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            launch = getattr(backend, f"masked_{self.name}_backward")
            launch(*inputs, std_eps, ddof, flag, keep, dx, *parameters)
        return dx, *parameters

    def parameter_of(self, n):
        """Index of each element's parameter, of n."""
        shape = self.x.shape
        if self.name == "groups":
            index = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1)
        else:
            index = np.arange(shape[1]).reshape((1, -1, 1)[: len(shape)])
        return np.broadcast_to(index, shape) % n

    def expected(self, n, std_eps=0.0, ddof=0.0, keep=False):
        """dx, dgamma and dbeta: set by set, the formula for the elements that take part alone."""
        shape, inside = self.x.shape, self.inside
        sets = np.arange(self.rstd.size).reshape([1 if a in self.axes else s for a, s in enumerate(shape)])
        sets, parameter = np.broadcast_to(sets, shape), self.parameter_of(n)
        factors = self.gamma.astype("f8")[self.parameter_of(self.gamma.size)]
        dx = self.dy.astype("f8") if keep else np.zeros(shape)
        dgamma, dbeta = np.zeros((2, n))
        for k in np.unique(sets[inside]):
            of_set = inside & (sets == k)
            dy, x = self.dy[of_set].astype("f8"), self.x[of_set].astype("f8")
            g, rstd = dy * factors[of_set], self.rstd[k]
            xhat = (x - self.mean[k]) * rstd if self.use_mean else x * rstd
            if not self.fixed:
                xhat -= xhat.mean() * self.use_mean
                share = 1 - std_eps * rstd
                through_var = xhat * (g * xhat).sum() / (x.size - ddof) / share
                dx[of_set] = rstd * (g - g.mean() * self.use_mean - through_var)
            else:
                dx[of_set] = rstd * g
            np.add.at(dgamma, parameter[of_set], dy * xhat)
            np.add.at(dbeta, parameter[of_set], dy)
        return dx, dgamma, dbeta

    def check(self, n, backends=BACKENDS, wanted=(True, True, True), **options):
        expected = self.expected(n, **options)
        factor = np.abs(self.gamma).max() * np.nanmax(self.rstd, initial=0)
        for backend in backends:
            results = self.run(backend, n, wanted=wanted, **options)
            for actual, right, size in zip(results, expected, (factor, self.x.size / n, self.x.size / n), strict=True):
                if actual.size == 0:
                    continue
                limit = LIMIT[actual.dtype.name]
                outside = ~self.inside if actual is results[0] else np.zeros(actual.shape, bool)
                np.testing.assert_array_equal(actual[outside].astype("f8"), right[outside])
                values = right[~outside]
                bound = limit * max(size, np.abs(values).max(initial=0), float(actual is not results[0]))
                np.testing.assert_allclose(actual[~outside].astype("f8"), values, rtol=limit, atol=bound)


@given(dimension, dimension, dtypes, seeds, kinds, st.booleans(), st.booleans(), st.booleans(), wanting)
def test_masked_rows_backward(n_rows, n_cols, dtype, seed, kind, use_mean, keep, single, wanted):
    n = 1 if single else n_cols
    Case("rows", (n_rows, n_cols), n, dtype, seed, kind, use_mean).check(n, keep=keep, wanted=wanted, std_eps=0.01)


@given(dimension, dimension, dtypes, seeds, kinds)
def test_masked_rows_backward_of_one_gamma_for_all(n_rows, n_cols, dtype, seed, kind):
    Case("rows", (n_rows, n_cols), 1, dtype, seed, kind).check(n_cols, ddof=-0.5)


@given(dimension, st.integers(1, 4), dimension, dtypes, seeds, kinds, st.booleans(), st.booleans(), wanting, st.data())
def test_masked_groups_backward(n_rows, n_channels, n_inner, dtype, seed, kind, use_mean, keep, wanted, data):
    repeats = data.draw(st.sampled_from([r for r in range(1, n_rows + 1) if n_rows % r == 0]))
    n = data.draw(st.sampled_from([1, n_channels * n_rows // repeats]))
    case = Case("groups", (n_rows, n_channels, n_inner), n, dtype, seed, kind, use_mean)
    case.check(n, keep=keep, wanted=wanted)


@given(dimension, dimension, dimension, dtypes, seeds, kinds, st.booleans(), st.booleans(), st.booleans(), wanting)
def test_masked_channels_backward(n, n_channels, n_inner, dtype, seed, kind, fixed, keep, single, wanted):
    n_gamma = 1 if single else n_channels
    case = Case("channels", (n, n_channels, n_inner), n_gamma, dtype, seed, kind, fixed=fixed)
    case.check(n_channels, keep=keep, wanted=wanted)


#: Each takes another way through the launchers: tiles, pieces of rows, few rows, joined rows, ...
LARGE = [
    ("rows", (700, 300), 300),
    ("rows", (40, 3000), 3000),
    ("rows", (2, 70_000), 70_000),
    ("rows", (20, 33_000), 33_000),
    ("rows", (2, 70_000), 1),
    ("groups", (8, 2, 6000), 4),
    ("groups", (2, 2, 70_000), 2),
    ("groups", (300, 1, 700), 30),
    ("channels", (8, 70, 100), 70),
    ("channels", (5000, 5, 1), 5),
    ("channels", (3, 2, 70_000), 2),
    ("channels", (90, 1300, 1), 1300),
    ("channels", (20, 70, 49), 70),
    ("channels", (2000, 3, 4), 3),
]


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "shape", "n"), LARGE)
@pytest.mark.parametrize("kind", ["mask", "lengths"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_shapes_far_from_zero(name, shape, n, kind, dtype):
    """At mean 1e4 a float32 mean is off by 5e-4 standard deviations; no gradient may be."""
    Case(name, shape, n, dtype, kind=kind, offset=1e4).check(n, (cpu,))


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "shape", "n"), [("rows", (50, 700), 700), ("channels", (9, 40, 50), 40)])
@pytest.mark.parametrize(("offset", "scale"), [(1e6, 2.0), (1e30, 1e30), (0.0, 1e-15)])
def test_hard_data(name, shape, n, offset, scale):
    Case(name, shape, n, "float32", offset=offset, scale=scale).check(n, (cpu,))


@pytest.mark.parametrize("kind", ["mask", "lengths"])
@pytest.mark.parametrize("name", AXES)
def test_sets_without_elements_have_padding_alone(name, kind):
    shape = (6, 5) if name == "rows" else (6, 5, 40)
    case = Case(name, shape, 5, "float32", kind=kind)
    case.taken, case.inside = np.zeros_like(case.taken), np.zeros_like(case.inside)
    case.mean, case.rstd = np.full_like(case.mean, np.nan), np.full_like(case.rstd, np.nan)
    for backend in BACKENDS:
        for keep in (False, True):
            dx, dgamma, dbeta = case.run(backend, 5, keep=keep, ddof=1.0)
            np.testing.assert_array_equal(dx, case.dy if keep else np.zeros(shape))
            assert not dgamma.any()
            assert not dbeta.any()


@pytest.mark.parametrize("kind", ["mask", "lengths"])
@pytest.mark.parametrize(("name", "shape"), [("rows", (4, 40)), ("groups", (4, 2, 20)), ("channels", (2, 4, 20))])
def test_statistics_that_are_not_finite_stay_in_their_set(name, shape, kind):
    """A set of one element, or of equal ones without eps: its padding still adds nothing to dgamma."""
    case = Case(name, shape, 4 if name == "channels" else 40 if name == "rows" else 2, "float32", 3, kind)
    expected = case.expected(case.gamma.size)
    for bad in (np.nan, np.inf):
        case.rstd = case.rstd.copy()
        case.rstd[0] = bad
        for backend in BACKENDS:
            dx, dgamma, _ = case.run(backend, case.gamma.size)
            of_set = np.zeros(shape, bool)
            np.moveaxis(of_set, 1 if name == "channels" else 0, 0)[0] = True
            assert np.isnan(dx[of_set & case.inside]).all()
            assert not dx[of_set & ~case.inside].any()
            np.testing.assert_allclose(dx[~of_set], expected[0][~of_set], rtol=1e-4, atol=1e-5)
            touched = np.isin(np.arange(dgamma.size), case.parameter_of(dgamma.size)[of_set & case.inside])
            np.testing.assert_array_equal(np.isfinite(dgamma), ~touched)


@pytest.mark.parametrize(("name", "shape", "n"), [("rows", (70, 33), 33), ("groups", (6, 2, 33), 2), *LARGE[8:10]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_taken_is_as_without_a_mask(name, shape, n, dtype):
    case = Case(name, shape, n, dtype)
    rng = np.random.default_rng(0)
    case.dy, case.x = (as_dtype(rng.standard_normal(shape), dtype) for _ in range(2))
    case.mean, case.rstd = np.nan_to_num(case.mean), np.nan_to_num(case.rstd, nan=1.0)
    length = line_length(name, shape)
    for taken in (np.ones(shape, bool), np.full(case.x.size // length, length)):
        case.taken = taken
        outputs = np.empty(shape, case.x.dtype), np.empty(n, case.gamma.dtype), np.empty(n, case.gamma.dtype)
        unmasked = getattr(cpu, f"norm_{name}_backward")
        unmasked(case.dy, case.x, case.gamma, case.mean, case.rstd, 0.0, 0.0, name != "channels", *outputs)
        for actual, expected in zip(case.run(cpu, n), outputs, strict=True):
            limit = 3 * LIMIT[actual.dtype.name]
            bound = limit * np.abs(expected.astype("f8")).max()
            np.testing.assert_allclose(actual.astype("f8"), expected.astype("f8"), rtol=limit, atol=bound)


@pytest.mark.parametrize(("name", "shape", "n"), [("rows", (70, 33), 33), ("groups", (6, 2, 33), 2), *LARGE[8:10]])
@pytest.mark.parametrize("kind", ["mask", "lengths"])
@pytest.mark.parametrize("keep", [False, True])
def test_dx_may_be_the_memory_of_dy_or_x(name, shape, n, kind, keep):
    case = Case(name, shape, n, "float32", kind=kind)
    expected = case.run(cpu, n, keep=keep)
    for which in ("dy", "x"):
        other = Case(name, shape, n, "float32", kind=kind)
        setattr(other, which, getattr(other, which).copy())
        for actual, wanted in zip(other.run(cpu, n, keep=keep, dx=getattr(other, which)), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "shape", "n"),
    [
        ("rows", (64, 1001), 1001),
        ("rows", (2, 70_001), 70_001),
        ("groups", (40, 3, 501), 3),
        ("channels", (3, 70, 501), 70),
    ],
)
@pytest.mark.parametrize("kind", ["mask", "lengths"])
@pytest.mark.parametrize("dtype", oracle.FLOATS)
def test_streaming_gives_the_same_bits(name, shape, n, kind, dtype, monkeypatch):
    case = Case(name, shape, n, dtype, kind=kind)
    for keep in (False, True):
        results = []
        for bytes_of in (1 << 60, 1):
            monkeypatch.setattr(_stream, "STREAM_BYTES", bytes_of)
            memory = np.full(case.x.size + 1, np.nan, case.x.dtype)
            dx = memory[1:].reshape(shape)  # lines do not begin where rows do
            results.append(case.run(cpu, n, keep=keep, dx=dx))
            assert np.isnan(memory[0])
        for plain, streamed in zip(*results, strict=True):
            np.testing.assert_array_equal(plain.astype("f8"), streamed.astype("f8"))


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "shape", "n"), LARGE[::3])
@pytest.mark.parametrize("kind", ["mask", "lengths"])
def test_parts_in_turn_give_the_same_bits(name, shape, n, kind, monkeypatch):
    case = Case(name, shape, n, "float32", kind=kind)
    expected = case.run(cpu, n)
    monkeypatch.setattr(_jit.Kernel, "__call__", lambda kernel, n_parts, *args: kernel.run(n_parts, 0, *args))
    for actual, wanted in zip(case.run(cpu, n), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("kind", ["mask", "lengths"])
def test_gradients_are_those_of_finite_differences(kind):
    case = Case("rows", (4, 12), 12, "float64", 1, kind)
    inside = case.inside
    weights = np.where(inside, case.dy, 0.0)

    def loss(x):
        """Of a layer norm with the eps of :class:`Case`."""
        count = np.maximum(inside.sum(1, keepdims=True), 1)
        centred = np.where(inside, x - np.where(inside, x, 0).sum(1, keepdims=True) / count, 0)
        var = (centred**2).sum(1, keepdims=True) / count
        return (weights * case.gamma * centred / np.sqrt(var + 0.1)).sum()

    x = np.where(inside, case.x, 0.0)
    numeric = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        numeric[index] = (loss(x + step) - loss(x - step)) / 2e-5
    for backend in BACKENDS:
        np.testing.assert_allclose(case.run(backend, 12)[0], numeric, atol=1e-8)
