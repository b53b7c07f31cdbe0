"""Masks in the norms that are made of others.

What is left out might as well not be there: results are those of a smaller x. Where sets lose
different numbers of elements, gradients are those by differences.
"""

import numpy as np
import pytest

import numbanorm as nn
from tests.norms.test_masks import hidden, numeric_gradient

SHAPE = (4, 3, 6)
W, U = np.array([0.3, -0.5, 1.0]), np.array([1.0, 0.2, -0.4])


def conditional(x, **k):
    tables = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
    return nn.conditional_instance_norm(x, tables, tables + 1, np.arange(len(x)) % 2, return_stats=True, **k)


def conditional_backward(dy, x, saved, **k):
    tables = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
    return nn.conditional_instance_norm_backward(dy, x, tables, np.arange(len(x)) % 2, *saved, **k)


def style(x):
    return np.linspace(-2, 5, 3 * 8).reshape(1, 3, 8)


def adaptive(x, **k):
    return nn.adaptive_instance_norm(x, style(x), return_stats=True, **k)


def adaptive_backward(dy, x, saved, **k):
    return nn.adaptive_instance_norm_backward(dy, x, style(x), *saved, **k)


def switchable(x, running, **k):
    return nn.switchable_norm(x, running[0] + 2, running[1] + 0, W, U, *running, training=True, return_stats=True, **k)


def switchable_backward(dy, x, saved, gamma, **k):
    return nn.switchable_norm_backward(dy, x, gamma, W, U, *saved, training=True, **k)


def renorm(x, running, **k):
    options = {"training": True, "r_max": 1.5, "d_max": 0.4, "return_stats": True}
    return nn.batch_renorm(x, running[0] + 2, running[1] + 0, *running, **options, **k)


def renorm_backward(dy, x, saved, gamma, **k):
    return nn.batch_renorm_backward(dy, x, gamma, *saved, training=True, **k)


def ghost(x, running, **k):
    options = {"virtual_batch_size": 2, "training": True, "return_stats": True}
    return nn.ghost_batch_norm(x, running[0] + 2, running[1] + 0, *running, **options, **k)


def ghost_backward(dy, x, saved, gamma, **k):
    return nn.ghost_batch_norm_backward(dy, x, gamma, *saved, virtual_batch_size=2, training=True, **k)


#: name -> (call, gradient, whether it has running statistics and whole samples may be left out)
NORMS = {
    "conditional": (conditional, conditional_backward, False, False),
    "adaptive": (adaptive, adaptive_backward, False, True),
    "switchable": (switchable, switchable_backward, True, True),
    "renorm": (renorm, renorm_backward, True, True),
    "ghost": (ghost, ghost_backward, True, False),
    "z_score": (lambda x, **k: (nn.z_score(x, (0, 2), ddof=1, **k),), None, False, True),
    "min_max_scale": (lambda x, **k: (nn.min_max_scale(x, (0, 2), feature_range=(1, 3), **k),), None, False, True),
    "l2_normalize": (
        lambda x, **k: (nn.l2_normalize(x, (0, 2), **k),),
        lambda dy, x, saved, **k: [nn.l2_normalize_backward(dy, x, (0, 2), **k)],
        False,
        True,
    ),
}
norms = pytest.mark.parametrize(("call", "gradient", "runs", "samples"), NORMS.values(), ids=NORMS)


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    with nn.use_backend(request.param):
        yield request.param


def called(call, x, runs, **k):
    """Results, and the running statistics after the call."""
    running = [np.array([0.1, -0.2, 0.3]), np.array([1.0, 2.0, 0.5])]
    return call(x, running, **k) if runs else call(x, **k), running


def gradients(gradient, dy, x, saved, runs, **k):
    return gradient(dy, x, saved, np.array([2.1, 1.8, 2.3]), **k) if runs else gradient(dy, x, saved, **k)


