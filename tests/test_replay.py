"""Small calls that come often are played back: the same bits, the same errors, nothing kept of other arrays."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref

import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _recorder, _replay
from numbanorm._arrays import HOST
from numbanorm._script import Script

RANDOM = np.random.default_rng(20)
FORMS = {
    "layer_norm": lambda x, g, b, *r: nn.layer_norm(x, None, None),
    "layer_norm axes": lambda x, g, b, *r: nn.layer_norm(x, axis=(1, 2), eps=1e-3, eps_on="std"),
    "layer_norm channels": lambda x, g, b, *r: nn.layer_norm(x, g, b, axis=1, return_stats=True),
    "layer_norm shift": lambda x, g, b, *r: nn.layer_norm(x, beta=b, axis=1),
    "rms_norm": lambda x, g, b, *r: nn.rms_norm(x, g, axis=1),
    "batch_norm": lambda x, g, b, m, v: nn.batch_norm(x, g, b, m, v, training=True),
    "batch_norm stats": lambda x, g, b, m, v: nn.batch_norm(x, g, b, training=True, return_stats=True),
    "batch_norm eval": lambda x, g, b, m, v: nn.batch_norm(x, g, b, m, v, training=False),
    "batch_norm last": lambda x, g, b, *r: nn.batch_norm(x, training=True, channel_axis=-1),
    "group_norm": lambda x, g, b, *r: nn.group_norm(x, 3, g, b),
    "group_norm stats": lambda x, g, b, *r: nn.group_norm(x, 2, g, b, return_stats=True),
    "instance_norm": lambda x, g, b, *r: nn.instance_norm(x, g, b, return_stats=True),
    "mean": lambda x, *r: nn.mean(x, axis=(0, 2)),
    "var": lambda x, *r: nn.var(x, ddof=1),
    "std": lambda x, *r: nn.std(x, axis=-1, keepdims=True),
    "mean_var": lambda x, *r: nn.mean_var(x),
    "mean_var axis": lambda x, *r: nn.mean_var(x, 1, correction=1),
}
#: What NumPy finishes where nobody sees it.
SLOW = {"layer_norm channels", "layer_norm shift", "rms_norm"}


@pytest.fixture(autouse=True)
def _again(monkeypatch):
    """The second call is recorded, the third one played."""
    _replay.forget()
    monkeypatch.setattr(_replay, "OFTEN", 1)


def operands(dtype, shape=(4, 6, 35), seed=None):
    random = RANDOM if seed is None else np.random.default_rng(seed)
    x = (3 + random.standard_normal(shape)).astype(dtype)
    g, b, m, v = random.uniform(0.5, 2, (4, shape[1])).astype(np.float32)
    return x, g, b, m, v


def bits(result, arrays=()):
    results = result if isinstance(result, tuple) else (result,)
    return [(a.shape, a.dtype, a.tobytes()) for a in (*results, *arrays)]


def played():
    """How many kinds are played back."""
    return sum(getattr(met, "__name__", "") == "play" for known in _replay._memories for met in known.values())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_as_the_first_time(form, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    calls = [operands(dtype) for _ in range(5)]
    for arrays in calls:
        _replay.forget()
        again = [a.copy() for a in arrays]
        first = bits(FORMS[form](*again), again)
        for _ in range(2):
            FORMS[form](*operands(dtype))
        copies = [a.copy() for a in arrays]
        assert bits(FORMS[form](*copies), copies) == first
    assert bool(played()) == (form not in SLOW)


def test_arguments_may_be_one_array():
    x, g, b, *_ = operands("float32")
    expected = nn.group_norm(x, 2, g, g.copy())
    for _ in range(4):
        result = nn.group_norm(x, 2, g, g)
    np.testing.assert_array_equal(result, expected)
    with nn.use_backend("reference"):
        np.testing.assert_allclose(nn.group_norm(x, 2, g, b), nn.group_norm(x, 2, g, b), rtol=0)
    np.testing.assert_array_equal(nn.group_norm(x, 2, g, b), _fresh(lambda: nn.group_norm(x, 2, g, b)))


def _fresh(call):
    """The result of a first call."""
    _replay.forget()
    return call()


def test_each_result_has_memory_of_its_own():
    x = operands("float32")[0]
    results = [nn.layer_norm(x) for _ in range(6)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(results) for b in results[:i])


@pytest.mark.parametrize("lay", ["strided", "reversed", "fortran", "misaligned", "readonly", "swapped", "subclass"])
def test_other_layouts_of_the_same_shape(lay):
    x = operands("float32")[0]
    for _ in range(4):
        expected = nn.batch_norm(x, training=True)
    twin = {
        "strided": lambda: np.repeat(x, 2, -1)[..., ::2],
        "reversed": lambda: x[::-1].copy()[::-1],
        "fortran": lambda: np.asfortranarray(x),
        "misaligned": lambda: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
        "readonly": lambda: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
        "swapped": lambda: x.astype(">f4"),
        "subclass": lambda: x.view(np.memmap),
    }[lay]()
    for _ in range(4):
        np.testing.assert_allclose(nn.batch_norm(twin, training=True), expected, rtol=2e-6, atol=2e-6)


def test_errors_stay_errors():
    x, g, b, m, v = operands("float32")
    for _ in range(4):
        nn.batch_norm(x, g, b, m, v, training=True)
        nn.layer_norm(x, axis=1)
        nn.mean(x, nan_policy="raise")
    m.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        nn.batch_norm(x, g, b, m, v, training=True)
    with pytest.raises(ValueError, match="gamma"):
        nn.batch_norm(x, g[1:], b, m, v, training=True)
    with pytest.raises(TypeError):
        nn.layer_norm(x, axis=1.0)
    with pytest.raises(ValueError, match="NaN"):
        nn.mean(np.full_like(x, np.nan), nan_policy="raise")
    with pytest.raises(TypeError):
        nn.layer_norm(x.astype(int), axis=1)
    with pytest.raises(TypeError, match="unexpected"):
        nn.layer_norm(x, axes=1)


def test_warnings_come_each_time():
    x = np.ones((3, 1), np.float32)
    for _ in range(4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            nn.var(x, axis=1, ddof=1)
        assert any("Degrees of freedom" in str(warning.message) for warning in caught)


def test_out_is_written_each_time():
    x = operands("float32")[0]
    for _ in range(4):
        out = np.zeros_like(x)
        assert nn.layer_norm(x, out=out) is out
        assert out.any()


def test_masks_and_weights_are_looked_at_each_time():
    x = operands("float32")[0]
    for i in range(5):
        where = np.arange(x.shape[-1]) > i
        np.testing.assert_allclose(nn.mean(x, axis=-1, where=where), x[..., i + 1 :].mean(-1, dtype="f8"), rtol=1e-6)
        result = nn.layer_norm(x, lengths=(35, 30 - i, 1, 2), length_axis=2)
        assert not result[1, :, 30 - i :].any()
        assert result[1, :, 29 - i].all()
        nn.mean(x, weights=np.ones(35) * i if i else None)


def test_the_selected_backend_serves():
    x = operands("float32")[0]
    for _ in range(4):
        nn.layer_norm(x)
    with nn.use_backend("reference"):
        before = played()
        for _ in range(4):
            nn.layer_norm(x)
        assert played() == before


def test_layers_in_training_and_evaluation():
    layer, twin = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
    batches = [operands("float32", seed=i)[0] for i in range(6)]

    def results(layer, each):
        for i, x in enumerate(batches):
            each()
            yield (layer.train() if i < 4 else layer.eval())(x)

    for ours, expected in zip(list(results(layer, int)), list(results(twin, _replay.forget)), strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(layer.running_var, twin.running_var)


def test_a_recording_raises_nothing_of_its_own():
    nan = np.array([np.nan], np.float32)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            assert np.isnan(nn.var(nan, ddof=1))
        for _ in range(4):
            with pytest.raises(FloatingPointError):
                nn.var(np.ones(1, np.float32), ddof=1)


def test_warnings_name_the_line_that_called():
    one = np.ones((3, 1), np.float32)
    for _ in range(4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            nn.mean_var(one, axis=1, ddof=1)
        (of_freedom,) = (warning for warning in caught if "Degrees of freedom" in str(warning.message))
        assert of_freedom.filename == __file__


class Mine:
    """What becomes an array, and has a hash."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Tensor(Mine):
    """As torch's: the class knows of devices, this one is on the host."""

    is_cuda = False

    @property
    def __cuda_array_interface__(self):
        raise AttributeError


