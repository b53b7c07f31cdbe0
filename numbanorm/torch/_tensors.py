"""Tensors as the arrays of this library, and back: the same memory, nothing is copied."""

from __future__ import annotations

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


def array_of(tensor: Tensor | None) -> Any:
    """A tensor as the public functions take it: NumPy's on the CPU, itself without its history on a device."""
    if tensor is None:
        return None
    tensor = tensor.detach()
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


def tensor_like(array: Any, x: Tensor) -> Tensor:
    """:func:`tensor_of` for a y or dx of x.

    Strides along axes of length 1 mean nothing to NumPy; from them torch guesses the memory format.
    """
    tensor = tensor_of(array)
    assert tensor is not None
    if tensor.stride() == x.stride():
        return tensor
    wanted = torch.empty_like(x, device="meta").stride()
    same = all(n == 1 or a == b for n, a, b in zip(x.shape, tensor.stride(), wanted, strict=True))
    return tensor.as_strided(x.shape, wanted) if same else tensor
