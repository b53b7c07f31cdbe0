"""Modules among the rest of torch: its errors, tracers, transforms, modes, and its absence."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from tests.torch.norms import assert_close, normal, nt, step  # noqa: E402

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


def test_a_missing_torch_is_said():
    code = "import sys; sys.modules['torch'] = None; import numbanorm; import numbanorm.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: numbanorm.torch needs torch" in done.stderr
    assert "pip install 'numbanorm[torch]'" in done.stderr
