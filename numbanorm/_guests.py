"""The door: device arrays of every kind come in as CuPy's and leave as what they were.

A public function is written for NumPy's and CuPy's arrays. :func:`everywhere` lets it take
torch's CUDA tensors, Numba's device arrays and others: each becomes a CuPy array over
the same memory, through ``__cuda_array_interface__`` or DLPack, and results become arrays
of x's kind. Nothing is copied, and the host waits for nothing: work is done on the
device where x lives and, for torch, on torch's current stream, so that its allocator and
CuPy's agree about when memory is free.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from math import prod
from typing import Any, TypeVar, cast

import numpy as np

from numbanorm import _arrays
from numbanorm._arrays import cupy_kind, is_cupy_array, is_device_array
from numbanorm._backend import backend_for
from numbanorm._capture import called

F = TypeVar("F", bound=Callable[..., Any])


def everywhere(function: F) -> F:
    """Let a function of NumPy or CuPy arrays take device arrays of any kind; x is its first argument."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    first = int(names[0] in ("self", "cls"))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > first and type(args[first]) is np.ndarray:
            return function(*args, **kwargs)
        return _received(function, names, args, kwargs)

    return cast(F, call)


def _received(function: Callable[..., Any], names: tuple[str, ...], args: tuple[Any, ...], kwargs: Any) -> Any:
    """Call the function with what its arguments are inside."""
    values = [*args, *kwargs.values()]
    arrays = list(filter(is_device_array, values))
    if not arrays:
        return function(*args, **kwargs)
    if set(map(type, arrays)) == {cupy_kind()} and arrays[0].data.device_id == _arrays.device().current():
        return called(function, args, kwargs)
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    named.pop("lengths", None)  # few numbers, which the host reads, wherever they are
    backend_for(
        {name: value for name, value in named.items() if isinstance(value, np.ndarray) or is_device_array(value)}
    )
    views: dict[int, Any] = {}

    def inside(value: Any) -> Any:
        if isinstance(value, tuple):  # `out` of two
            return tuple(map(inside, value))
        if not is_device_array(value):
            return value
        if id(value) not in views:
            views[id(value)] = cupy_view(value)
        return views[id(value)]

    host = arrays[0]
    with _arrays.device().at(inside(host).data.device_id, _stream_of(host)):
        result = called(function, tuple(map(inside, args)), {name: inside(value) for name, value in kwargs.items()})
        given = {id(view): value for value in _flat(values) for view in [views.get(id(value))] if view is not None}
        return _outside(result, given, type(host))


def _flat(values: list[Any]) -> list[Any]:
    return [one for value in values for one in (value if isinstance(value, tuple) else (value,))]


def _outside(result: Any, given: dict[int, Any], kind: type) -> Any:
    """A result as the caller knows it: the array that was passed in, or a new one of x's kind."""
    if isinstance(result, tuple):
        parts = [_outside(part, given, kind) for part in result]
        return result._make(parts) if hasattr(result, "_make") else tuple(parts)
    if id(result) in given:
        return given[id(result)]
    if not is_cupy_array(result):
        return result
    export = EXPORTS.get(kind.__module__.partition(".")[0])
    return result if export is None else export(result)


def cupy_view(array: Any) -> Any:
    """A CuPy array over the memory of another library's; it keeps that alive."""
    if is_cupy_array(array):
        return array
    cupy = import_module("cupy")
    if not hasattr(type(array), "__cuda_array_interface__"):
        return cupy.from_dlpack(array)
    face = array.__cuda_array_interface__
    dtype, shape, strides = _dtype(face["typestr"]), tuple(face["shape"]), face.get("strides")
    if 0 in shape:
        return cupy.ndarray(shape, dtype)
    # From the first element to the end of the last; an array may run backwards from there.
    spans = [(n - 1) * step for n, step in zip(shape, strides, strict=True)] if strides else []
    n_bytes = dtype.itemsize + sum(map(abs, spans)) if strides else prod(shape) * dtype.itemsize
    before = -sum(min(span, 0) for span in spans)
    memory = cupy.cuda.UnownedMemory(face["data"][0] - before, n_bytes, array, _ordinal(array))
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, before), strides)


def as_host(array: Any) -> Any:
    """Any array as NumPy's; a device's is waited for."""
    if not is_device_array(array):
        return np.asarray(array)
    view = cupy_view(array)
    device = _arrays.device()
    with device.at(view.data.device_id, _stream_of(array)):
        return device.to_host(view)


def _dtype(typestr: str) -> np.dtype[Any]:
    """Of an array interface; two bytes of no type are a bfloat16, as ml_dtypes and torch write it."""
    kind: Any = import_module("ml_dtypes").bfloat16 if typestr[1:] == "V2" else typestr
    dtype: np.dtype[Any] = np.dtype(kind)
    return dtype


def _ordinal(array: Any) -> int:
    """Of the device of a guest, or -1, by which CuPy asks the driver."""
    ordinal = getattr(getattr(array, "device", None), "index", None)
    return ordinal if isinstance(ordinal, int) else -1


def _stream_of(array: Any) -> int | None:
    """Handle of the stream on which a guest's memory is ready; None is CuPy's current one."""
    if is_cupy_array(array):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return int(torch.cuda.current_stream(array.device).cuda_stream)
    if hasattr(type(array), "__cuda_array_interface__"):
        stream = array.__cuda_array_interface__.get("stream")
        return stream if stream else None
    return None


def _to_torch(array: Any) -> Any:
    torch = sys.modules["torch"]
    if array.dtype.name == "bfloat16":  # which DLPack has and CuPy does not export
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def _to_numba(array: Any) -> Any:
    from numba import cuda

    return cuda.as_cuda_array(array, sync=False)


#: By the library of x's type, how its own arrays are made from CuPy's, which share the memory.
EXPORTS: dict[str, Callable[[Any], Any]] = {"torch": _to_torch, "numba": _to_numba}
