"""The norms as torch modules: torch's own classes, with the library's kernels inside.

::

    from numbanorm.torch import BatchNorm2d, replace_norms

    model = replace_norms(model)        # in an existing model: the same parameters, buffers and hooks
    norm = BatchNorm2d(64)              # or one by one: torch's constructor, state_dict, repr, isinstance

Every class is a subclass of the one of torch that has its name; only ``forward`` differs. Tensors and
arrays share their memory, on the CPU and on CUDA devices; nothing of x's size is kept for the
gradient but x itself, beside one mean and rstd per set.

What follows torch, and what does not:

* dtype: y has x's, parameters may have any; sums and parameters are in float32 (float64 for float64).
  That holds under autocast too, where torch gives float32 for some norms on CUDA.
* Memory format: y lies as torch's does: contiguous, or channels last as x in norms of channels.
* Running statistics are updated in place, as torch's, but are right far from zero as well.
* A second derivative (``create_graph=True``) is composed of torch's operations, and so can be
  differentiated any number of times.
* Left to torch's own ``forward``, silently and with torch's errors: whatever does not fit (ranks,
  lengths, integers, empty input), devices other than "cpu" and "cuda", meta and fake tensors, other
  subclasses of Tensor, and calls under ``torch.compile``, ``torch.export``, ``torch.jit.trace``,
  ``torch.func`` transforms, forward-mode differentiation and dispatch modes, all of which need
  to see torch's operations. ``torch.jit.script`` and ``torch.fx`` know norms by torch's own classes:
  a model that was traced by ``torch.fx`` can have its norms replaced, not the other way round.

torch is imported here and nowhere else in the package: ``pip install 'numbanorm[torch]'``. CUDA tensors
need what CUDA arrays need (``numbanorm.show_config()`` says what is missing).
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "numbanorm.torch needs torch, which cannot be imported here; "
        "install it with pip install 'numbanorm[torch]', or as https://pytorch.org says"
    ) from error

from numbanorm.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from numbanorm.torch.replacing import replace_norms

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "replace_norms",
]
