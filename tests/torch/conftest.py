"""Fixtures of the tests with torch."""

import warnings

import pytest


@pytest.fixture(autouse=True)
def _mixed_dtypes_are_no_surprise():
    """torch warns where x and its parameters differ in dtype, because its fused kernel cannot take that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        yield


@pytest.fixture
def calls(monkeypatch):
    """The norms that our kernels were called for."""
    from numbanorm.torch import modules

    seen = []
    inner = modules.normalize
    monkeypatch.setattr(modules, "normalize", lambda call, *a: (seen.append(type(call).__name__), inner(call, *a))[1])
    return seen
