"""Print README's accuracy table: relative error of the variance on data where float32 is hard.

``python tools/accuracy.py`` needs numbanorm and NumPy; torch's column appears where it is
installed. Errors do not depend on the machine, but torch's batch norm depends on its
number of threads, which is printed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np

import numbanorm as nn

try:
    import torch
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]

Array = np.ndarray[Any, Any]


def normal(shape: tuple[int, ...], mean: float, std: float = 1.0) -> Array:
    """float32 numbers, the same on every run."""
    return np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)


def running_var(x: Array) -> Array:
    """torch's running_var after one batch with momentum 1, as a biased variance."""
    mean, var = torch.zeros(x.shape[1]), torch.zeros(x.shape[1])
    torch.nn.functional.batch_norm(torch.from_numpy(x), mean, var, training=True, momentum=1.0)
    return np.asarray(var.double() * (len(x) - 1) / len(x))


def layer_norm_var(x: Array) -> Array:
    """The variance that torch's layer norm must have used: 1 over its output's slope, squared."""
    y = torch.nn.functional.layer_norm(torch.from_numpy(x), x.shape[-1:], eps=0.0).double()
    spread = x.astype(np.float64).std(-1)
    return np.asarray((spread / np.asarray(y.std(-1, correction=0))) ** 2)


#: what, data, axis, what torch's layers make of it
CASES: list[tuple[str, Array, int | None, str, Callable[[Array], Array] | None]] = [
    ("(1000000, 4), mean 0, std 1, axis 0", normal((1_000_000, 4), 0), 0, "batch_norm", running_var),
    ("(1000000, 4), mean 1e4, std 1, axis 0", normal((1_000_000, 4), 1e4), 0, "batch_norm", running_var),
    ("(64, 4096), mean 1e6, std 1, last axis", normal((64, 4096), 1e6), -1, "layer_norm", layer_norm_var),
    ("(64, 4096), mean 1e4, std 0.01, last axis", normal((64, 4096), 1e4, 0.01), -1, "layer_norm", layer_norm_var),
    ("70000 ones in float16", np.ones(70_000, np.float16), None, "", None),
]


def error(var: Any, exact: Array) -> str:
    """Worst relative error (absolute where the exact variance is 0), in two digits."""
    worst = np.max(np.abs(np.asarray(var, np.float64) - exact) / np.where(exact == 0, 1, exact))
    return "exact" if worst == 0 else f"{worst:.1e}"


def row(what: str, x: Array, axis: int | None, layer: str, torch_layer: Callable[[Array], Array] | None) -> list[str]:
    """One line of the table."""
    exact = x.astype(np.float64).var(axis)
    with np.errstate(over="ignore"):
        cells = [what, error(nn.var(x, axis=axis), exact), error(np.var(x, axis=axis), exact)]
    if torch is not None:
        tensor = torch.from_numpy(x)
        cells.append(error(torch.var(tensor, axis, correction=0), exact))
        cells.append(f"{error(torch_layer(x), exact)} ({layer})" if torch_layer else "")
    return cells


def main() -> None:
    """Print versions and the table as Markdown."""
    versions = [f"Python {platform.python_version()}", f"numbanorm {nn.__version__}", f"NumPy {np.__version__}"]
    header = ["float32 data", "numbanorm.var", "np.var"]
    if torch is not None:
        versions.append(f"torch {torch.__version__} with {torch.get_num_threads()} threads")
        header += ["torch.var", "torch's layer"]
    print(", ".join(versions) + "\n")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for case in CASES:
        print("| " + " | ".join(row(*case)) + " |")


if __name__ == "__main__":
    main()
