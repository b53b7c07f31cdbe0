"""A recurrent network on padded sequences of many lengths, without and with layer norm in its cell.

    python examples/rnn.py                     # two learning rates, three seeds: half a minute
    python examples/rnn.py --rates 0.003 --seeds 1 --epochs 5

The task is parity: after each bit of a sequence, whether the number of ones so far is odd. The
cell must remember one bit for up to 20 steps. With layer norm every seed ends without an error.

Sequences are padded to the longest. A step past the end of a sequence leaves its state alone, and
has neither a loss nor a gradient. The cell is that of Ba, Kiros & Hinton (2016)::

    h[t] = tanh(layer_norm([x[t], h[t - 1]] @ weight))

A layer keeps what one call needs for its gradient, so each step has its own :class:`LayerNorm`;
all share one gamma and one beta. Everything but the norm is plain NumPy.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from training import Adam, Array, Linear, cross_entropy, draw, positive

import numbanorm as nn

#: Of the shortest and the longest sequence.
LENGTHS = 5, 20
HIDDEN = 32


class Cell:
    """A recurrent cell and its history: h = tanh(norm([x, h] @ weight + bias)), norm being left out if None."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, normalized: bool) -> None:
        n = inputs + hidden
        self.weight = (rng.standard_normal((n, hidden)) * n**-0.5).astype(np.float32)
        # beta takes the place of the bias, which a norm would take off again.
        self.bias = None if normalized else np.zeros(hidden, np.float32)
        self.norm = nn.LayerNorm(hidden) if normalized else None
        self.gamma, self.beta = (self.norm.gamma, self.norm.beta) if self.norm else (None, None)
        self.grad: dict[str, Array] = {}

    def __call__(self, x: Array, mask: Array) -> Array:
        """All states (T, N, hidden) for x (T, N, inputs); mask (T, N, 1) is False from each sequence's end on."""
        self.mask, self.steps = mask, []
        h = np.zeros((x.shape[1], self.weight.shape[1]), self.weight.dtype)
        states = []
        for x_t, inside in zip(x, mask, strict=True):
            joined = np.concatenate([x_t, h], 1)
            norm = copy.copy(self.norm)  # with the same gamma and beta, not copies of them
            a = joined @ self.weight
            new = np.tanh(a + self.bias if norm is None else norm(a))
            self.steps.append((joined, norm, new))
            h = np.where(inside, new, h)
            states.append(h)
        return np.stack(states)

    def backward(self, dstates: Array) -> None:
        """Back through time from the gradients of all states; fills :attr:`grad`."""
        self.grad = {name: np.zeros_like(array) for name, array in self.parameters()}
        dh = np.zeros_like(dstates[0])
        for t in reversed(range(len(dstates))):
            joined, norm, new = self.steps[t]
            dh = dh + dstates[t]
            da = np.where(self.mask[t], dh, 0) * (1 - new**2)
            if norm is None:
                self.grad["bias"] += da.sum(0)
            else:
                da = norm.backward(da)
                for name in ("gamma", "beta"):
                    self.grad[name] += norm.grad[name]
            self.grad["weight"] += joined.T @ da
            through = (da @ self.weight.T)[:, -new.shape[1] :]
            dh = np.where(self.mask[t], through, dh)

    def parameters(self) -> Iterator[tuple[str, Array]]:
        for name in ("weight", "bias", "gamma", "beta"):
            array = getattr(self, name)
            if array is not None:
                yield name, array


class Network:
    """A cell, and from each of its states the scores of even and odd."""

    def __init__(self, seed: int, normalized: bool) -> None:
        rng = np.random.default_rng(seed)
        self.cell = Cell(rng, 1, HIDDEN, normalized)
        self.head = Linear(rng, HIDDEN, 2)
        self.layers = [self.cell, self.head]

    def __call__(self, x: Array, mask: Array) -> Array:
        """Scores (steps, 2) of all steps inside a sequence."""
        self.inside = mask[..., 0]
        return self.head(self.cell(x, mask)[self.inside])

    def backward(self, dscores: Array) -> None:
        dstates = np.zeros((*self.inside.shape, HIDDEN), dscores.dtype)
        dstates[self.inside] = self.head.backward(dscores)
        self.cell.backward(dstates)


def batch_of(rng: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
    """Bits (T, N, 1), their mask, and the parity after each bit, (T, N)."""
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, n)
    bits = rng.integers(0, 2, (lengths.max(), n))
    mask = np.arange(len(bits))[:, None] < lengths
    x = np.where(mask, 2 * bits - 1, 0).astype(np.float32)
    return x[..., None], mask[..., None], bits.cumsum(0) % 2


def train_on(network: Network, x: Array, mask: Array, parity: Array) -> float:
    """One batch: forward, cross entropy of the steps inside sequences, backward. The mean loss."""
    loss, gradient = cross_entropy(network(x, mask), parity[mask[..., 0]])
    network.backward(gradient)
    return loss


def curve(seed: int, normalized: bool, rate: float, epochs: int, tick: Callable[[], None]) -> Array:
    """Accuracy in per cent on new sequences after each epoch of 50 batches."""
    network = Network(seed, normalized)
    optimizer = Adam(network.layers, rate)
    rng, test = np.random.default_rng(seed), batch_of(np.random.default_rng(12345), 500)
    x, mask, parity = test
    points = []
    for _ in range(epochs):
        for _ in range(50):
            train_on(network, *batch_of(rng, 64))
            optimizer.step()
        right = network(x, mask).argmax(1) == parity[mask[..., 0]]
        points.append(100 * right.mean())
        tick()
    return np.array(points)


def main(arguments: list[str] | None = None) -> dict[tuple[str, Any], Array]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=20)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.003, 0.01])
    parser.add_argument("--png", default="rnn.png")
    options = parser.parse_args(arguments)
    from rich.progress import Progress

    curves: dict[tuple[str, Any], Array] = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=len(options.rates) * 2 * options.seeds * options.epochs)
        for rate in options.rates:
            for normalized in (False, True):
                runs = [
                    curve(seed, normalized, rate, options.epochs, lambda: progress.advance(task))
                    for seed in range(options.seeds)
                ]
                curves[f"Adam, {rate:g}", normalized] = np.array(runs)
    print(f"accuracy in % after {options.epochs} epochs, mean of {options.seeds} seeds (spread)")
    for (name, normalized), runs in curves.items():
        last = runs[:, -1]
        print(f"{name:12} {'layer norm' if normalized else 'without':10} {last.mean():6.2f} ({np.ptp(last):5.2f})")
    draw(curves, options.png, {False: "without", True: "layer norm"}, "accuracy, %")
    return curves


if __name__ == "__main__":
    main()
