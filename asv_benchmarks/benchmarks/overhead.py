"""What a call costs when there is little to compute: Python, checks, dispatch, allocation.

asv times single calls and runs setup between them, which says little about microseconds;
so a thousand calls are timed in one go. Milliseconds here are microseconds a call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import numbanorm as nn

from .cases import LIBRARIES, OPERATIONS
from .common import SMOKE, prepare_library, prepared

_SHAPES = {"rows": (1, 768), "images": (2, 16, 8, 8), "channels_last": (2, 16, 8, 8)}
_OPERATIONS = [name for name, operation in OPERATIONS.items() if operation.layout in _SHAPES]


class SmallCalls:
    """Whole calls on (1, 768) and on images (2, 16, 8, 8)."""

    params = (["layer_norm", "batch_norm_training"] if SMOKE else _OPERATIONS, list(LIBRARIES))
    param_names = ("operation", "library")
    rounds = 1

    def setup(self, name: str, library: str) -> None:
        # On so few numbers torch is at its best with one thread; with more, waking those that
        # sleep would be most of the call. numbanorm uses one by itself.
        prepare_library(library, threads=1)
        self.call = prepared(name, _SHAPES[OPERATIONS[name].layout], library)

    def time_thousand_calls(self, *_: Any) -> None:
        call = self.call
        for _ in range(1000):
            call()


class Dispatch:
    """Finding the backend that serves a call, and selecting one."""

    rounds = 1

    def setup(self) -> None:
        self.x = np.ones((1, 768), np.float32)

    def time_thousand_get_backend(self) -> None:
        for _ in range(1000):
            nn.get_backend(self.x)

    def time_thousand_use_backend(self) -> None:
        for _ in range(1000):
            with nn.use_backend("cpu"):
                pass
