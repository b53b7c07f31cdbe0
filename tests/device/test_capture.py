"""Calls that are captured into a graph: nothing that its replays write to serves anything else."""

import threading
import weakref
from types import SimpleNamespace

import cupy as cp
import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _capture
from numbanorm._device import Device
from tests.device.test_norms import BETA, GAMMA, MEAN, VAR

#: name -> (call(array, x), number of results that it makes): something is converted, gathered or taken twice.
CALLS = {
    "gamma of another dtype": (lambda array, x: nn.layer_norm(array(x), array(GAMMA.astype("f8"))), 1),
    "x with gaps": (lambda array, x: nn.var(array(np.repeat(x, 2, 0))[::2], 1), 1),
    "out of another dtype": (lambda array, x: nn.layer_norm(array(x), out=array(x.astype("f8"))), 0),
    "no fused launcher": (lambda array, x: nn.layer_norm(array(x), axis=0), 1),
    "evaluation": (
        lambda array, x: nn.batch_norm(*map(array, (x, GAMMA, BETA, MEAN, VAR.astype("f8"))), training=False),
        1,
    ),
    "masked statistics": (lambda array, x: nn.mean_var(array(x), 0, where=array(x > 0)), 2),
    "with statistics": (lambda array, x: nn.batch_norm(array(x), training=True, return_stats=True), 3),
}


@pytest.fixture
def taken(place):
    """Weak references to all memory that was taken; a capture begins when ``captures`` is set."""
    if place.name == "cuda":
        pytest.skip("tests/device/test_real.py replays graphs")
    references = []
    allocate = cp.cuda.get_allocator()

    def recorded(n_bytes):
        pointer = allocate(n_bytes)
        references.append(weakref.ref(pointer.mem))
        return pointer

    cp.cuda.set_allocator(recorded)
    kept = len(_capture._kept)
    yield references
    place.device.captures = False
    del _capture._kept[kept:]


@pytest.mark.parametrize(("call", "n_results"), CALLS.values(), ids=CALLS)
def test_memory_is_kept(place, taken, call, n_results, rng):
    x = rng.standard_normal((6, 4)).astype("f4")
    made = {}

    def array(values):
        """The same array in both calls, as in a graph."""
        key = values.dtype, values.shape, values.tobytes()
        if key not in made:
            made[key] = place.array(values)
        return made[key]

    call(array, x)
    taken.clear()
    call(array, x)
    eager = len(taken)
    assert not any(reference() for reference in taken), "an eager call gives back what it took"
    taken.clear()
    place.device.captures = True
    result = call(array, x)
    place.device.captures = False
    assert len(taken) == eager
    assert all(reference() for reference in taken)
    del result
    assert [reference() for reference in taken].count(None) == n_results < len(taken)


def test_results_are_the_callers(place, taken):
    place.device.captures = False
    x = place.array(np.ones((6, 4), "f4"))
    nn.layer_norm(x)
    before = len(_capture._kept)
    place.device.captures = True
    y = nn.layer_norm(x)
    assert len(_capture._kept) == before
    assert taken[-1]() is y.data.mem


def test_a_first_call_cannot_be_captured(place, taken):
    x = place.array(np.ones((6, 4), "f4"))
    place.device.captures = True
    with pytest.raises(RuntimeError, match="cannot copy between host and device: make the same call once before"):
        nn.layer_norm(x)
    with pytest.raises(RuntimeError, match="cannot copy between host and device"):
        nn.BatchNorm1d(4).to("cuda")


@pytest.mark.parametrize(("handle", "recording", "expected"), [(0, True, False), (2, True, True), (7, False, False)])
def test_which_streams_are_asked(monkeypatch, handle, recording, expected):
    """The null stream cannot be captured, and some drivers mind the question."""
    asked = []
    stream = SimpleNamespace(ptr=handle, is_capturing=lambda: asked.append(1) or recording)
    monkeypatch.setattr(cp.cuda, "get_current_stream", lambda: stream)
    assert Device().capturing() is expected
    assert len(asked) == (handle > 1)


def test_what_launches_depend_on(monkeypatch):
    """Device, stream and thread, which is another one even where it has the number of one that ended."""
    stream = SimpleNamespace(ptr=7, is_capturing=lambda: stream.captured, captured=False)
    monkeypatch.setattr(cp.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(cp.cuda.runtime, "getDevice", lambda: 3)
    device = Device()
    assert device.context() == device.context()
    assert device.context()[:2] == (3, 7)
    others = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: others.append(device.context()))
        thread.start()
        thread.join()
    assert len({device.context(), *others}) == 4
    stream.captured = True
    assert device.context() is None
