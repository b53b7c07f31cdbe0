"""NIST StRD univariate sets: certified mean and standard deviation."""

from math import log10
from pathlib import Path

import numpy as np
import pytest

import numbanorm as nn

DATA = Path(__file__).parent / "data" / "nist"
#: Digits that any method can reach on double input: the sets' own rounding limits NumAcc3 and 4.
DIGITS = dict.fromkeys(["Lew", "Lottery", "Mavro", "Michelso", "NumAcc1", "NumAcc2", "NumAcc3"], 9) | {"NumAcc4": 8}


def read(name):
    """(certified mean, certified std, data) of a .dat file."""
    lines = (DATA / f"{name}.dat").read_text().splitlines()
    certified = [
        float(line.split(":")[1].split()[0]) for line in lines if line.startswith("Sample ") and "(lag" not in line
    ]
    start = next(i for i, line in enumerate(lines) if set(line.strip()) == {"-"} and len(line.strip()) > 5)
    return certified[0], certified[1], np.array([float(line) for line in lines[start + 1 :] if line.strip()])


def digits(actual, certified):
    return 15.0 if actual == certified else -log10(abs(actual - certified) / abs(certified))


@pytest.mark.parametrize("name", DIGITS)
def test_certified_digits(backend, name):
    mean, std, data = read(name)
    assert len(data) > 2
    for x, axis in ((data, None), (np.stack([data, data]), 1), (np.stack([data, data], 1), 0)):
        assert np.min([digits(m, mean) for m in np.ravel(nn.mean(x, axis=axis))]) >= 13
        assert np.min([digits(s, std) for s in np.ravel(nn.std(x, axis=axis, ddof=1))]) >= DIGITS[name]
