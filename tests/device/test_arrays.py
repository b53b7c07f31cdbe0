"""Which arrays meet which backend, arrays of other libraries, and NumPy's on the device."""

import sys
from types import ModuleType, SimpleNamespace

import cupy as cp
import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _arrays, _backend, _guests
from tests.oracle import assert_normalized

X = np.random.default_rng(3).standard_normal((6, 4)).astype("f4") * 2 + 1


class Guest:
    """Another library's device array, which has nothing but an interface."""

    def __init__(self, array, stream=None):
        self.array, self.stream = array, stream
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    @property
    def __cuda_array_interface__(self):
        face = {"shape": self.array.shape, "typestr": self.array.dtype.str, "version": 3, "stream": self.stream}
        strides = None if self.array.flags.c_contiguous else self.array.strides
        return {**face, "strides": strides, "data": (self.array.data.ptr, False)}


class Exporter:
    """One that has DLPack only."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, stream=None):
        raise AssertionError("CuPy asks, which is replaced where there is no device")


@pytest.fixture
def guests(place, monkeypatch):
    """A place, and where results for guests are made."""
    if place.name == "cuda":
        pytest.skip("these stand in for other libraries")
    monkeypatch.setitem(_guests.EXPORTS, "tests", Guest)
    monkeypatch.setattr(cp, "from_dlpack", lambda exporter: exporter.array)
    # Memory of others is not asked for its device where there is no driver.
    monkeypatch.setattr(_guests, "_ordinal", lambda array: place.device.ordinal)
    return place


def test_auto_means_the_device_of_the_array(place):
    assert nn.get_backend(place.array(X)).name == "cuda"
    assert nn.get_backend(X).name == nn.get_backend().name == "cpu"
    for name in ("cpu", "reference"):
        with (
            nn.use_backend(name),
            pytest.raises(TypeError, match=rf"the {name} backend takes host arrays, but got cupy"),
        ):
            nn.mean(place.array(X))


def test_the_configuration_names_the_devices(place):
    facts = nn.show_config("dict")
    assert "cuda" in facts["available"]
    assert facts["devices"]
    with nn.use_backend("cuda"):
        assert nn.show_config("dict")["backend"] == "cuda"


def test_mixtures_are_named(place):
    x, p = place.array(X), np.ones(4, "f4")
    for call, text in (
        (lambda: nn.layer_norm(x, p), r"x \(cupy.ndarray\) is on the device, gamma \(numpy.ndarray\) is on the host"),
        (lambda: nn.layer_norm(X, place.array(p)), r"x \(numpy.ndarray\) is on the host, gamma \(cupy.ndarray\)"),
        (lambda: nn.layer_norm(x, out=X.copy()), r"out \(numpy.ndarray\) is on the host"),
        (lambda: nn.layer_norm(x, [1, 2, 3, 4]), r"gamma \(builtins.list\) is on the host"),
        (lambda: nn.batch_norm(x, None, None, p, p.copy(), training=True), r"running_var \(numpy.ndarray\)"),
        (lambda: nn.get_backend(x, X), "argument 0 .* on the device, argument 1 .* on the host"),
    ):
        with pytest.raises(TypeError, match=text):
            call()


def test_two_devices_do_not_mix(place):
    if place.name == "cuda":
        pytest.skip("needs two")
    x, gamma = place.array(X), place.array_on(1, np.ones(4, "f4"))
    with pytest.raises(ValueError, match="different devices do not mix: x is on device 0, gamma is on device 1"):
        nn.layer_norm(x, gamma)


def test_work_is_done_where_x_lives(place, monkeypatch):
    if place.name == "cuda":
        pytest.skip("needs two")
    x = place.array_on(3, X)
    seen = []
    monkeypatch.setattr(_backend.load_backend("cuda"), "norm_rows", lambda *_: seen.append(place.device.current()))
    nn.layer_norm(x)
    assert seen == [3]
    assert place.device.current() == 0


def test_bad_arguments_are_told_as_on_the_host(place):
    x = place.array(X)
    for call, error, text in (
        (lambda: nn.layer_norm(place.array(X.astype(int))), TypeError, "needs floating point"),
        (lambda: nn.layer_norm(x, place.array(np.ones(3, "f4"))), ValueError, "gamma should have shape"),
        (lambda: nn.layer_norm(x, eps=-1), ValueError, "must be non-negative"),
        (lambda: nn.layer_norm(x, out=place.array(X[:2])), ValueError, "out should have shape"),
        (lambda: nn.mean(place.array(X.astype(complex))), TypeError, "complex"),
        (lambda: nn.batch_norm(x, training=False), ValueError, "needs running_mean"),
        (lambda: nn.mean(x, axis=2), np.exceptions.AxisError, "out of bounds"),
    ):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("layout", ["C", "F", "sliced", "reversed"])
def test_guests_leave_as_what_they_were(guests, layout):
    values = {"C": X, "F": np.asfortranarray(X), "sliced": X[::2, 1:], "reversed": X[::-1, ::-1]}[layout]
    gamma = np.ones(values.shape[1], "f4")
    y = nn.layer_norm(Guest(guests.array(values)), Guest(guests.array(gamma)))
    assert type(y) is Guest
    assert_normalized(guests.numpy(y.array), nn.layer_norm(values, gamma).astype("f8"))
    y, mean, rstd = nn.layer_norm(Guest(guests.array(values)), return_stats=True)
    assert type(y) is type(mean) is type(rstd) is Guest
    result = nn.mean_var(x=Guest(guests.array(values)), axis=0)
    assert type(result) is nn.MeanVar
    assert type(result.mean) is Guest
    assert type(nn.var(Exporter(guests.array(values)))) is Guest
    assert nn.moments(Guest(guests.array(values)), 0).shape == gamma.shape
    lengths = np.arange(len(values)) % values.shape[1]
    for given in (lengths, Guest(guests.array(lengths))):
        np.testing.assert_array_equal(
            guests.numpy(nn.moments(Guest(guests.array(values)), 1, lengths=given).count), lengths
        )


def test_empty_guests(guests):
    y = nn.layer_norm(Guest(guests.array(np.empty((0, 4), "f4"))))
    assert type(y) is Guest
    assert y.shape == (0, 4)


def test_guests_are_written_in_place(guests):
    x, out = Guest(guests.array(X)), Guest(guests.array(np.zeros_like(X)))
    assert nn.layer_norm(x, out=out) is out
    assert_normalized(guests.numpy(out.array), nn.layer_norm(X).astype("f8"))
    assert nn.rms_norm(x, out=x) is x
    outs = Guest(guests.array(np.zeros(4, "f4"))), Guest(guests.array(np.zeros(4, "f4")))
    assert nn.mean_var(Guest(guests.array(X)), 0, out=outs) == outs
    np.testing.assert_allclose(guests.numpy(outs[1].array), X.var(0), rtol=1e-5)
    mean, var = Guest(guests.array(np.zeros(4, "f4"))), Guest(guests.array(np.ones(4, "f4")))
    nn.batch_norm(Guest(guests.array(X)), None, None, mean, var, training=True)
    np.testing.assert_allclose(guests.numpy(mean.array), 0.1 * X.mean(0), rtol=1e-5)


def test_guests_meet_layers(guests):
    layer, host = nn.BatchNorm1d(4).to("cuda"), nn.BatchNorm1d(4)
    assert type(layer(Guest(guests.array(X)))) is Guest
    host(X)
    np.testing.assert_allclose(layer.state_dict()["running_var"], host.running_var, rtol=1e-5)
    one = nn.InstanceNorm1d(4)(Guest(guests.array(X.T.copy())))
    assert type(one) is Guest
    host.load_state_dict({k: Guest(guests.array(np.asarray(v))) for k, v in layer.state_dict().items()})
    with pytest.raises(TypeError, match=r"x \(tests.device.test_arrays.Guest\) is on the device, gamma \(numpy"):
        nn.layer_norm(Guest(guests.array(X)), np.ones(4))


def test_a_guest_says_on_which_stream(guests):
    nn.layer_norm(Guest(guests.array(X), stream=77))
    assert guests.device.streams == [77]


def test_bfloat16_guests(guests):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = guests.array(X.astype(ml_dtypes.bfloat16))
    assert x.dtype.str[1:] == "V2"
    assert nn.layer_norm(Guest(x)).dtype == ml_dtypes.bfloat16


def test_torch_results_go_by_dlpack(guests, monkeypatch):
    """With a stand-in for torch: its stream, and bfloat16 as bits."""

    class Tensor(Guest):
        is_cuda, device = True, "cuda:0"

        def view(self, dtype):
            return ("view", dtype)

    Tensor.__module__ = "torch"
    torch = ModuleType("torch")
    stream = SimpleNamespace(cuda_stream=5)
    torch.Tensor, torch.bfloat16, torch.from_dlpack = Tensor, "bfloat16", Tensor
    torch.cuda = SimpleNamespace(current_stream=lambda device: stream)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert type(nn.layer_norm(Tensor(guests.array(X)))) is Tensor
    assert guests.device.streams == [5]
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert nn.layer_norm(Tensor(guests.array(X.astype(ml_dtypes.bfloat16)))) == ("view", "bfloat16")
    on_host = Tensor(guests.array(X))
    on_host.is_cuda = False
    assert not _arrays.is_device_array(on_host)


@pytest.fixture
def selected(place):
    """NumPy's arrays run on the device."""
    with nn.use_backend("cuda"):
        yield place


