"""Recycled results: never shared, never lost, never more than allowed."""

import gc
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import numbanorm as nn
from numbanorm import _pool
from numbanorm._pool import Pool

MIB = 1 << 20
SHAPE = (1 << 10, 1 << 10)  # 4 MiB of float32
FLOAT = np.dtype(np.float32)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def pool(monkeypatch):
    fresh = Pool(64 * MIB)
    monkeypatch.setattr(_pool, "pool", lambda: fresh)
    return fresh


def test_a_result_is_recycled_only_after_its_last_view(pool):
    x = np.ones(SHAPE, np.float32)
    y = nn.layer_norm(x)
    place = address(y)
    view = y.reshape(-1)[5:].view(np.uint8)[::3]
    del y
    assert address(nn.layer_norm(x)) != place
    assert view.base is not None
    del view
    assert address(nn.layer_norm(x)) == place


def test_two_living_results_never_share_memory(pool):
    x = np.ones(SHAPE, np.float32)
    results = [nn.layer_norm(x + i) for i in range(5)]
    for i, a in enumerate(results):
        assert not any(np.shares_memory(a, b) for b in results[:i])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_blocks_are_aligned_and_have_their_dtype(pool, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for _ in range(2):
        array = pool.empty((3, 700_001), dtype)
        assert array.dtype == dtype
        assert array.shape == (3, 700_001)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert address(array) % _pool.ALIGNMENT == 0
        array[...] = dtype.type(1)


def test_small_results_and_out_do_not_touch_it(pool):
    x = np.ones(SHAPE, np.float32)
    out = np.empty_like(x)
    assert nn.layer_norm(x, out=out) is out
    nn.layer_norm(x[:100])
    assert pool.held == 0
    nn.layer_norm(x)
    assert pool.held > 0


def test_free_blocks_stay_within_the_limit():
    pool = Pool(10 * MIB)
    arrays = [pool.empty((MIB,), np.dtype(np.uint8)) for _ in range(30)]
    assert pool.held == 0
    arrays.clear()
    assert 9 * MIB <= pool.held <= 10 * MIB
    del arrays
    large = pool.empty((11 * MIB,), np.dtype(np.uint8))
    del large
    assert pool.held <= 10 * MIB
    pool.clear()
    assert pool.held == 0


def test_neighbouring_sizes_share_a_block(pool):
    first = pool.empty((4_000_000,), FLOAT)
    place = address(first)
    del first
    assert address(pool.empty((3_990_000,), FLOAT)) == place


def test_blocks_are_at_most_an_eighth_too_large():
    for n in (MIB, MIB + 1, 3 * MIB + 7, 100 * MIB - 1, (1 << 33) + 5):
        assert n <= _pool._rounded(n) <= n * 9 / 8 + 1


def test_many_allocations_leak_nothing():
    pool = Pool(8 * MIB)
    pool.empty((MIB,), FLOAT)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            pool.empty((MIB,), FLOAT)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 100_000
    assert peak < 10 * MIB


def test_threads():
    pool = Pool(32 * MIB)
    wrong = []

    def work(number):
        for _ in range(300):
            array = pool.empty((MIB // 4,), FLOAT)
            array[:: MIB // 16] = number
            if not (array[:: MIB // 16] == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.held <= pool.limit


def test_a_block_may_die_while_the_pool_is_at_work(pool):
    array = pool.empty((MIB,), FLOAT)
    with pool._lock:  # as when the garbage collector runs inside a method
        del array
        assert address(pool.empty((MIB,), FLOAT))
    assert pool.held <= 4 * MIB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks():
    code = """
import os, numpy as np, numbanorm as nn
from numbanorm import _pool
pool = _pool.pool()
pool._lock.acquire()
child = os.fork()
if child == 0:
    a = pool.empty((1 << 20,), np.dtype("f4")); del a
    os._exit(0 if pool.held == 1 << 22 else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(("limit", "held"), [("0", 0), ("5000000", 1 << 22), ("", 1 << 22)])
def test_the_limit_is_read_from_the_environment(limit, held):
    code = (
        "import numpy as np, numbanorm as nn; from numbanorm import _pool\n"
        "_pool.empty((1 << 20,), np.dtype('f4')); print(_pool.pool().held); nn.empty_cache(); print(_pool.pool().held)"
    )
    environment = {**os.environ, "NUMBANORM_POOL_LIMIT": limit}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(held), "0"]


def test_a_bad_limit_is_an_error(monkeypatch):
    monkeypatch.setenv("NUMBANORM_POOL_LIMIT", "1 GB")
    with pytest.raises(ValueError, match=r"number of bytes.*'1 GB'"):
        _pool._default_limit()


def test_show_config_tells():
    assert "of at most" in nn.show_config("dict")["memory kept for results"]
