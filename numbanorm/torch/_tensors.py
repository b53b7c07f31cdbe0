"""Tensors as the arrays of this library, and back: the same memory, nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
#: Subclasses of Tensor have ideas of their own about what is done to them.
_KINDS = frozenset({Tensor, torch.nn.Parameter})
_PARAMETER_KINDS = _KINDS | {NoneType}


def served(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether our kernels take this call; else it is torch's. Asked in every call, and so in few words."""
    return (
        # First: while a graph is traced, the one is constant and the other makes numbers of shapes tensors.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and type(x) in _KINDS
        and x.dtype in _DTYPES
        and (x.is_cpu or x.is_cuda)
        and x.layout is torch.strided
        and x.numel() > 0
        and type(weight) in _PARAMETER_KINDS
        and type(bias) in _PARAMETER_KINDS
        and (weight is not None or bias is None)
        and not _is_watched(x)
    )


def _is_watched(x: Tensor) -> bool:
    """Whether somebody needs to see torch's operations, or x's memory does not hold its numbers."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
        or x.is_neg()
    )


@cache
def _bfloat16() -> np.dtype[Any]:
    try:
        return np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise ImportError(
            "bfloat16 tensors on the CPU need NumPy's bfloat16; install it with pip install ml_dtypes"
        ) from error


#: Whether torch runs a gradient once for many dy: ``is_grads_batched``, and jacobians by it.
is_batched: Callable[[Tensor], bool] = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)


def array_of(tensor: Tensor | None) -> Any:
    """A tensor as the public functions take it: NumPy's on the CPU, itself without its history on a device."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if not tensor.is_cpu:
        return tensor
    if tensor.dtype is torch.bfloat16:  # which NumPy has not
        return tensor.view(torch.int16).numpy().view(_bfloat16())
    return tensor.numpy()


def tensor_of(array: Any) -> Tensor | None:
    """What a public function returned, as a tensor, which keeps the memory alive."""
    if not isinstance(array, np.ndarray):  # None, or a tensor as its operands were
        return array
    if array.dtype.kind == "V":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def layout_of(x: Tensor, *, channels: bool) -> Tensor | None:
    """Where to put y so that it lies as torch's does, or None where ours does by itself.

    torch keeps channels-last in norms of channels; all other results are contiguous, whatever x is.
    """
    if x.is_contiguous():
        return None
    last = _CHANNELS_LAST.get(x.ndim) if channels else None
    if last is None or not x.is_contiguous(memory_format=last):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)
    # Strides along axes of length 1 mean nothing to NumPy; from them torch guesses the memory format.
    return torch.empty_like(x, memory_format=last) if 1 in x.shape else None


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
