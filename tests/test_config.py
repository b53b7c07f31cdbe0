import pytest

import numbanorm as nn


def test_facts():
    facts = nn.show_config("dict")
    assert {
        "versions",
        "backend",
        "why",
        "available",
        "unavailable",
        "threading layer",
        "threads",
        "kernel cache",
    } <= set(facts)
    assert facts["versions"]["numbanorm"] == nn.__version__
    assert facts["versions"]["numpy"]
    assert facts["backend"] == "cpu"
    assert facts["threads"] >= 1
    with nn.use_backend("reference"):
        facts = nn.show_config("dict")
        assert (facts["backend"], facts["why"]) == ("reference", "selected by use_backend")


def test_printed(capsys):
    assert nn.show_config() is None
    printed = capsys.readouterr().out
    for word in ("numba:", "backend: cpu", "threading layer:", "threads:", "kernel cache:"):
        assert word in printed


def test_mode():
    with pytest.raises(ValueError, match="mode must be 'print' or 'dict'"):
        nn.show_config("yaml")


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        nn.nope  # noqa: B018
