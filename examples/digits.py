"""The same small convolutional network without and with batch norm, trained on the packaged digits.

    python examples/digits.py                  # SGD, Adam and AdamW, five seeds, ten epochs: minutes
    python examples/digits.py --optimizers sgd --seeds 1 --epochs 2

Everything but the norm is plain NumPy: convolution by im2col, ReLU, pooling, linear. Prints
parameter counts and accuracies per epoch, and draws both curves to digits.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from training import OPTIMIZERS, Array, Linear, cross_entropy, draw, parameters, positive

import numbanorm as nn
from numbanorm._digits import load_digits


class Convolution:
    """3x3 with zeros around, on images (N, H, W, C)."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weight = (rng.standard_normal((9 * inputs, outputs)) * (2 / (9 * inputs)) ** 0.5).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.grad: dict[str, Array] = {}

    def __call__(self, x: Array) -> Array:
        self.shape = n, height, width, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        self.columns = np.concatenate(windows, -1).reshape(n * height * width, -1)
        return (self.columns @ self.weight + self.bias).reshape(n, height, width, -1)

    def backward(self, dy: Array) -> Array:
        n, height, width, inputs = self.shape
        flat = dy.reshape(-1, dy.shape[-1])
        self.grad = {"weight": self.columns.T @ flat, "bias": flat.sum(0)}
        columns = (flat @ self.weight.T).reshape(n, height, width, 9, inputs)
        padded = np.zeros((n, height + 2, width + 2, inputs), np.float32)
        for k in range(9):
            i, j = divmod(k, 3)
            padded[:, i : i + height, j : j + width] += columns[..., k, :]
        return padded[:, 1:-1, 1:-1]


class ReLU:
    """max(x, 0)."""

    def __call__(self, x: Array) -> Array:
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy: Array) -> Array:
        return dy * self.positive


class MaxPool:
    """The largest of each 2x2 block; ties share the gradient."""

    def __call__(self, x: Array) -> Array:
        n, height, width, channels = x.shape
        blocks = x.reshape(n, height // 2, 2, width // 2, 2, channels)
        y = blocks.max((2, 4))
        largest = blocks == y[:, :, None, :, None]
        self.share = largest / largest.sum((2, 4), keepdims=True, dtype=np.float32)
        return y

    def backward(self, dy: Array) -> Array:
        n, height, width, channels = dy.shape
        dx = self.share * dy[:, :, None, :, None]
        return dx.reshape(n, 2 * height, 2 * width, channels)


def network(seed: int, normalized: bool) -> list[Any]:
    """Convolution, batch norm if wanted, ReLU, pooling, twice; then linear."""
    rng = np.random.default_rng(seed)
    layers: list[Any] = []
    for inputs, outputs in ((1, 16), (16, 32)):
        layers.append(Convolution(rng, inputs, outputs))
        if normalized:
            layers.append(nn.BatchNorm(outputs, channel_axis=-1))
        layers += [ReLU(), MaxPool()]
    return [*layers, Linear(rng, 2 * 2 * 32, 10)]


def forward(layers: list[Any], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def train_on(layers: list[Any], x: Array, labels: Array) -> float:
    """One batch: forward, cross entropy, backward. The mean loss."""
    loss, gradient = cross_entropy(forward(layers, x), labels)
    for layer in reversed(layers):
        gradient = layer.backward(gradient)
    return loss


def accuracy(layers: list[Any], x: Array, labels: Array) -> float:
    """In evaluation, in per cent."""
    set_training(layers, False)
    right = (forward(layers, x).argmax(1) == labels).mean()
    set_training(layers, True)
    return 100 * float(right)


def set_training(layers: list[Any], mode: bool) -> None:
    for layer in layers:
        if isinstance(layer, nn.layers.BatchNorm):
            layer.train(mode)


def split() -> tuple[Array, Array, Array, Array]:
    """Training images and labels, then those of the test: the last fifth, other writers in part."""
    images, labels = load_digits()
    x = (images[..., None] / 16).astype(np.float32)
    n = len(x) * 4 // 5
    return x[:n], labels[:n], x[n:], labels[n:]


def curve(seed: int, normalized: bool, optimizer: str, epochs: int, tick: Callable[[], None]) -> Array:
    """(epochs, 2): accuracy in training and test after each epoch."""
    x, labels, x_test, labels_test = split()
    layers = network(seed, normalized)
    steps = OPTIMIZERS[optimizer](layers)
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(x)), -(-len(x) // 64)):
            train_on(layers, x[batch], labels[batch])
            steps.step()
        points.append((accuracy(layers, x, labels), accuracy(layers, x_test, labels_test)))
        tick()
    return np.array(points)


def main(arguments: list[str] | None = None) -> dict[tuple[str, bool], Array]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--seeds", type=positive, default=5)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--png", default="digits.png")
    options = parser.parse_args(arguments)
    from rich.progress import Progress

    counts = [sum(a.size for _, _, a in parameters(network(0, normalized))) for normalized in (False, True)]
    print(f"parameters: {counts[0]} without, {counts[1]} with batch norm: 2 for each of 48 channels")
    curves: dict[tuple[str, bool], Array] = {}
    with Progress(transient=True) as progress:
        total = len(options.optimizers) * 2 * options.seeds * options.epochs
        task = progress.add_task("training", total=total)
        for name in options.optimizers:
            for normalized in (False, True):
                runs = [
                    curve(seed, normalized, name, options.epochs, lambda: progress.advance(task))
                    for seed in range(options.seeds)
                ]
                curves[name, normalized] = np.array(runs)
    for name in options.optimizers:
        print(f"\n{name}: accuracy in %, mean of {options.seeds} seeds (spread)")
        print("epoch   train without / with       test without / with")
        for epoch in range(options.epochs):
            cells = [curves[name, n][:, epoch, k] for k in (0, 1) for n in (False, True)]
            print(f"{epoch + 1:5}  " + "  ".join(f"{c.mean():6.2f} ({np.ptp(c):4.2f})" for c in cells))
    draw(
        {key: c[:, :, 1] for key, c in curves.items()},
        options.png,
        {False: "without", True: "batch norm"},
        "test accuracy, %",
    )
    return curves


if __name__ == "__main__":
    main()
