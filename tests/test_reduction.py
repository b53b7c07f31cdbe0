"""Cutting x into pieces: with tiny limits every branch is reached on small arrays."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numbanorm import _reduction
from numbanorm._arrays import Host
from tests import oracle
from tests.oracle import axis_subsets, layouts


@pytest.fixture(params=[(64, 4), (1, 1), (1 << 19, 2), (200, 1 << 15)])
def limits(request, monkeypatch):
    """(piece_bytes, max_parts)."""
    monkeypatch.setattr(Host, "piece_bytes", request.param[0])
    monkeypatch.setattr(Host, "max_parts", request.param[1])


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5), (2, 3, 2, 3), (2, 1, 3, 2, 2)])
def test_pieces_merge_to_the_whole(backend, limits, shape, rng):
    x = rng.standard_normal(shape).astype(np.float32) + 10
    mask = rng.random(shape) < 0.7
    for axes in axis_subsets(len(shape)):
        for where in (None, mask):
            taken = True if where is None else where
            count = np.broadcast_to(np.asarray(taken), shape).sum(axes)
            with np.errstate(invalid="ignore"):
                mean, var = oracle.mean_var(x, axes, where=taken) if np.all(count) else (None, None)
            for name, y in layouts(x):
                n, mu, m2 = _reduction.moments(y, axes, where)
                np.testing.assert_array_equal(n, count)
                if mean is not None:
                    np.testing.assert_allclose(mu, mean, rtol=1e-12, err_msg=name)
                    np.testing.assert_allclose(m2 / n, var, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_piece_never_holds_more_than_the_limit(monkeypatch, data):
    """What a launcher is handed at once, for arrays with gaps."""
    monkeypatch.setattr(Host, "piece_bytes", 256)
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    x = np.zeros([2 * n for n in shape], np.float32)[tuple(slice(None, None, 2) for _ in shape)]
    sizes = []
    reduce = _reduction._reduce

    def recorded(backend, place, piece, *rest):
        sizes.append(piece.nbytes)
        reduce(backend, place, piece, *rest)

    monkeypatch.setattr(_reduction, "_reduce", recorded)
    _reduction.moments(x, data.draw(st.sampled_from(axis_subsets(len(shape)))))
    monkeypatch.setattr(_reduction, "_reduce", reduce)
    assert sum(sizes) == x.nbytes
    # Pieces of equal numbers of rows: the largest may have one row more than the average.
    assert all(size <= 2 * 256 or size == 4 for size in sizes)