def check(call, gradient, runs, x, dy, left, mask, chosen):
    """x with `mask`, said as `chosen`, against ``x[left]``."""
    (expected, *kept), after = called(call, x[left], runs)
    (y, *saved), running = called(call, hidden(x, mask, (np.nan, np.inf)), runs, **chosen)
    np.testing.assert_allclose(y[left], expected, rtol=1e-9, atol=1e-9)
    assert not y[~mask].any()
    np.testing.assert_allclose(running, after, rtol=1e-12)
    if gradient is not None:
        right = gradients(gradient, dy[left], x[left], kept, runs)
        actual = gradients(gradient, hidden(dy, mask), hidden(x, mask, (np.nan, np.inf)), saved, runs, **chosen)
        np.testing.assert_allclose(actual[0][left], right[0], rtol=1e-8, atol=1e-9)
        assert not actual[0][~mask].any()
        for a, b in zip(actual[1:], right[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


@norms
def test_fewer_columns(backend, call, gradient, runs, samples, rng):
    x, dy = rng.standard_normal(SHAPE) + 1, rng.standard_normal(SHAPE)
    columns = np.array([True, True, False, True, False, True])
    left, mask = (slice(None), slice(None), columns), np.broadcast_to(columns, SHAPE)
    check(call, gradient, runs, x, dy, left, mask, {"where": columns})
    left, mask = (..., slice(4)), np.broadcast_to(np.arange(6) < 4, SHAPE)
    check(call, gradient, runs, x, dy, left, mask, {"lengths": [4] * 4, "length_axis": 2})


@norms
def test_fewer_samples(backend, call, gradient, runs, samples, rng):
    if not samples:
        pytest.skip("samples have labels, or places in virtual batches")
    x, dy = rng.standard_normal(SHAPE) + 1, rng.standard_normal(SHAPE)
    there = np.array([True, False, True, True])
    mask = np.broadcast_to(there[:, None, None], SHAPE)
    check(call, gradient, runs, x, dy, there, mask, {"where": mask})
    check(call, gradient, runs, x, dy, there, mask, {"lengths": there * 6, "length_axis": 2})


@norms
def test_gradients_of_unequal_sets(backend, call, gradient, runs, samples, rng):
    if gradient is None:
        pytest.skip("has no gradient")
    x, dy = rng.standard_normal(SHAPE) + 1, rng.standard_normal(SHAPE)
    where = rng.random(SHAPE) < 0.7
    where[1, 2] = False
    where[:, :, 0] |= np.arange(3) < 2  # two channels have elements everywhere
    for padding in ("zero", "keep"):
        chosen = {"where": where, "padding": padding}
        (_, *saved), _ = called(call, x, runs, **chosen)
        dx = gradients(gradient, dy, x, saved, runs, **chosen)[0]

        def value(a, corrections=saved[2:], chosen=chosen, padding=padding):
            result = called(call, a, runs, **chosen)[0]
            if not corrections:
                return result[0]
            # r and d are constants to the gradient: batch renorm's y with those of x itself.
            r, d, gamma, beta = (
                *corrections,
                *(p.reshape(1, 3, 1) for p in (np.array([2.1, 1.8, 2.3]), np.array([1, 2, 0.5]))),
            )
            xhat = (a - result[1]) * result[2]
            return np.where(where, (xhat * r + d) * gamma + beta, a if padding == "keep" else 0)

        with nn.use_backend("reference"):
            right = numeric_gradient(value, x, dy)
        np.testing.assert_allclose(dx, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("padding", ["zero", "keep"])
def test_scaling_of_unequal_sets(backend, padding, rng):
    x = rng.standard_normal((5, 4)).astype("f4")
    where = rng.random(x.shape) < 0.6
    where[:2] = True
    where[2] = False
    wide = np.where(where, x, np.nan).astype("f8")
    least, most = np.nanmin(wide, 0), np.nanmax(wide, 0)
    expected = {
        nn.z_score: (wide - np.nanmean(wide, 0)) / np.nanstd(wide, 0),
        nn.min_max_scale: (wide - least) / (most - least),
        nn.l2_normalize: wide / np.sqrt(np.nansum(wide**2, 0)),
    }
    for function, right in expected.items():
        y = function(hidden(x, where) if padding == "zero" else x, 0, where=where, padding=padding)
        several = np.isfinite(right) & where
        np.testing.assert_allclose(y[several], right[several], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(y[~where], x[~where] if padding == "keep" else 0)


@pytest.mark.parametrize("axis", [-1, 0, (1, 2), None])
def test_gradient_of_unit_length(backend, axis, rng):
    x, dy = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    for chosen in ({}, {"where": rng.random(SHAPE) < 0.8}, {"where": rng.random(SHAPE) < 0.8, "padding": "keep"}):
        right = numeric_gradient(lambda a, k=chosen: nn.l2_normalize(a, axis, **k), x, dy)
        given = x.copy()
        assert nn.l2_normalize_backward(dy, given, axis, out=given, **chosen) is given
        np.testing.assert_allclose(given, right, rtol=1e-6, atol=1e-6)
    zeros = nn.l2_normalize_backward(dy.astype("f4"), np.zeros(SHAPE, "f4"), axis, eps=0.5)
    np.testing.assert_allclose(zeros, dy / 0.5, rtol=1e-6)
    assert nn.l2_normalize_backward(dy[:0], x[:0]).shape == (0, 3, 6)


LAYERS = {
    "BatchRenorm": (lambda: nn.BatchRenorm(3, dtype="f8"), ()),
    "GhostBatchNorm": (lambda: nn.GhostBatchNorm(3, 2, dtype="f8"), ()),
    "SwitchableNorm": (lambda: nn.SwitchableNorm(3, dtype="f8"), ()),
    "AdaptiveInstanceNorm": (lambda: nn.AdaptiveInstanceNorm(dtype="f8"), (np.arange(12.0).reshape(1, 3, 4),)),
    "ConditionalInstanceNorm": (lambda: nn.ConditionalInstanceNorm(2, 3, dtype="f8"), ([0, 1, 1, 0],)),
}


@pytest.mark.parametrize(("make", "more"), LAYERS.values(), ids=LAYERS)
def test_layers(backend, make, more, rng):
    """Columns that all samples lack might as well not be there, gradients and states included."""
    x, dy = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    columns = np.array([True, True, False, True, False, True])
    masked, small = make(), make()
    y, expected = (
        masked(hidden(x, np.broadcast_to(columns, SHAPE)), *more, where=columns),
        small(x[..., columns], *more),
    )
    np.testing.assert_allclose(y[..., columns], expected, rtol=1e-9, atol=1e-9)
    assert not y[..., ~columns].any()
    dx, right = masked.backward(dy), small.backward(dy[..., columns].copy())
    if isinstance(dx, tuple):
        (dx, *of_style), (right, *expected_of_style) = dx, right
        np.testing.assert_allclose(of_style, expected_of_style, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(dx[..., columns], right, rtol=1e-8, atol=1e-9)
    for name, gradient in small.grad.items():
        np.testing.assert_allclose(masked.grad[name], gradient, rtol=1e-8, atol=1e-9)
    for name, value in small.state_dict().items():
        np.testing.assert_allclose(masked.state_dict()[name], value, rtol=1e-12)
    lengths = masked(x, *more, lengths=[4, 4, 4, 4], length_axis=2, padding="keep")
    np.testing.assert_array_equal(lengths[..., 4:], x[..., 4:])


@pytest.mark.parametrize("padding", ["zero", "keep"])
@pytest.mark.parametrize("convention", ["torch", "alexnet"])
@pytest.mark.parametrize("layout", ["first", "last", "strided"])
def test_windows_see_nothing_that_is_left_out(backend, padding, convention, layout, rng):
    x, dy = rng.standard_normal((2, 3, 7, 4))[0] * 2, rng.standard_normal((3, 7, 4))
    where = rng.random(x.shape) < 0.7
    options = {"size": 3, "alpha": 0.5, "k": 1.5, "channel_axis": 1, "convention": convention}
    chosen = {"where": where, "padding": padding}
    if layout == "last":
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1) for a in (x, dy))
    elif layout == "strided":
        x, dy = x[:, :, ::-1], dy[:, :, ::-1]
    zeros = np.where(where, x, 0)
    elsewhere = x if padding == "keep" else np.zeros_like(x)
    given = x if padding == "keep" else hidden(x, where)
    y = nn.local_response_norm(given, **options, **chosen)
    assert np.argsort(y.strides).tolist() == np.argsort(np.abs(given.strides)).tolist()
    np.testing.assert_allclose(y[where], nn.local_response_norm(zeros, **options)[where], rtol=1e-12)
    np.testing.assert_array_equal(y[~where], elsewhere[~where])
    out = given.copy()
    assert nn.local_response_norm(out, **options, **chosen, out=out) is out
    np.testing.assert_array_equal(out, y)
    dx = nn.local_response_norm_backward(dy, given, **options, **chosen)
    with nn.use_backend("reference"):
        right = numeric_gradient(lambda a: nn.local_response_norm(a, **options, **chosen), np.ascontiguousarray(x), dy)
    np.testing.assert_allclose(dx, right, rtol=1e-6, atol=1e-7)


def test_a_layer_of_windows(backend, rng):
    x, dy = rng.standard_normal((2, 3, 5, 6)).astype("f4")
    layer = nn.LocalResponseNorm(3, alpha=0.7)
    lengths = np.array([6, 0, 2])
    y = layer(x, lengths=lengths, length_axis=2)
    dx = layer.backward(dy)
    inside = np.arange(6) < lengths[:, None, None]
    np.testing.assert_allclose(y, np.where(inside, nn.local_response_norm(x, 3, alpha=0.7), 0), rtol=1e-6)
    expected = nn.local_response_norm_backward(dy, x, 3, alpha=0.7)
    np.testing.assert_allclose(dx, np.where(inside, expected, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["zero", "keep"])
def test_weights_that_are_left(backend, padding, rng):
    weight, gain = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal(4)
    left = rng.random(weight.shape) < 0.6
    y = nn.weight_standardize(weight, gamma=gain, where=left, padding=padding)
    for of, mask, factor, result in zip(weight, left, gain, y, strict=True):
        kept = of[mask]
        right = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-5) * factor
        np.testing.assert_allclose(result[mask], right, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(result[~mask], of[~mask] if padding == "keep" else 0)