@pytest.mark.parametrize("kind", [Mine, Tensor])
def test_nothing_of_the_caller_is_kept(kind):
    x = operands("float32")[0]
    weak = []
    for _ in range(20):
        mine, mask = kind(np.ones(35, np.float32)), np.ones(35, bool)
        weak += weakref.ref(mine), weakref.ref(mask), weakref.ref(mine.array)
        nn.layer_norm(x, mine, where=mask)
        nn.layer_norm(x, mine.array)
    del mine, mask
    gc.collect()
    assert not [one for one in weak if one() is not None]


def test_types_inside_tuples_count():
    x = operands("float32")[0]
    layer = nn.BatchNorm1d(6)
    for _ in range(4):
        nn.layer_norm(x, axis=(1, 2))
        layer(x, where=True)
    with pytest.raises(TypeError):
        nn.layer_norm(x, axis=(1.0, 2.0))
    with pytest.raises(TypeError):
        layer(x, where=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_child_records_nothing_of_its_parents_threads():
    _recorder.recorders[0] = _recorder.Recorder(HOST, [])
    try:
        child = os.fork()
        if not child:
            os._exit(len(_recorder.recorders))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        del _recorder.recorders[0]


def test_kinds_are_bounded(monkeypatch):
    monkeypatch.setattr(_replay, "MANY", 8)
    for n in range(2, 40):
        for _ in range(3):
            nn.mean(np.ones(n))
    assert max(map(len, _replay._memories)) <= 8


def test_threads():
    x, g, b, *_ = operands("float32")
    expected = nn.group_norm(x, 2, g, b)
    wrong = []

    def work():
        for i in range(200):
            if i % 20 == 0:
                _replay.forget()
            if not np.array_equal(nn.group_norm(x, 2, g, b), expected):
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not _recorder.recorders


class Launch:
    """A kernel of two arrays, as a recorder sees it."""

    def __call__(self, source, target):
        _recorder.launched(self.run, source, target)
        self.run(source, target)

    @staticmethod
    def run(source, target):
        target[:] = 2 * source


def readonly(x):
    flat = x.ravel()
    flat.flags.writeable = False
    return flat


def honest(x):
    y = np.empty_like(x)
    Launch()(readonly(x), y.ravel())
    return y


def writes_unseen(x):
    y = honest(x)
    y += 1
    return y


def looks(x):
    y = np.empty_like(x)
    Launch()(readonly(x * x[0, 0]), y.ravel())
    return y


def keeps_number(x):
    y = np.empty_like(x)
    half = np.full(x.size, x[0, 0])
    half.flags.writeable = False
    Launch()(half, y.ravel())
    return y


def changes_argument(x):
    y = honest(x)
    x[0, 0] = 7
    return y


def returns_argument(x):
    honest(x)
    return x


def reads_fresh(x):
    y, other = np.empty_like(x), np.zeros(x.size)
    Launch()(readonly(other), y.ravel())
    return y


def part(x):
    y = np.zeros((2, *x.shape))
    Launch()(readonly(x), y[0].ravel())
    return y


@pytest.mark.parametrize(
    "function", [writes_unseen, looks, keeps_number, changes_argument, returns_argument, reads_fresh, part]
)
def test_what_is_not_accounted_for_is_not_played(function):
    x = RANDOM.uniform(1, 2, (3, 4))
    assert _replay.record(honest, (x,), {}, x).__name__ == "play"
    call = _replay.record(function, (x,), {}, x)
    assert call.__name__ == "called"
    np.testing.assert_array_equal(call((x.copy(),)), function(x.copy()))


def test_a_script_can_be_read(monkeypatch):
    scripts = []
    compiled = Script.compiled
    monkeypatch.setattr(Script, "compiled", lambda self: scripts.append(self.lines) or compiled(self))
    _replay.record(honest, (x := np.ones((3, 4)),), {}, x)
    assert scripts[0] == [
        "def play(values, empty=empty):",
        "a0, = values",
        "a1 = empty((3, 4), d1)",
        "v0 = a0.ravel()",
        "v0.setflags(False)",
        "v1 = a1.ravel()",
        "run2(v0, v1)",
        "return a1",
    ]
