"""The arithmetic of one thread on millions of elements: its Python source on arrays of threads."""

import numpy as np
import pytest

from numbanorm.backends.cuda._accumulate import adder, starter
from numbanorm.backends.cuda._arithmetic import LIMIT, MOST, scale_for
from tests.backends.cuda import simt

COUNT = 16
#: float16's adder has no branch, so arrays pass through it; the arithmetic is float32's.
add_arrays = {careful: simt.as_python(adder("float16", COUNT, 1, careful)) for careful in (False, True)}

DATA = {
    "standard": lambda rng, shape: rng.standard_normal(shape),
    "mean 1e4": lambda rng, shape: rng.standard_normal(shape) + 1e4,
    "mean 1e6": lambda rng, shape: rng.standard_normal(shape) + 1e6,
    "uniform": lambda rng, shape: rng.random(shape),
    "two values": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.1, 0.7),
    "alternating": lambda rng, shape: np.broadcast_to(np.where(np.arange(shape[1]) % 2, 0.1, 0.7), shape),
    "ramp": lambda rng, shape: np.arange(shape[0] * shape[1]).reshape(shape) % 2**24,
}


def thread_sums(x, careful):
    """(centre, a, b), the latter two exact to their parts, of each row of x: one thread's elements."""
    x = np.ascontiguousarray(x.T)
    centre = x[:COUNT].mean(0, dtype=np.float32)
    state = (np.ones_like(centre), centre, *np.zeros((4, len(centre)), np.float32))
    for i in range(0, len(x), COUNT):
        state = add_arrays[careful](x[i : i + COUNT], 0, *state)
    a, al, b, bl = (part.astype(np.float64) for part in state[2:])
    return centre.astype(np.float64), a + al, b + bl


def statistics(x, careful=False, lanes=None):
    """Mean and variance of each `lanes` rows of x together, rounded to float32."""
    lanes = lanes or len(x)
    centre, a, b = (part.reshape(-1, lanes) for part in thread_sums(x, careful))
    n, total = x.shape[1], x.shape[1] * lanes
    shift = centre - centre[:, :1]
    a, b = (a + n * shift).sum(1), (b + shift * (2 * a + n * shift)).sum(1)
    return (centre[:, 0] + a / total).astype(np.float32), ((b - a * a / total) / total).astype(np.float32)


def errors(x, mean, var):
    x = x.reshape(len(mean), -1).astype(np.float64)
    true_mean = x.mean(1)
    deviations = x - true_mean[:, None]
    true_mean += deviations.mean(1)
    true_var = ((x - true_mean[:, None]) ** 2).mean(1)
    unit = np.maximum(np.abs(true_mean), np.sqrt(true_var))
    return max(np.max(np.abs(mean - true_mean) / unit), np.max(np.abs(var / true_var - 1)))


@pytest.mark.parametrize("name", DATA)
def test_millions(name):
    x = DATA[name](np.random.default_rng(0), (4096, 1024)).astype(np.float32)
    assert errors(x, *statistics(x)) <= 1.2e-7


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("lanes", "length"), [(32, 16), (8, 32), (4, 32), (32, 128)])
def test_many_rows(name, lanes, length):
    x = DATA[name](np.random.default_rng(1), (2000 * lanes, length)).astype(np.float32)
    assert errors(x, *statistics(x, False, lanes)) <= 1.2e-7


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("lanes", "length"), [(1, 16), (2, 32), (1, 32)])
def test_many_short_rows(name, lanes, length):
    x = DATA[name](np.random.default_rng(2), (20_000 * lanes, length)).astype(np.float32)
    assert errors(x, *statistics(x, True, lanes)) <= 1.2e-7


@pytest.mark.parametrize("factor", [1e-37, 1e-30, 1e-20, 1.0, 1e20, 1e30, 1e38])
def test_scales_put_squares_in_range(factor):
    start = simt.as_python(starter("float32", 4, 1))
    x = np.array([1, -0.5, 0.25, 0], np.float32) * np.float32(factor)
    centre, scale, shift = start(x, 0, np.float32(4))
    assert abs(np.log2(scale)) <= MOST
    assert shift == centre * scale
    assert 2.0**-14 < np.abs(x * scale).max() <= 512


def test_scales_of_equal_numbers():
    scale = simt.as_python(scale_for)
    assert scale(np.float32(0), np.float32(0)) == 40
    assert scale(np.float32(0), np.float32(1)) == 24
    assert scale(np.float32(np.inf), np.float32(0)) == -MOST


@pytest.mark.parametrize("later", [1e3, 1e10, 1e30, 3e38])
def test_numbers_that_dwarf_the_first(later):
    start, add = (
        simt.as_python(make("float32", *shape)) for make, shape in ((starter, (4, 1)), (adder, (4, 1, False)))
    )
    first, second = np.array([[1, 2, 3, 4], [1, -1, 1, -1]], np.float32) * np.float32([[1e-30], [later]])
    _, scale, shift = start(first, 0, np.float32(4))
    zero = np.float32(0)
    state = add(first, 0, scale, shift, zero, zero, zero, zero)
    with np.errstate(all="ignore"):
        scale, _, _, _, b, bl = add(second, 0, *state)
    assert b <= LIMIT
    np.testing.assert_allclose(
        (float(b) + float(bl)) / float(scale) ** 2, 4 * float(np.float32(later)) ** 2, rtol=1e-12
    )
