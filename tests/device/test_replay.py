"""Calls on a device that come often are played back: the same launches, on other addresses."""

import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _arrays, _recorder, _replay
from numbanorm._script import Script
from tests.device.test_norms import NORMS, operands

pytestmark = pytest.mark.compiled
SHAPE = (3, 4, 2, 5)
STATISTICS = {
    "mean_var": lambda x, *_: nn.mean_var(x, axis=(0, 2, 3)),
    "var of all": lambda x, *_: nn.var(x),
    "with statistics": lambda x, *_: nn.layer_norm(x, return_stats=True),
}


@pytest.fixture(autouse=True)
def _again(monkeypatch):
    """The second call is recorded, the third one played."""
    _replay.forget()
    monkeypatch.setattr(_replay, "OFTEN", 1)
    yield
    _replay.forget()


def played():
    return sum(getattr(met, "__name__", "") == "play" for known in _replay._memories for met in known.values())


def bits(place, *results):
    flat = [one for result in results for one in (result if isinstance(result, tuple) else (result,))]
    return [(one.shape, one.dtype, place.numpy(one).tobytes()) for one in flat]


@pytest.mark.parametrize("call", [*NORMS.values(), *STATISTICS.values()], ids=[*NORMS, *STATISTICS])
def test_the_same_bits_as_the_first_time(launching, call, rng):
    batches = [(rng.standard_normal(SHAPE) + 3).astype("f4") for _ in range(4)]

    def results(each):
        for x in batches:
            each()
            parameters = operands(launching.array)
            yield bits(launching, call(launching.array(x), *parameters), *parameters)

    again = list(results(int))
    assert again == list(results(_replay.forget))


def test_the_common_calls_are_played_back(launching, rng):
    x = launching.array(rng.standard_normal((4, 8)).astype("f4"))
    g, b, m, v = (launching.array(np.full(8, i + 1.0, np.float32)) for i in range(4))
    calls = {
        "layer_norm": lambda: nn.layer_norm(x, g, b),
        "rms_norm": lambda: nn.rms_norm(x, g),
        "group_norm": lambda: nn.group_norm(x, 2, g, b),
        "training": lambda: nn.batch_norm(x, g, b, m, v, training=True),
        "evaluation": lambda: nn.batch_norm(x, g, b, m, v, training=False),
        "mean_var": lambda: nn.mean_var(x, axis=0),
        "var": lambda: nn.var(x),
    }
    for name, call in calls.items():
        _replay.forget()
        for _ in range(3):
            call()
        assert played(), name


def test_addresses_and_places_make_a_kind(launching, rng):
    values = rng.standard_normal((3, 8)).astype("f4")
    x = launching.array(values)
    for _ in range(4):
        expected = launching.numpy(nn.layer_norm(x))
    before = played()
    shifted = launching.array(np.pad(values.reshape(-1), (1, 0)))[1:].reshape(3, 8)
    assert shifted.data.ptr % 16 == 4
    np.testing.assert_allclose(launching.numpy(nn.layer_norm(shifted)), expected, rtol=1e-6, atol=1e-6)
    turned = launching.array(np.asfortranarray(values))
    np.testing.assert_allclose(launching.numpy(nn.layer_norm(turned)), expected, rtol=1e-6, atol=1e-6)
    assert played() == before


def test_nothing_is_played_or_recorded_while_a_graph_is(emulated, monkeypatch):
    x = emulated.array(np.ones((3, 8), np.float32))
    for _ in range(4):
        nn.layer_norm(x)
    seen = []
    for known in _replay._memories:
        for kind, met in known.items():
            known[kind] = lambda values, met=met: seen.append(1) or met(values)
    nn.layer_norm(x)
    assert seen
    seen.clear()
    monkeypatch.setattr(emulated.device, "captures", True)
    monkeypatch.setattr("numbanorm._guests.called", lambda function, args, kwargs: function(*args, **kwargs))
    nn.layer_norm(x)
    assert not seen


def test_large_arrays_are_not_recorded(launching, monkeypatch):
    monkeypatch.setattr("numbanorm._replay.LARGEST_ON_DEVICE", 64)
    x = launching.array(np.ones((3, 8), np.float32))
    for _ in range(4):
        nn.layer_norm(x)
    assert not played()


def test_a_launch_gets_addresses(emulated, monkeypatch):
    """As `_jit.run` tells it: everything is bound but the addresses of what may change."""
    launches = []
    x, y = (emulated.array(np.arange(4, dtype="f4")) for _ in range(2))
    constant = emulated.array(np.ones(1, np.float32))

    def function(x):
        out = _arrays.device().empty(x.shape, x.dtype)
        _recorder.launched(lambda *args: launches.append(args), "stream", x, constant, out, np.int32(7), by=".data.ptr")
        return out

    recorder = _recorder.recorders[_recorder.get_ident()] = _recorder.Recorder(_arrays.device(), [x])
    try:
        result = function(x)
    finally:
        _recorder.recorders.clear()
    script = Script(recorder, _arrays.device().fresh(0), ["a0"], result, [1])
    out = script.compiled()((y,))
    assert launches[-1][:4] == ("stream", y.data.ptr, constant.data.ptr, out.data.ptr)
    assert out.shape == y.shape
