"""Modules in torch against torch's own."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import numbanorm as nn  # noqa: E402
from tests.torch.norms import CASES, assert_close, each_case, normal, nt, pair, step  # noqa: E402

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _mixed_dtypes_are_no_surprise():
    """torch warns where x and its parameters differ in dtype, because its fused kernel cannot take that."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        yield


@pytest.fixture
def calls(monkeypatch):
    """The norms that our kernels were called for."""
    from numbanorm.torch import modules

    seen = []
    inner = modules.normalize
    monkeypatch.setattr(modules, "normalize", lambda call, *a: (seen.append(type(call).__name__), inner(call, *a))[1])
    return seen


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
        assert y.stride() == dx.stride() == last.stride()
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


ERRORS = {
    "one value per channel": ("BatchNorm1d", (3,), (1, 3)),
    "rank of a batch": ("BatchNorm1d", (3,), (3,)),
    "rank of images": ("BatchNorm2d", (3,), (2, 3, 4)),
    "channels": ("BatchNorm1d", (4,), (2, 3)),
    "last axes": ("LayerNorm", (4,), (2, 3)),
    "last axes of RMS": ("RMSNorm", (4,), (2, 3)),
    "channels of groups": ("GroupNorm", (2, 4), (2, 6)),
    "rank of groups": ("GroupNorm", (2, 4), (4,)),
    "one value per group": ("GroupNorm", (4, 4), (1, 4)),
    "one spatial element": ("InstanceNorm1d", (3,), (2, 3, 1)),
    "rank of instances": ("InstanceNorm2d", (3,), (2, 3)),
    "channels of instances": ("InstanceNorm1d", (4, 1e-5, 0.1, True), (2, 3, 5)),
}


@pytest.mark.parametrize(("name", "arguments", "shape"), ERRORS.values(), ids=ERRORS)
def test_errors_are_torchs(name, arguments, shape):
    messages = []
    for module in (torch.nn, nt):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            getattr(module, name)(*arguments)(torch.zeros(shape))
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_is_not_ours_is_torchs(calls, rng):
    """Meta and fake tensors, transforms, dispatch modes, traces, tensors of other kinds, nothing at all."""
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    norm, x = nt.LayerNorm(5), normal(rng, (3, 5))
    expected = torch.nn.LayerNorm(5)(x)
    assert nt.LayerNorm(5, device="meta")(torch.empty(3, 5, device="meta")).is_meta
    assert norm(torch.empty(0, 5)).shape == (0, 5)
    assert_close(torch.func.vmap(norm)(x), expected, torch.float32)
    assert torch.func.jvp(norm, (x,), (torch.ones_like(x),))[1].abs().max() < 1e-4
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        assert torch.autograd.forward_ad.unpack_dual(norm(dual)).tangent is not None
    with FlopCounterMode(display=False):
        norm(x)
    traced = torch.jit.trace(nt.BatchNorm1d(5).eval(), x, check_trace=False)
    assert_close(traced(x), torch.nn.BatchNorm1d(5).eval()(x), torch.float32)
    with FakeTensorMode() as fake:
        assert nt.LayerNorm(5)(fake.from_tensor(x)).shape == (3, 5)
    negated = torch.complex(x, -x).conj().imag  # a view whose numbers are not those in memory
    assert negated.is_neg()
    assert_close(norm(negated), expected, torch.float32)
    bn = nt.BatchNorm1d(4)
    with pytest.raises(NotImplementedError, match="not implemented for"):
        bn.eval()(torch.ones(2, 4, dtype=torch.int64).to(torch.complex64).real.to(torch.int32))
    assert calls == []
    norm(x)
    assert calls == ["LayerCall"]


def test_a_compiled_model_is_torchs(calls, rng):
    norm, x = nt.LayerNorm(5), normal(rng, (3, 5))
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    assert_close(compiled(x), torch.nn.LayerNorm(5)(x), torch.float32)
    assert torch.export.export(norm, (x,)).module()(x).shape == x.shape
    assert calls == []


def test_checkpointing_and_inference_mode(rng):
    norm, x = nt.GroupNorm(2, 6), normal(rng, (3, 6, 4)).requires_grad_()
    expected = step(norm, x, torch.ones_like(x))
    for reentrant in (True, False):
        x.grad = None
        torch.utils.checkpoint.checkpoint(norm, x, use_reentrant=reentrant).sum().backward()
        assert_close(x.grad, expected[1], torch.float32)
    with torch.inference_mode():
        assert norm(x).is_inference()


def test_a_traced_graph_takes_our_norms(calls, rng):
    model = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6)))
    x = normal(rng, (3, 5))
    expected = model(x)
    assert_close(nt.replace_norms(model)(x), expected, torch.float32)
    assert calls == ["BatchCall"]


def test_autocast_leaves_dtypes_as_they_are(rng):
    pytest.importorskip("ml_dtypes")
    norm, linear, x = nt.LayerNorm(8), torch.nn.Linear(8, 8), normal(rng, (3, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(x).dtype == torch.float32
        y = norm(linear(x))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert norm.weight.grad.dtype == torch.float32


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


def test_a_missing_torch_is_said():
    code = "import sys; sys.modules['torch'] = None; import numbanorm; import numbanorm.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: numbanorm.torch needs torch" in done.stderr
    assert "pip install 'numbanorm[torch]'" in done.stderr
