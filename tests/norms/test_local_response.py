"""Local response norm against its formula: conventions, layouts, dtypes, hard numbers, gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from tests import oracle
from tests.norms_backward.checks import assert_gradient, central_differences
from tests.oracle import as_dtype, assert_normalized, layouts

#: convention -> (channels before, after, divisor of alpha) for a size.
WINDOWS = {
    "torch": lambda n: (n // 2, (n - 1) // 2, n),
    "onnx": lambda n: ((n - 1) // 2, n // 2, n),
    "alexnet": lambda n: (n // 2, n // 2, 1),
    "tf": lambda n: (n, n, 1),
}


def scales(x, axis, size, alpha, k, convention):
    """k + alpha * sums over windows, one channel after the other in extended precision."""
    before, after, divisor = WINDOWS[convention](size)
    squares = np.moveaxis(np.asarray(x).astype("f8").astype(np.longdouble) ** 2, axis, 0)
    sums = [squares[max(c - before, 0) : c + after + 1].sum(0) for c in range(len(squares))]
    return np.moveaxis(k + np.longdouble(alpha) / divisor * np.stack(sums), 0, axis)


def expected(x, axis=1, size=5, alpha=1e-4, beta=0.75, k=1.0, convention="torch"):
    return np.asarray(x.astype("f8") * scales(x, axis, size, alpha, k, convention) ** -beta, "f8")


def mirrored(dy, x, axis, size, alpha, beta, k, convention):
    s = scales(x, axis, size, alpha, k, convention)
    before, after, divisor = WINDOWS[convention](size)
    products = np.moveaxis(dy.astype("f8") * x.astype("f8") * s ** (-beta - 1), axis, 0)
    sums = np.stack([products[max(c - after, 0) : c + before + 1].sum(0) for c in range(len(products))])
    dx = dy.astype("f8") * s**-beta - 2 * alpha / divisor * beta * x.astype("f8") * np.moveaxis(sums, 0, axis)
    return np.asarray(dx, "f8")


@pytest.mark.parametrize("dtype", oracle.FLOATS)
@pytest.mark.parametrize("shape", [(2, 7, 3, 4), (3, 40, 1, 1), (1, 5, 2, 18), (50, 8)])
def test_every_layout_and_dtype(backend, dtype, shape, rng):
    x, dy = (as_dtype(rng.standard_normal(shape) * 3, dtype) for _ in range(2))
    for axis in range(-1, len(shape)):
        options = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.5, "convention": "onnx"}
        wanted, gradient = expected(x, axis, **options), mirrored(dy, x, axis, **options)
        for _, same in layouts(x):
            before = same.copy()
            y = nn.local_response_norm(same, channel_axis=axis, **options)
            assert y.dtype == x.dtype.newbyteorder("=")
            assert_normalized(y, wanted)
            for _, dz in layouts(dy) if same.flags.c_contiguous else [("C", dy)]:
                assert_gradient(nn.local_response_norm_backward(dz, same, channel_axis=axis, **options), gradient)
            np.testing.assert_array_equal(same, before)


@given(
    st.integers(0, 999),
    st.sampled_from([1, 2, 3, 8, 33]),
    st.sampled_from([1, 2, 5, 17, 70]),
    st.sampled_from([1, 3, 15, 16, 40, 600]),
    st.integers(1, 90),
    st.sampled_from(sorted(WINDOWS)),
    st.sampled_from([0.75, 0.5, 1.0, 0.6]),
    st.sampled_from(["cpu", "reference"]),
)
def test_windows_of_any_size(seed, n, channels, inner, size, convention, beta, backend):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, n, channels, inner)).astype("f4")
    options = {"size": size, "alpha": 0.3, "beta": beta, "k": 2.0, "convention": convention}
    with nn.use_backend(backend):
        assert_normalized(nn.local_response_norm(x, **options), expected(x, 1, **options))
        assert_gradient(nn.local_response_norm_backward(dy, x, **options), mirrored(dy, x, 1, **options))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_as_torch(size, rng):
    torch = pytest.importorskip("torch")
    x, dy = rng.standard_normal((2, 3, 9, 4, 5)).astype("f4")
    t = torch.from_numpy(x.copy()).requires_grad_()
    theirs = torch.nn.functional.local_response_norm(t, size, alpha=0.7, beta=0.75, k=1.2)
    assert_normalized(nn.local_response_norm(x, size, alpha=0.7, k=1.2), theirs.detach().numpy().astype("f8"))
    theirs.backward(torch.from_numpy(dy))
    assert_gradient(nn.local_response_norm_backward(dy, x, size, alpha=0.7, k=1.2), t.grad.numpy())
    layer, twin = nn.LocalResponseNorm(size), torch.nn.LocalResponseNorm(size)
    assert_normalized(layer(x), twin(torch.from_numpy(x)).numpy().astype("f8"))


@pytest.mark.parametrize("convention", WINDOWS)
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 2.0])
def test_central_differences(backend, convention, beta, rng):
    x, dy = rng.standard_normal((2, 2, 6, 3))
    options = {"size": 2, "alpha": 0.9, "beta": beta, "k": 1.3, "convention": convention}
    wanted = central_differences(lambda value: nn.local_response_norm(value, **options), x, dy)
    np.testing.assert_allclose(nn.local_response_norm_backward(dy, x, **options), wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("size", [1e-30, 1e4, 1e25])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_any_size(backend, axis, size, dtype, rng):
    """Squares of 1e25 are beyond float32, and so may be the power; the result is not."""
    x, dy = as_dtype(rng.standard_normal((2, 2, 20, 40)) * size, dtype)
    options = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1e-70, "convention": "torch"}
    wanted = expected(x, axis, **options)
    y = nn.local_response_norm(x, channel_axis=axis, **options)
    np.testing.assert_allclose(y, wanted, rtol=1e-6 if dtype == "float32" else 1e-12)
    gradient = mirrored(dy, x, axis, **options)
    dx = nn.local_response_norm_backward(dy, x, channel_axis=axis, **options)
    assert_gradient(dx, gradient, scale=0)


@pytest.mark.parametrize("inner", [1, 20])
def test_a_large_number_leaves_no_trace_in_later_windows(backend, inner, rng):
    """Sums that add what comes and subtract what goes would keep its rounding for good."""
    x = rng.standard_normal((3, 30, inner)).astype("f4")
    x[:, 7] = 1e15
    options = {"size": 5, "alpha": 1.0, "k": 0.0}
    np.testing.assert_allclose(nn.local_response_norm(x, **options), expected(x, **options), rtol=1e-6)
    for bad in (np.inf, np.nan):
        x[:, 7] = bad
        with np.errstate(invalid="ignore"):
            wanted = expected(x, **options)
        untouched = [c for c in range(30) if not 5 <= c < 10]
        y = nn.local_response_norm(x, **options)
        np.testing.assert_allclose(y[:, untouched], wanted[:, untouched], rtol=1e-6)
        dx = nn.local_response_norm_backward(np.ones_like(x), x, **options)
        assert np.isfinite(np.delete(dx, slice(3, 12), 1)).all()


def test_out(backend, rng):
    x, dy = rng.standard_normal((2, 3, 6, 4, 5)).astype("f4")
    wanted, gradient = nn.local_response_norm(x), nn.local_response_norm_backward(dy, x)
    for name, target in layouts(np.full_like(x, np.nan)):
        if name == "read-only":
            continue
        assert nn.local_response_norm(x, out=target) is target
        np.testing.assert_array_equal(target, wanted)
        assert nn.local_response_norm_backward(dy, x, out=target) is target
        np.testing.assert_array_equal(target, gradient)
    for which in range(2):
        pair = [dy.copy(), x.copy()]
        assert nn.local_response_norm_backward(*pair, out=pair[which]) is pair[which]
        np.testing.assert_array_equal(pair[which], gradient)
    for _, same in layouts(x):
        if same.flags.writeable:
            assert nn.local_response_norm(same, out=same) is same
            np.testing.assert_array_equal(same, wanted)
    memory = np.concatenate([dy.ravel(), np.zeros(7, "f4")])
    shifted = memory[7:].reshape(x.shape)
    np.testing.assert_array_equal(
        nn.local_response_norm_backward(memory[:-7].reshape(x.shape), x, out=shifted), gradient
    )
    assert nn.local_response_norm(np.empty((0, 3, 4), "f4")).shape == (0, 3, 4)


@pytest.mark.compiled
def test_threads_do_not_show(rng):
    import numba

    for shape in ((4, 64, 40, 40), (3000, 20)):
        x = rng.standard_normal(shape).astype("f4")
        results = []
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            before = numba.get_num_threads()
            numba.set_num_threads(threads)
            results.append(nn.local_response_norm(x))
            numba.set_num_threads(before)
        np.testing.assert_array_equal(results[0], results[-1])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 0}, "size must be at least 1, but got 0"),
        ({"size": -1, "convention": "tf"}, "size must be at least 0, a radius, but got -1"),
        ({"convention": "caffe"}, "convention must be one of 'torch', 'onnx', 'tf', 'alexnet'"),
    ],
)
def test_options(arguments, text):
    with pytest.raises(ValueError, match=text):
        nn.local_response_norm(np.ones((2, 3)), **arguments)
    with pytest.raises(TypeError, match="has dtype int64"):
        nn.local_response_norm(np.ones((2, 3), int))
    with pytest.raises(ValueError, match="at least 2D"):
        nn.local_response_norm(np.ones(3))
