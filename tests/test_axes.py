import numpy as np
import pytest
from numpy.exceptions import AxisError

from numbanorm._axes import canonicalize_axes, canonicalize_axis


@pytest.mark.parametrize(
    ("axis", "ndim", "expected"),
    [
        (None, 3, (0, 1, 2)),
        (-1, 3, (2,)),
        ((2, 0), 3, (0, 2)),
        ([-3, -1], 3, (0, 2)),
        ((), 3, ()),
        (None, 0, ()),
        (np.int8(1), 2, (1,)),
    ],
)
def test_canonical_form(axis, ndim, expected):
    assert canonicalize_axes(axis, ndim) == expected


def test_out_of_bounds_reads_as_numpys():
    with pytest.raises(AxisError, match=r"^axis 5 is out of bounds for array of dimension 2$"):
        canonicalize_axes(5, 2)
    with pytest.raises(AxisError, match=r"^axis -3 is out of bounds for array of dimension 2$"):
        canonicalize_axes((0, -3), 2)


@pytest.mark.parametrize("axis", [(0, 0), (1, -1)])
def test_duplicates_read_as_numpys(axis):
    with pytest.raises(ValueError, match=r"^duplicate value in 'axis'$"):
        canonicalize_axes(axis, 2)


@pytest.mark.parametrize("axis", [1.0, "0", (0, 1.5)])
def test_not_an_integer(axis):
    with pytest.raises(TypeError):
        canonicalize_axes(axis, 3)


def test_one_axis():
    assert canonicalize_axis(-1, 4) == 3
    with pytest.raises(TypeError):
        canonicalize_axis((0,), 4)
