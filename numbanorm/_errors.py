"""The messages of the library: what was expected, what came, what to do.

Leading texts follow torch and NumPy, so that ported code and its tests keep working.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = str(Path(__file__).parent)


class ShapeError(ValueError, RuntimeError):
    """A shape, length or count that does not fit.

    NumPy users expect ``ValueError`` here and torch users ``RuntimeError``; both catch it.
    """


def degenerate_batch(shape: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"Expected more than 1 value per channel when training, got input size {shape}")


def degenerate_instance(shape: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"Expected more than 1 spatial element when training, got input size {shape}")


def wrong_rank(expected: tuple[int, ...], ndim: int) -> ShapeError:
    ranks = " or ".join(f"{rank}D" for rank in expected)
    return ShapeError(f"expected {ranks} input (got {ndim}D input)")


def wrong_length(name: str, expected: tuple[int, ...], got: tuple[int, ...]) -> ShapeError:
    if len(got) != len(expected):
        return ShapeError(f"{name} should have shape {expected}, but has {got}")
    return ShapeError(f"{name} should contain {expected[0]} elements not {got[0]}")


def wrong_normalized_shape(normalized_shape: tuple[int, ...], shape: tuple[int, ...]) -> ShapeError:
    tail = ", ".join(["*", *map(str, normalized_shape)])
    return ShapeError(
        f"Given normalized_shape={normalized_shape}, expected input with shape ({tail}), but got input of size {shape}"
    )


def wrong_parameter_shape(name: str, expected: tuple[int, ...], got: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"{name} should have shape {expected}, the shape of x over the normalised axes, not {got}")


def check_eps(norm: str, eps: float, *, positive: bool = False) -> None:
    """Raise ``ValueError`` unless `eps` is a number >= 0 (> 0 where `positive`)."""
    if not eps >= 0:  # also catches NaN
        raise ValueError(f"{norm} eps must be non-negative, but got {eps}")
    if positive and eps == 0:
        raise ValueError(f"{norm} eps must be positive during training, but got {eps}")


def check_groups(num_channels: int, num_groups: int) -> None:
    """Raise unless `num_groups` is positive and divides `num_channels`."""
    if num_groups <= 0:
        raise ShapeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if num_channels % num_groups:
        raise ShapeError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` listing `choices` unless `value` is one of them."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {known}, but got {value!r}")


def unsupported_dtype(name: str, dtype: np.dtype[Any]) -> TypeError:
    if dtype.kind == "c":
        advice = f"take {name}.real and {name}.imag separately"
    elif dtype.kind == "f":
        advice = f"convert it with {name}.astype(np.float64)"
    else:
        advice = "pass a real numeric array (float16, bfloat16, float32, float64, integer or bool)"
    return TypeError(f"{name} has dtype {dtype}, which numbanorm does not support; {advice}")


def integer_in_norm(name: str, dtype: np.dtype[Any]) -> TypeError:
    return TypeError(f"{name} has dtype {dtype}, but a norm needs floating point; pass {name}.astype(np.float32)")


def masked_array(name: str) -> TypeError:
    return TypeError(
        f"{name} is a numpy.ma.MaskedArray, whose mask would be ignored; pass the plain array, "
        f"and of an x leave elements out with where=~np.ma.getmaskarray(x)"
    )


def warn_caller(message: str) -> None:
    """A ``RuntimeWarning`` at the line that called the library, however deep inside this is said."""
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
