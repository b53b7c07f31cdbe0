"""The examples run, and show what they are about."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _as_scripts(monkeypatch):
    """The examples find one another as they do when Python runs them."""
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))


def load(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture
def digits():
    return load("digits")


@pytest.mark.parametrize("normalized", [False, True])
def test_the_gradient_of_the_network(digits, normalized, rng):
    """Along a random direction of all parameters, in float64."""
    layers = digits["network"](0, normalized)
    for layer, name, array in digits["parameters"](layers):
        setattr(layer, name, array.astype("f8"))
    x, labels = rng.random((6, 8, 8, 1)), rng.integers(0, 10, 6)
    digits["train_on"](layers, x, labels)
    arrays = [(array, layer.grad[name].copy()) for layer, name, array in digits["parameters"](layers)]
    directions = [rng.standard_normal(array.shape) for array, _ in arrays]
    losses = []
    for sign in (1, -2):
        for (array, _), direction in zip(arrays, directions, strict=True):
            array += sign * 1e-6 * direction
        losses.append(digits["train_on"](layers, x, labels))
    slope = sum((gradient * d).sum() for (_, gradient), d in zip(arrays, directions, strict=True))
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope, rel=1e-4)


@pytest.mark.compiled
def test_batch_norm_trains_faster(digits, tmp_path, capsys):
    picture = tmp_path / "digits.png"
    curves = digits["main"](["--epochs", "2", "--seeds", "2", "--optimizers", "sgd", "--png", str(picture)])
    without, with_norm = (curves["sgd", normalized][:, -1].mean(0) for normalized in (False, True))
    assert np.all(with_norm > without)
    assert picture.stat().st_size > 1000
    assert "6090 without, 6186 with batch norm" in capsys.readouterr().out


def test_losses_in_torch_are_the_same_with_our_norms(capsys):
    pytest.importorskip("torch")
    for options in ([], ["--channels-last", "--optimizer", "adam"]):
        assert load("digits_torch")["main"](["--epochs", "1", *options]) < 1e-4
    assert "at most" in capsys.readouterr().out


@pytest.fixture
def rnn():
    return load("rnn")


def in_float64(network):
    """Replaces every array of the network, which the norm of its cell shares."""
    for layer in network.layers:
        for name in ("weight", "bias", "gamma", "beta"):
            array = getattr(layer, name, None)
            if array is not None:
                setattr(layer, name, array.astype("f8"))
    cell = network.cell
    if cell.norm:
        cell.norm.gamma, cell.norm.beta = cell.gamma, cell.beta
    return network


@pytest.mark.parametrize("normalized", [False, True])
def test_the_gradient_through_time(rnn, normalized, rng):
    """Along random directions of each parameter, in float64."""
    network = in_float64(rnn["Network"](0, normalized))
    batch = rnn["batch_of"](rng, 7)
    for layer in network.layers:
        for name in ("weight", "bias", "gamma", "beta"):
            array = getattr(layer, name, None)
            if array is None:
                continue
            rnn["train_on"](network, *batch)
            direction = rng.standard_normal(array.shape)
            slope = (layer.grad[name] * direction).sum()
            losses = []
            for sign in (1, -2, 1):
                array += sign * 1e-6 * direction
                losses.append(rnn["train_on"](network, *batch))
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_padding_changes_nothing(rnn, rng):
    """Neither what it holds nor how long it is."""
    network = in_float64(rnn["Network"](0, True))
    x, mask, parity = rnn["batch_of"](rng, 7)
    loss = rnn["train_on"](network, x, mask, parity)
    gradient = network.cell.grad["weight"]
    longer = np.concatenate([np.where(mask, x, 9), np.full((3, 7, 1), 9, "f4")])
    more = np.concatenate([mask, np.zeros((3, 7, 1), bool)]), np.concatenate([parity, np.ones((3, 7), int)])
    assert rnn["train_on"](network, longer, *more) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(network.cell.grad["weight"], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.compiled
def test_the_recurrent_network_learns(rnn, tmp_path, capsys):
    picture = tmp_path / "rnn.png"
    arguments = ["--epochs", "4", "--seeds", "1", "--rates", "0.01", "--png", str(picture)]
    curves = rnn["main"](arguments)
    assert all(runs[0, -1] > 55 for runs in curves.values())  # 50 by chance, give or take 0.7
    assert picture.stat().st_size > 1000
    assert "layer norm" in capsys.readouterr().out
