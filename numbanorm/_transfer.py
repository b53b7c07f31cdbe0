"""The cuda backend for NumPy arrays: operands are copied to the device, results back.

So ``NUMBANORM_BACKEND=cuda`` is all that a NumPy user says; and because what is copied
are the operands of launchers, the whole pipeline before and after stays that of NumPy:
checks, layouts, `out` in place, running statistics, arrays larger than the device's memory
where they are taken in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays
from numbanorm._dtypes import is_float

Array = NDArray[Any]

#: How many of a launcher's last arguments it writes.
_N_OUTPUTS = {
    "moments_rows": 3,
    "moments_cols": 3,
    "combine_moments": 3,
    "finish_moments": 2,
    "mean_var_rows": 2,
    "mean_var_cols": 2,
    "mean_var_channels": 2,
    "norm_rows": 3,
    "norm_groups": 3,
    "norm_channels": 3,
    "norm_rows_backward": 3,
    "norm_groups_backward": 3,
    "norm_channels_backward": 3,
    "affine_rows": 1,
    "affine_cols": 1,
    "local_response": 1,
    "local_response_backward": 1,
}


class ThroughDevice:
    """Launchers of a device's backend, called with NumPy arrays."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.name: str = backend.name

    def __getattr__(self, launcher: str) -> Callable[..., None]:
        if launcher not in _N_OUTPUTS:
            raise AttributeError(f"{self.name} has no launcher {launcher!r}")
        return partial(_launch, getattr(self._backend, launcher), _N_OUTPUTS[launcher])

    def update_running(
        self, mean: Array, var: Array, unbias: float, momentum: float, running_mean: Any, running_var: Any
    ) -> None:
        """The one launcher that reads what it writes."""
        device = _arrays.device()
        running = [None if array is None else device.from_host(array) for array in (running_mean, running_var)]
        self._backend.update_running(device.from_host(mean), device.from_host(var), unbias, momentum, *running)
        _bring_back((running_mean, running_var), running)


def _launch(launcher: Callable[..., None], n_outputs: int, *args: Any) -> None:
    """Call a launcher whose last `n_outputs` arguments are outputs."""
    device = _arrays.device()
    outputs = args[-n_outputs:]
    made = [device.empty(output.shape, output.dtype) for output in outputs]
    launcher(*(_on_device(arg) if isinstance(arg, np.ndarray) else arg for arg in args[:-n_outputs]), *made)
    _bring_back(outputs, made)


def _on_device(array: Array) -> Array:
    """A copy on the device, in float64 if kernels do not know the dtype."""
    known = array.dtype == bool or is_float(array.dtype)
    return _arrays.device().from_host(array if known else array.astype(np.float64))


def _bring_back(targets: Sequence[Any], sources: Sequence[Any]) -> None:
    for target, source in zip(targets, sources, strict=True):
        if target is not None and target.size:
            np.copyto(target, _arrays.device().to_host(source))
