"""Masks and lengths in the norms of device arrays, whose results are those of the host."""

import numpy as np
import pytest

import numbanorm as nn
from tests.device.test_norms import NORMS, reference
from tests.device.test_norms import operands as norm_operands
from tests.norms.test_masks import CASES, SHAPE, hidden, operands
from tests.oracle import FLOATS, as_dtype, assert_normalized

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
LENGTHS = np.array([3, 0, 5, 1])


def choices(rng):
    """(what the caller says, the mask that it means)."""
    where = rng.random(SHAPE) < 0.7
    inside = (np.arange(SHAPE[2]) < LENGTHS[:, None])[:, None, :, None]
    yield {"where": where}, where
    yield {"where": where[:, :1]}, np.broadcast_to(where[:, :1], SHAPE)
    yield {"lengths": LENGTHS, "length_axis": 2, "padding": "keep"}, np.broadcast_to(inside, SHAPE)
    yield {"where": where, "lengths": LENGTHS, "length_axis": 2}, where & inside


def on_device(place, chosen):
    return {name: place.array(value) if name == "where" else value for name, value in chosen.items()}


@cases
@pytest.mark.parametrize("dtype", FLOATS)
def test_values(place, case, dtype, rng):
    gamma, beta = (p.astype("f4") for p in operands(case, rng))
    for chosen, mask in choices(rng):
        x = as_dtype(rng.standard_normal(SHAPE), dtype)
        x = x if "padding" in chosen else hidden(x, mask)
        with nn.use_backend("reference"):
            right = case.norm(x.astype("f8"), gamma, beta, return_stats=True, **chosen)
        given = [place.array(a) for a in (x, gamma, beta)]
        y, *saved = case.norm(*given, return_stats=True, **on_device(place, chosen))
        assert y.dtype == x.dtype
        assert_normalized(place.numpy(y), right[0])
        for actual, expected in zip(saved, right[1:], strict=True):
            np.testing.assert_allclose(place.numpy(actual), expected, rtol=1e-5, atol=1e-6)


@cases
def test_out(place, case, rng):
    gamma, beta = (p.astype("f4") for p in operands(case, rng))
    x = rng.standard_normal(SHAPE).astype("f4")
    where = rng.random(SHAPE) < 0.7
    for padding in ("zero", "keep"):
        right = case.norm(x, gamma, beta, where=where, padding=padding)
        given = place.array(x)
        parameters = place.array(gamma), place.array(beta)
        assert case.norm(given, *parameters, where=place.array(where), padding=padding, out=given) is given
        assert_normalized(place.numpy(given), right)


@cases
def test_gradients(place, case, rng):
    gamma, beta = (p.astype("f4") for p in operands(case, rng))
    x, dy = (rng.standard_normal(SHAPE).astype("f4") for _ in range(2))
    for chosen, mask in choices(rng):
        hide = (lambda a: a) if "padding" in chosen else (lambda a, m=mask: hidden(a, m))
        with nn.use_backend("reference"):
            _, mean, rstd = case.norm(x, gamma, beta, return_stats=True, **chosen)
            right = case.gradient(dy.astype("f8"), x.astype("f8"), gamma, mean, rstd, **chosen)
        given = [place.array(a) for a in (hide(dy), hide(x), gamma, mean, rstd)]
        actual = case.gradient(*given, **on_device(place, chosen))
        for a, b in zip(actual, right, strict=True):
            if b is None:
                assert a is None
            else:
                np.testing.assert_allclose(place.numpy(a), b, rtol=1e-4, atol=1e-4)


def test_running_statistics(place, rng):
    x = rng.standard_normal((8, 3, 10)).astype("f4") * 3 + 5
    where = rng.random(x.shape) < 0.6
    where[:, 1] = False
    running = [np.array([1, 2, 3], "f4"), np.array([4, 5, 6], "f4")]
    theirs = [place.array(r) for r in running]
    nn.batch_norm(x, None, None, *running, training=True, where=where)
    nn.batch_norm(place.array(x), None, None, *theirs, training=True, where=place.array(where))
    for actual, expected in zip(theirs, running, strict=True):
        np.testing.assert_allclose(place.numpy(actual), expected, rtol=1e-6)
    assert place.numpy(theirs[0])[1] == 2


def test_layers(place, rng):
    x, dy = (rng.standard_normal((4, 6, 7)).astype("f4") for _ in range(2))
    lengths = [7, 4, 1, 5]
    for make in (lambda: nn.BatchNorm1d(6), lambda: nn.LayerNorm(7), lambda: nn.GroupNorm(2, 6)):
        ours, theirs = make(), make().to("cuda")
        np.testing.assert_allclose(
            place.numpy(theirs(place.array(x), lengths=lengths, length_axis=2)),
            ours(x, lengths=lengths, length_axis=2),
            rtol=1e-5,
            atol=1e-5,
        )
        np.testing.assert_allclose(
            place.numpy(theirs.backward(place.array(dy))), ours.backward(dy), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_every_norm(place, norm, rng):
    """And the running statistics, if it has any; a channel has no elements."""
    x = rng.standard_normal((6, 4, 3, 5)).astype("f4") + 1
    where = rng.random(x.shape) < 0.7
    where[:, 1] = False
    inside = np.arange(3) < np.array([3, 1, 0, 2, 3, 3])[:, None]
    padded = {"where": np.broadcast_to(inside[:, None, :, None], x.shape), "padding": "keep"}
    cases = [({"where": where}, {"where": place.array(where)})]
    if norm is not NORMS["weight_standardize"]:  # weights are no samples, which have lengths
        cases.append((padded, {"lengths": inside.sum(1), "length_axis": 2, "padding": "keep"}))
    for host, there in cases:
        right, running = reference(norm, x, **host)
        given = norm_operands(place.array)
        assert_normalized(place.numpy(norm(place.array(x), *given, **there)), right)
        for actual, expected in zip(given, running, strict=True):
            np.testing.assert_allclose(place.numpy(actual), expected, rtol=1e-5)


def test_gradient_of_unit_length(place, rng):
    x, dy = (rng.standard_normal((3, 4, 5)).astype("f4") for _ in range(2))
    for host in ({}, {"where": rng.random(x.shape) < 0.7}):
        there = {name: place.array(value) for name, value in host.items()}
        for axis in (-1, 0, (0, 2)):
            right = nn.l2_normalize_backward(dy, x, axis, **host)
            actual = nn.l2_normalize_backward(place.array(dy), place.array(x), axis, **there)
            np.testing.assert_allclose(place.numpy(actual), right, rtol=1e-5, atol=1e-6)
