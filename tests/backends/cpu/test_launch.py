"""How work is cut: integers from shapes."""

import pytest

from numbanorm.backends.cpu import _launch


@pytest.mark.parametrize("n_units", [1, 7, 64, 10**9])
@pytest.mark.parametrize("n_elements", [1, _launch.SERIAL_BELOW - 1, _launch.SERIAL_BELOW, 10**12])
def test_parts_are_never_more_than_units(n_units, n_elements):
    parts = _launch.n_parts(n_units, n_elements)
    assert 1 <= parts <= min(n_units, _launch.MAX_PARTS)
    assert n_elements >= _launch.SERIAL_BELOW or parts == 1


def test_only_long_reductions_are_cut():
    assert _launch.n_splits(64, 10**9) == 1
    assert _launch.n_splits(1, 1000) == 1
    assert _launch.n_splits(1, 10**8) == _launch.MAX_PARTS
    assert _launch.n_splits(1, 20 * _launch.BLOCK) == 2


@pytest.mark.parametrize(
    ("n_reduce", "n_inner", "expected"), [(1000, 16, 16), (3, 16, 3), (1000, 256, 1), (1000, 1, 256)]
)
def test_narrow_matrices_are_read_wide(n_reduce, n_inner, expected):
    assert _launch.fold(n_reduce, n_inner) == expected


def test_columns_in_cache_are_cut_into_tiles_and_others_into_pieces_of_rows(monkeypatch):
    monkeypatch.setattr(_launch, "CHANNEL_BYTES", 1 << 19)
    cut = _launch.column_cut.__wrapped__
    assert cut((1, 300, 400), 4) == (1, 6, 1)
    assert cut((1, 8, 10), 4) == (8, 1, 1)
    assert cut((1, 4096, 1024), 4) == (1, 1, 8)
    assert cut((1, 16384, 1024), 4) == (1, 1, 16)
    assert cut((1, 100_000, 1024), 4) == (1, 1, 32)
    assert cut((4, 1000, 3000), 4) == (1, 3, 3)
    assert cut((1, 100_000, 16), 4) == (16, 1, 8)


@pytest.mark.parametrize("answer", [0, -1, ValueError("unrecognized"), OSError("no")])
def test_cache_sizes_that_the_system_does_not_know(answer, monkeypatch):
    def sysconf(name):
        assert name == "SC_LEVEL3_CACHE_SIZE"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(_launch.os, "sysconf", sysconf, raising=False)
    assert _launch._cache_bytes(3, 123) == 123


def test_cache_sizes_are_the_machines(monkeypatch):
    monkeypatch.setattr(_launch.os, "sysconf", lambda name: 1 << 21, raising=False)
    assert _launch._cache_bytes(2, 123) == 1 << 21
