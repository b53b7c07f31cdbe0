"""The examples run, and show what they are about."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    return runpy.run_path(str(EXAMPLES / "digits.py"))


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
