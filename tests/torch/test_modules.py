"""Modules in torch against torch's own."""

import copy
import pickle
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import numbanorm as nn  # noqa: E402
from tests.torch.norms import CASES, assert_close, each_case, normal, nt, pair, step  # noqa: E402

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@each_case
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("training", [True, False])
def test_forward_and_backward(case, dtype, training, rng, calls):
    """Two steps, so that gradients and running statistics of the first would show in the second."""
    if dtype.itemsize == 2:
        pytest.importorskip("ml_dtypes")
    # torch's own 16-bit sums are poor; float32 of the same numbers says what is right.
    wide = torch.float32 if dtype.itemsize == 2 else dtype
    theirs, ours = pair(case, rng, wide)
    theirs.train(training), ours.train(training)
    for _ in range(2):
        x, dy = normal(rng, case[3], dtype, 0.5), normal(rng, case[3], dtype)
        expected = step(theirs, x.to(wide), dy.to(wide))
        actual = step(ours, x, dy)
        assert actual[0].dtype == actual[1].dtype == dtype
        for a, e in zip(actual[:2], expected[:2], strict=True):
            assert_close(a, e.to(dtype), dtype, 3.0)
        for a, e in zip(actual[2:], expected[2:], strict=True):
            assert_close(a, e, wide, 10.0)
        for (key, a), e in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert_close(a.double(), e.double(), wide), key
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm2d", "InstanceNorm2d, tracked"])
def test_parameters_in_half_precision(name, dtype, rng):
    pytest.importorskip("ml_dtypes")
    case = CASES[name]
    theirs, ours = pair(case, rng)
    theirs, ours = theirs.to(dtype).float(), ours.to(dtype)
    x, dy = normal(rng, case[3], dtype), normal(rng, case[3], dtype)
    for a, e in zip(step(ours, x, dy), step(theirs, x.float(), dy.float()), strict=True):
        assert a.dtype == dtype
        assert_close(a, e.to(dtype), dtype, 3.0)
    for a, e in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_close(a.double(), e.double(), dtype)


@each_case
@pytest.mark.parametrize("training", [True, False])
def test_gradcheck_and_gradgradcheck(case, training, rng):
    """The second against differences of the first, which is composed of torch's operations then."""
    _, ours = pair(case, rng, torch.float64)
    ours.train(training)
    parameters = tuple(ours.parameters())
    x = normal(rng, case[3], torch.float64).requires_grad_()
    buffers = [b.clone() for b in ours.buffers()]

    def function(x, *_):
        for buffer, value in zip(ours.buffers(), buffers, strict=True):
            buffer.data.copy_(value)
        return ours(x)

    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=False)
    assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


@each_case
def test_the_two_gradients_agree(case, rng):
    """Ours, and that of torch's operations."""
    _, ours = pair(case, rng, torch.float64)
    x, dy = (normal(rng, case[3], torch.float64) for _ in range(2))
    kernels = step(ours, x, dy)[1:]
    composed = torch.autograd.grad(
        ours(x.requires_grad_()), (x, *ours.parameters()), dy, create_graph=True, allow_unused=True
    )
    assert composed[0].requires_grad
    for a, e in zip(kernels, composed, strict=True):
        assert_close(a, e, torch.float64)


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d, tracked", "GroupNorm"])
@pytest.mark.parametrize("training", [True, False])
def test_layouts(name, training, rng, calls):
    """Channels last, sliced, transposed and expanded inputs; gradients of any layout."""
    case = CASES[name]
    for shape in (case[3], (3, 6, 1, 2), (1, 6, 4, 2)):
        theirs, ours = pair(case, rng)
        theirs.train(training), ours.train(training)
        x, dy = normal(rng, shape), normal(rng, shape)
        last = x.contiguous(memory_format=torch.channels_last)
        big = torch.zeros(2 * shape[0], *shape[1:3], 3 * shape[3])
        big[::2, ..., ::3] = x
        expected = step(copy.deepcopy(theirs), x, dy)
        for same in (x, last, big[::2, ..., ::3], x.mT.contiguous().mT):
            for gradient in (dy, dy.contiguous(memory_format=torch.channels_last)):
                actual = step(copy.deepcopy(ours), same, gradient)
                for a, e in zip(actual, expected, strict=True):
                    assert_close(a, e, torch.float32, 3.0)
        y, dx, *_ = step(copy.deepcopy(ours), last, dy)
        assert y.stride() == last.stride()
        assert dx.is_contiguous(memory_format=torch.channels_last)
        for a, e in zip(
            step(copy.deepcopy(ours), x, torch.ones(()).expand(shape)),
            step(copy.deepcopy(theirs), x, torch.ones(shape)),
            strict=True,
        ):
            assert_close(a, e, torch.float32, 10.0)
        wide = x[:, :, :1].expand(shape)
        assert_close(ours(wide), theirs(wide), torch.float32)
    assert len(calls) == 3 * (4 * 2 + 3)


