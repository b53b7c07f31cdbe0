"""The network of digits.py in torch: with torch's batch norm, and with numbanorm's in its place.

    pip install "numbanorm[torch,demo]"
    python examples/digits_torch.py                 # ten epochs: seconds
    python examples/digits_torch.py --optimizer adam --channels-last

``numbanorm.torch.replace_norms`` is all that differs between the two. They start from the same
numbers as the network of digits.py and see the same batches; every loss must agree to 1e-4.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import digits
import numpy as np
import torch
from torch import Tensor, nn
from training import positive

from numbanorm.torch import replace_norms

#: Largest difference of the two mean losses of an epoch.
TOLERANCE = 1e-4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.001),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.001, weight_decay=0.01),
}


def network(seed: int) -> nn.Sequential:
    """The layers of digits.py, with their initial weights, for images (N, C, H, W)."""
    modules: list[nn.Module] = []
    for layer in digits.network(seed, normalized=True):
        match layer:
            case digits.Convolution():
                outputs = len(layer.bias)
                # Rows of the weight are (row, column, channel) of a window there.
                weight = layer.weight.reshape(3, 3, -1, outputs).transpose(3, 2, 0, 1)
                modules.append(holding(nn.Conv2d(weight.shape[1], outputs, 3, padding=1), weight))
            case digits.nn.BatchNorm():
                modules.append(nn.BatchNorm2d(layer.num_features))
            case digits.ReLU():
                modules.append(nn.ReLU(inplace=True))
            case digits.MaxPool():
                modules.append(nn.MaxPool2d(2))
            case digits.Linear():
                # There the channels are flattened last, here first.
                weight = layer.weight.reshape(2, 2, 32, -1).transpose(3, 2, 0, 1)
                modules += [nn.Flatten(), holding(nn.Linear(2 * 2 * 32, 10), weight.reshape(10, -1))]
    return nn.Sequential(*modules)


def holding(module: Any, weight: digits.Array) -> Any:
    """The module with this weight and no bias yet."""
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        module.bias.zero_()
    return module


def train(model: nn.Module, optimizer: str, epochs: int, seed: int, tick: Callable[[], None]) -> tuple[Tensor, Tensor]:
    """The mean loss of every epoch, and the test accuracy in per cent after it."""
    images, labels, test_images, test_labels = map(torch.from_numpy, digits.split())
    x, x_test = (i.permute(0, 3, 1, 2).contiguous() for i in (images, test_images))
    steps = OPTIMIZERS[optimizer](model.parameters())
    rng = np.random.default_rng(seed)
    means, accuracies = [], []
    for _ in range(epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(x)), -(-len(x) // 64)):
            steps.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), labels[batch].long())
            loss.backward()
            steps.step()
            losses.append(loss.detach())
        means.append(torch.stack(losses).mean())
        model.eval()
        with torch.no_grad():
            accuracies.append(100 * (model(x_test).argmax(1) == test_labels).float().mean())
        model.train()
        tick()
    return torch.stack(means), torch.stack(accuracies)


def main(arguments: list[str] | None = None) -> float:
    """Prints losses of both, and returns how far they are apart at most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args(arguments)
    from rich.progress import Progress

    torch.set_num_threads(1)  # the operations are small; threads would only wait for one another
    theirs = network(options.seed)
    if options.channels_last:
        theirs.to(memory_format=torch.channels_last)
    ours = replace_norms(copy.deepcopy(theirs))
    results = []
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=2 * options.epochs)
        for model in (theirs, ours):
            run = train(model, options.optimizer, options.epochs, options.seed, lambda: progress.advance(task))
            results.append(run)
    (losses, accuracies), (our_losses, our_accuracies) = results
    print("epoch   mean loss: torch / numbanorm   test accuracy, %")
    rows = zip(losses, our_losses, accuracies, our_accuracies, strict=True)
    for epoch, (loss, our_loss, accuracy, our_accuracy) in enumerate(rows, 1):
        print(f"{epoch:5}   {loss:16.6f} / {our_loss:.6f}   {accuracy:9.2f} / {our_accuracy:.2f}")
    apart = float((losses - our_losses).abs().max())
    print(f"mean losses are at most {apart:.1e} apart")
    if not apart <= TOLERANCE:
        raise SystemExit(f"they should agree to {TOLERANCE}")
    return apart


if __name__ == "__main__":
    main()
