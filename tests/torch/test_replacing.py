"""Norms of whole models, replaced in place."""

import copy

import pytest

torch = pytest.importorskip("torch")

from tests.torch.norms import assert_close, normal, nt  # noqa: E402


def cnn():
    torch.manual_seed(0)
    shared = torch.nn.BatchNorm2d(8)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        shared,
        torch.nn.ReLU(inplace=True),
        torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), shared, torch.nn.GroupNorm(2, 8)),
        torch.nn.InstanceNorm2d(8, affine=True),
        torch.nn.Flatten(),
        torch.nn.LazyBatchNorm1d(),
        torch.nn.LazyLinear(4),
    )


def losses(model, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(steps):
        x = torch.randn(6, 3, 8, 8, generator=generator)
        labels = torch.randint(4, (6,), generator=generator)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_network_trains_as_before(channels_last):
    model = cnn()
    model(torch.zeros(2, 3, 8, 8))
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    ours = copy.deepcopy(model)
    # Before the replacement, as it may come late in a program.
    optimizers = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, ours)]
    assert nt.replace_norms(ours) is ours
    torch.testing.assert_close(losses(ours, optimizers[1]), losses(model, optimizers[0]), rtol=1e-4, atol=1e-4)
    for (key, a), e in zip(ours.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4, msg=key)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours.eval()(x), model.eval()(x), rtol=1e-3, atol=1e-3)


def test_only_classes_change():
    model = cnn().train()
    model[4].eval()
    model[4].weight.requires_grad_(False)
    seen = []
    model[4].register_forward_hook(lambda module, *_: seen.append(module))
    before = {name: (id(m), m.training, vars(m).copy()) for name, m in model.named_modules(remove_duplicate=False)}
    tensors = list(map(id, (*model.parameters(), *model.buffers())))
    nt.replace_norms(model)
    after = {name: (id(m), m.training, vars(m).copy()) for name, m in model.named_modules(remove_duplicate=False)}
    assert after == before
    assert list(map(id, (*model.parameters(), *model.buffers()))) == tensors
    assert model[1] is model[3][1]
    ours = [name for name, m in model.named_modules() if type(m).__module__.startswith("numbanorm")]
    assert ours == ["1", "3.2", "4"]  # not the lazy one
    model(torch.zeros(2, 3, 8, 8))
    assert seen == [model[4]]
    nt.replace_norms(model)
    assert type(model[6]) is nt.BatchNorm1d  # which knows its features by now


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_transformer_layer(norm_first, rng):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first)
    ours = nt.replace_norms(copy.deepcopy(layer))
    assert {type(ours.norm1), type(ours.norm2)} == {nt.LayerNorm}
    x = normal(rng, (2, 7, 16))
    results = []
    for model in (layer, ours):
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        y.square().sum().backward()
        results.append([y, leaf.grad, *(p.grad for p in model.parameters())])
    for a, e in zip(*results, strict=True):
        assert_close(a, e, torch.float32, 30.0)
    with torch.no_grad():  # torch's fused kernel for evaluation, and the layer itself
        expected = layer.eval()(x)
        assert_close(ours.eval()(x), expected, torch.float32)
        enabled = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        assert_close(ours(x), expected, torch.float32)
        torch.backends.mha.set_fastpath_enabled(enabled)


def test_what_is_left_alone_and_what_is_refused():
    class Own(torch.nn.LayerNorm):
        pass

    sync, own = torch.nn.SyncBatchNorm(3), Own(3)
    nt.replace_norms(torch.nn.ModuleList([sync, own]))
    assert type(sync) is torch.nn.SyncBatchNorm
    assert type(own) is Own
    root = torch.nn.RMSNorm(3)
    assert nt.replace_norms(root) is root
    assert type(root) is nt.RMSNorm
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(nt.BatchNorm2d(3))
    assert type(converted) is torch.nn.SyncBatchNorm
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, but got dict"):
        nt.replace_norms({})
