"""Which backend serves a call: ``NUMBANORM_BACKEND``, :func:`use_backend`, or the kind of array.

Requirements met here: nothing is imported before it is needed; an unknown name lists the
known ones; a backend that cannot run says what is missing and how to get it; host and
device arrays never mix; never a silent fallback.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from types import NoneType
from typing import Any

import numpy as np

from numbanorm._arrays import cupy_kind, is_cupy_array, is_device_array

_BACKENDS = {
    "cpu": "numbanorm.backends.cpu",
    "cuda": "numbanorm.backends.cuda",
    "reference": "numbanorm.backends.reference",
}
_CHOICES = ("auto", *_BACKENDS)
#: Types of operands that need no look to tell where they are.
_HOST_KINDS = frozenset({np.ndarray, NoneType})
#: Choices with which device arrays are welcome.
_DEVICE_CHOICES = ("auto", "cuda")

_override: ContextVar[str | None] = ContextVar("numbanorm_backend", default=None)


def _checked(name: str, source: str) -> str:
    if name not in _CHOICES:
        raise ValueError(f"{source} must be one of {', '.join(map(repr, _CHOICES))}, but got {name!r}")
    return name


# os.environ encodes names and raises inside when one is missing, which takes longer than all else
# that a small call needs to find its backend; its dictionary is asked first.
_VARIABLE = "NUMBANORM_BACKEND"
_ENVIRONMENT, _ENCODED = getattr(os.environ, "_data", os.environ), _VARIABLE
if _ENVIRONMENT is not os.environ:
    _ENCODED = os.environ.encodekey(_VARIABLE)


def selected() -> tuple[str, str]:
    """The selected name ("auto" included) and where it was said."""
    override = _override.get()
    if override is not None:
        return override, "use_backend"
    name = os.environ[_VARIABLE] if _ENCODED in _ENVIRONMENT else None
    if not name:
        return "auto", "the default"
    return _checked(name, _VARIABLE), _VARIABLE


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Select a backend inside a ``with`` block, for this thread or task only.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "reference"}
        Wins over the environment variable ``NUMBANORM_BACKEND``.

    Raises
    ------
    ValueError
        If `name` is unknown.
    RuntimeError
        If the backend cannot run here; the message says what is missing.

    Examples
    --------
    >>> import numbanorm as nn
    >>> with nn.use_backend("reference"):
    ...     print(nn.get_backend().name)
    reference
    """
    _checked(name, "backend")
    if name != "auto":
        load_backend(name)
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


@cache
def load_backend(name: str) -> Any:
    """The backend's package, imported at its first use."""
    backend = import_module(_BACKENDS[name])
    missing = backend.availability()
    if missing:
        raise RuntimeError(missing)
    return backend


def get_backend(*arrays: Any) -> Any:
    """The backend that serves a call with these arrays (or any NumPy call, if none is given).

    Returns
    -------
    module
        The backend; its ``name`` is "cpu", "cuda" or "reference".

    Raises
    ------
    TypeError
        If host and device arrays are mixed, or a device array meets a CPU backend.
    ValueError
        If ``NUMBANORM_BACKEND`` names no backend.
    RuntimeError
        If the backend cannot run here.

    Examples
    --------
    >>> import numbanorm as nn
    >>> nn.get_backend().name
    'cpu'
    """
    return backend_for({f"argument {position}": array for position, array in enumerate(arrays)})


def backend_for(arrays: dict[str, Any]) -> Any:
    """:func:`get_backend` for arrays with names, which its errors use; None does not count."""
    name = selected()[0]
    kinds = set(map(type, arrays.values()))
    if not kinds <= _HOST_KINDS and any(map(is_device_array, arrays.values())):
        if name not in _DEVICE_CHOICES or not kinds <= {cupy_kind(), NoneType} or not _on_one_device(arrays):
            _refuse_mixture(name, {key: array for key, array in arrays.items() if array is not None})
        return load_backend("cuda")
    if name == "cuda":
        return _through_device(load_backend(name))
    return load_backend("cpu" if name == "auto" else name)


@cache
def _through_device(backend: Any) -> Any:
    from numbanorm._transfer import ThroughDevice

    return ThroughDevice(backend)


def _on_one_device(arrays: dict[str, Any]) -> bool:
    """Whether CuPy's among the arrays share a device; others are about to be looked at as CuPy's."""
    return len({array.data.device_id for array in arrays.values() if is_cupy_array(array)}) <= 1


def _refuse_mixture(name: str, arrays: dict[str, Any]) -> None:
    """Raise unless all of these arrays, one of which is on a device, can be operands of one call."""
    if not all(map(is_device_array, arrays.values())):
        listed = ", ".join(
            f"{key} ({_kind(array)}) is on the {'device' if is_device_array(array) else 'host'}"
            for key, array in arrays.items()
        )
        raise TypeError(f"host and device arrays do not mix: {listed}; move them to one place (a layer with its .to)")
    if name not in _DEVICE_CHOICES:
        raise TypeError(
            f"the {name} backend takes host arrays, but got {_kind(next(iter(arrays.values())))}; "
            f"move it with x.get() (CuPy) or x.cpu() (torch), or select the cuda backend"
        )
    if not _on_one_device(arrays):
        places = {key: array.data.device_id for key, array in arrays.items() if is_cupy_array(array)}
        listed = ", ".join(f"{key} is on device {ordinal}" for key, ordinal in places.items())
        raise ValueError(f"arrays on different devices do not mix: {listed}; move them to one device")


def _kind(array: Any) -> str:
    return f"{type(array).__module__}.{type(array).__name__}"


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run here.

    Examples
    --------
    >>> import numbanorm as nn
    >>> "cpu" in nn.available_backends()
    True
    """
    return tuple(name for name, path in _BACKENDS.items() if import_module(path).availability() is None)