def test_numpy_arrays_through_the_device(selected, rng):
    assert nn.get_backend().name == nn.get_backend(X).name == "cuda"
    gamma = rng.standard_normal(4).astype("f4")
    images = rng.standard_normal((3, 4, 5, 2)).astype("f4")
    for call in (
        lambda: nn.layer_norm(X, gamma, return_stats=True),
        lambda: nn.layer_norm(X[::-1, ::2]),
        lambda: nn.batch_norm(images, gamma, training=True, return_stats=True),
        lambda: nn.standardize(images, (0, 2), gamma=gamma[:, None, None]),
        lambda: nn.layer_norm(images, gamma, axis=1),
        lambda: nn.mean_var(X, 0),
        lambda: nn.mean_var(images, (0, 2, 3)),
        lambda: nn.var(X),
        lambda: nn.mean(np.arange(12).reshape(3, 4), 0),
        lambda: nn.var(X, where=X > 0),
        lambda: nn.group_norm(images, 2, gamma),
    ):
        actual = call()
        with nn.use_backend("cpu"):
            expected = call()
        assert type(actual) is type(expected)
        pairs = zip(actual, expected, strict=True) if isinstance(actual, tuple) else [(actual, expected)]
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            assert ours.strides == theirs.strides
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def test_numpy_arrays_are_updated_in_place(selected):
    x = X.copy()
    mean, var = np.zeros(4), np.ones(4, "f4")
    assert nn.batch_norm(x, None, None, mean, var, training=True, out=x) is x
    assert_normalized(x, ((X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5)).astype("f8"))
    np.testing.assert_allclose(mean, 0.1 * X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, 0.9 + 0.1 * X.var(0, ddof=1), rtol=1e-5)
    nn.batch_norm(X, None, None, mean, None, training=True)
    locked = np.zeros(4)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        nn.batch_norm(X, None, None, locked, var, training=True)
    layer = nn.BatchNorm1d(4)
    layer(X)
    assert isinstance(layer.running_mean, np.ndarray)
    assert layer.running_mean.any()
    with pytest.raises(TypeError, match="MaskedArray"):
        nn.mean(np.ma.masked_array(X))
    with pytest.raises(AttributeError, match="no launcher"):
        nn.get_backend().nothing  # noqa: B018


def test_moments_of_numpy_arrays_stay_numpys(selected):
    m = nn.moments(X, 0) + nn.moments(X, 0)
    assert isinstance(m.mean, np.ndarray)
    np.testing.assert_allclose(m.mean, X.mean(0), rtol=1e-5)