def test_memory_is_shared_and_nothing_more_is_kept(rng):
    """Saved are x itself, the parameter itself, and two numbers per row; without gradients nothing."""
    norm, x = nt.LayerNorm(64), normal(rng, (32, 64)).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        norm(x)
    assert [t.data_ptr() for t in saved[:2]] == [x.data_ptr(), norm.weight.data_ptr()]
    assert [t.numel() for t in saved[2:]] == [32, 32]
    for quiet in (lambda: norm.requires_grad_(False)(x.detach()), lambda: torch.no_grad()(norm)(x)):
        assert quiet().grad_fn is None
    bn = nt.BatchNorm1d(64)
    before = bn.running_mean.data_ptr(), bn.running_var.data_ptr(), bn.num_batches_tracked.data_ptr()
    bn(x)
    assert (bn.running_mean.data_ptr(), bn.running_var.data_ptr(), bn.num_batches_tracked.data_ptr()) == before
    assert bn.running_mean.any()


def test_memory_is_not_copied_on_the_way(rng, monkeypatch):
    """The arrays in and the tensor out are views."""
    from numbanorm.torch import _calls

    seen = []

    def spy(x, gamma, beta, **options):
        y = nn.layer_norm(x, gamma, beta, **options)
        seen.extend([x, gamma, beta, y])
        return y

    monkeypatch.setattr(_calls, "layer_norm", spy)
    for dtype in FLOATS if "ml_dtypes" in sys.modules else FLOATS[:3]:
        norm, x = nt.LayerNorm(64, dtype=dtype).requires_grad_(False), normal(rng, (32, 64), dtype)
        y = norm(x)
        tensors = x, norm.weight, norm.bias, y
        assert [a.__array_interface__["data"][0] for a in seen] == [t.data_ptr() for t in tensors]
        seen.clear()


def test_results_outlive_the_call_and_may_be_overwritten(rng):
    """In-place operations after a norm, as ReLU(inplace=True), and large results from recycled memory."""
    for dtype in (torch.float32, torch.bfloat16):
        if dtype is torch.bfloat16:
            pytest.importorskip("ml_dtypes")
        norm, x = nt.LayerNorm(1024, dtype=dtype), normal(rng, (600, 1024), dtype).requires_grad_()
        norm(x).relu_().sum().backward()
        kept = norm(x).detach()
        copied = kept.clone()
        for _ in range(3):
            norm(x.detach() + 1)
        assert torch.equal(kept, copied)


