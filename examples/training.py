"""What the examples share: a linear layer, cross entropy, optimisers, and a picture of curves.

Layers are objects with ``weight``, ``bias``, ``gamma`` or ``beta`` and, after ``backward``, a
dictionary ``grad`` with the same names: numbanorm's layers, and those written out here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def positive(text: str) -> int:
    """A number of epochs or seeds, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


class Linear:
    """y = x @ weight + bias on the flattened rest of x."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weight = (rng.standard_normal((inputs, outputs)) * (1 / inputs) ** 0.5).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.grad: dict[str, Array] = {}

    def __call__(self, x: Array) -> Array:
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.weight + self.bias

    def backward(self, dy: Array) -> Array:
        self.grad = {"weight": self.x.T @ dy, "bias": dy.sum(0)}
        return (dy @ self.weight.T).reshape(self.shape)


def parameters(layers: list[Any]) -> Iterator[tuple[Any, str, Array]]:
    """(layer, name, array) of all that is learnt."""
    for layer in layers:
        for name in ("weight", "bias", "gamma", "beta"):
            array = getattr(layer, name, None)
            if array is not None:
                yield layer, name, array


class SGD:
    """Stochastic gradient descent."""

    def __init__(self, layers: list[Any], rate: float) -> None:
        self.layers, self.rate = layers, rate

    def step(self) -> None:
        for layer, name, array in parameters(self.layers):
            array -= self.rate * layer.grad[name]


class Adam:
    """Adam (Kingma & Ba 2015); with `decay` AdamW (Loshchilov & Hutter 2019). Two extra values per parameter."""

    def __init__(self, layers: list[Any], rate: float, decay: float = 0.0) -> None:
        self.layers, self.rate, self.decay, self.steps = layers, rate, decay, 0
        self.moments = [(np.zeros_like(a), np.zeros_like(a)) for _, _, a in parameters(layers)]

    def step(self) -> None:
        self.steps += 1
        for (layer, name, array), (first, second) in zip(parameters(self.layers), self.moments, strict=True):
            gradient = layer.grad[name]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            mean, square = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
            if name == "weight":
                array *= 1 - self.rate * self.decay
            array -= self.rate * mean / (np.sqrt(square) + 1e-8)


OPTIMIZERS: dict[str, Callable[[list[Any]], Any]] = {
    "sgd": lambda layers: SGD(layers, 0.05),
    "adam": lambda layers: Adam(layers, 0.001),
    "adamw": lambda layers: Adam(layers, 0.001, 0.01),
}


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """The mean loss of scores (N, classes), and its gradient."""
    scores = scores - scores.max(1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    rows = np.arange(len(scores))
    gradient = np.exp(logs)
    gradient[rows, labels] -= 1
    return float(-logs[rows, labels].mean()), gradient / len(scores)


def draw(curves: Mapping[tuple[str, Any], Array], path: str, labels: Mapping[Any, str], ylabel: str) -> None:
    """Mean and spread over the seeds of curves (seeds, epochs); keys are panels and, within these, `labels`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for name, _ in curves))
    figure, axes = pyplot.subplots(1, len(names), figsize=(4.5 * len(names), 3.6), sharey=True, squeeze=False)
    for panel, name in zip(axes[0], names, strict=True):
        for (key, label), colour in zip(labels.items(), ("tab:grey", "tab:blue"), strict=True):
            runs = curves[name, key]
            epochs = np.arange(1, runs.shape[1] + 1)
            panel.plot(epochs, runs.mean(0), color=colour, label=label)
            panel.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.2)
        panel.set(title=name, xlabel="epoch")
    axes[0, 0].set(ylabel=ylabel)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