LAYOUTS = {
    "pooled": (lambda: torch.nn.BatchNorm2d(5), lambda x: x.mean((2, 3), keepdim=True), (2, 5, 3, 4)),
    "last token": (lambda: torch.nn.LayerNorm(6), lambda x: x[:, -1], (4, 7, 6)),
    "one token": (lambda: torch.nn.LayerNorm(6), lambda x: x[:, -1:], (4, 7, 6)),
    "transposed": (lambda: torch.nn.LayerNorm(6), lambda x: x.transpose(1, 2), (2, 6, 5)),
    "swapped": (lambda: torch.nn.RMSNorm(6), lambda x: x.transpose(0, 1), (3, 4, 6)),
    "expanded": (lambda: torch.nn.LayerNorm(7), lambda x: x[:1].expand(4, 5, 7), (4, 5, 7)),
    "channels last": (
        lambda: torch.nn.BatchNorm2d(4),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        (2, 4, 3, 5),
    ),
    "one row": (
        lambda: torch.nn.GroupNorm(2, 4),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        (2, 4, 1, 5),
    ),
    "channel expanded": (lambda: torch.nn.BatchNorm2d(6), lambda x: x[:, :1].expand(4, 6, 5, 7), (4, 6, 5, 7)),
}


@pytest.mark.parametrize(("make", "view", "shape"), LAYOUTS.values(), ids=LAYOUTS)
def test_y_lies_as_torchs_and_may_be_modified(make, view, shape, rng):
    theirs = make()
    ours = nt.replace_norms(copy.deepcopy(theirs))
    results, gradients = [], []
    x = normal(rng, shape)
    for norm in (theirs, ours):
        leaf = x.clone().requires_grad_()
        y = norm(view(leaf))
        results.append(y)
        y += 1
        y.relu_().square().sum().backward()
        gradients.append(leaf.grad)
    assert results[0].is_contiguous() == results[1].is_contiguous()
    if results[0].is_contiguous():
        assert results[1].view(-1).shape == results[0].view(-1).shape
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_batched_gradients_and_negative_tensors(rng):
    norm = nt.LayerNorm(6)
    theirs = torch.nn.LayerNorm(6)
    x, several = normal(rng, (2, 6)).requires_grad_(), normal(rng, (3, 2, 6))
    batched = [torch.autograd.grad(layer(x), x, several, is_grads_batched=True)[0] for layer in (norm, theirs)]
    torch.testing.assert_close(*batched, rtol=1e-5, atol=1e-6)
    negative = torch.complex(normal(rng, (2, 6)), normal(rng, (2, 6))).conj().imag
    assert negative.is_neg()
    gradients = [torch.autograd.grad(layer(x), x, negative)[0] for layer in (norm, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_changing_x_in_place_before_backward_is_an_error(rng):
    x = normal(rng, (3, 5)).requires_grad_()
    hidden = x * 1
    y = nt.LayerNorm(5)(hidden)
    hidden += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = nt.LayerNorm(5)(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_only_what_is_needed_has_gradients(rng):
    norm, x = nt.LayerNorm(5), normal(rng, (3, 5))
    norm(x).sum().backward()
    assert x.grad is None
    norm.weight.requires_grad_(False)
    norm.zero_grad()
    norm(x.requires_grad_()).sum().backward()
    assert norm.weight.grad is None
    assert norm.bias.grad is not None


@each_case
def test_state_copies_and_pickles(case, rng):
    theirs, ours = pair(case, rng)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = normal(rng, case[3])
    ours(x)
    theirs.load_state_dict(ours.state_dict())
    for same in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(same) is type(ours)
        for a, e in zip(same.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, e)
        assert_close(same.eval()(x), theirs.eval()(x), torch.float32)


def test_far_from_zero(rng):
    """Where torch's float32 running variance is off by a multiple of itself."""
    x = normal(rng, (100_000, 4), torch.float32, 1e4)
    norm = nt.BatchNorm1d(4, momentum=1.0)
    norm(x)
    np.testing.assert_allclose(norm.running_var, x.double().var(0), rtol=1e-6)


def test_backends_are_chosen_as_everywhere(rng):
    x = normal(rng, (3, 5)).requires_grad_()
    with nn.use_backend("reference"):
        y = nt.LayerNorm(5)(x)
        y.sum().backward()
    assert_close(y, torch.nn.LayerNorm(5)(x), torch.float32)
