"""What only compiled code can show: threads, forks, bits, types, machine code, the cache."""

import os
import subprocess
import sys
import textwrap
import threading

import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

import numbanorm as nn
from numbanorm.backends import cpu
from numbanorm.backends.cpu import (
    _column_lines,
    _jit,
    _kernels,
    _kernels_backward,
    _line_sums,
    _masked_elements,
    _masked_kernels,
    _masked_kernels_backward,
    _masked_rows,
    _masked_rows_backward,
    _masked_short,
    _masked_sums_backward,
    _runs,
    _sums_backward,
    _write_backward,
    affine,
    mean_var,
    moments,
)

pytestmark = pytest.mark.compiled

MODULES = (
    moments,
    mean_var,
    affine,
    _kernels,
    _kernels_backward,
    _masked_kernels,
    _masked_rows,
    _masked_short,
    _masked_kernels_backward,
    _masked_rows_backward,
)
KERNELS = {kernel for module in MODULES for kernel in vars(module).values() if isinstance(kernel, _jit.Kernel)}
#: The loops that see every element of x.
LOOPS = (
    _line_sums._lines_summed,
    _column_lines._rows_added,
    _runs._written_run,
    _sums_backward.gradient_sums,
    _sums_backward.weighted_gradient_sums,
    _sums_backward.add_columns,
    _sums_backward.column_gradient_sums,
    _write_backward.write_segment_gradients,
    _write_backward.write_row_gradients,
    _write_backward.write_column_gradients,
    _masked_elements.count_true,
    _masked_short._short_moments,
    _masked_short._write_short,
    _masked_sums_backward.copy_taken,
    _masked_sums_backward.standardize_taken,
    _masked_sums_backward.standardize_taken_columns,
    _masked_sums_backward.count_columns,
)


def run(code, **environment):
    """Run code in a fresh interpreter; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:] + f"\nexit status {done.returncode}"
    return done.stdout


def results(rng):
    """One call of every launcher on inputs that reach the parallel twin."""
    image = rng.standard_normal((16, 70, 15, 15)).astype(np.float32) + 100
    rows = rng.standard_normal((300, 500)).astype(np.float32)
    tall = rng.standard_normal((200_000, 5)).astype(np.float32) + 1000
    gamma = rng.standard_normal(70).astype(np.float32)
    yield from nn.mean_var(image, axis=(0, 2, 3))
    yield from nn.mean_var(image, axis=1)
    yield from nn.mean_var(rows)
    yield from nn.mean_var(rows, axis=0, where=rows > 0)
    yield from nn.mean_var(rows, axis=1, where=rows > 0)
    yield from nn.mean_var(tall, axis=0)
    yield from nn.mean_var(tall[::2], axis=0)
    yield nn.layer_norm(rows)
    yield nn.layer_norm(image, gamma, axis=1)
    yield nn.rms_norm(rows.astype(np.float16))
    yield nn.batch_norm(image, gamma, training=True)
    yield nn.batch_norm(tall, training=True)
    yield nn.batch_norm(image, gamma, None, gamma, gamma**2, training=False)
    yield nn.instance_norm(image, gamma)
    yield nn.group_norm(image, 7, gamma)
    yield nn.standardize(tall.reshape(-1))
    yield from masked_results(image, rows)
    yield from gradients(nn.layer_norm, nn.layer_norm_backward, rows, rows[0])
    yield from gradients(nn.layer_norm, nn.layer_norm_backward, tall.reshape(2, -1), tall.reshape(-1)[: tall.size // 2])
    yield from gradients(nn.instance_norm, nn.instance_norm_backward, image, gamma)
    for x, scale in ((image, gamma), (rows, rows[0]), (tall, gamma[:5]), (image[:1].repeat(70, 0), gamma)):
        yield from gradients(nn.batch_norm, nn.batch_norm_backward, x, scale, training=True)
    _, mean, rstd = nn.group_norm(image, 2, gamma, return_stats=True)
    yield from nn.group_norm_backward(image[::-1], image, 2, gamma, mean, rstd)
    yield from nn.batch_norm_backward(tall[::-1], tall, gamma[:5], gamma[:5], gamma[:5], training=False)
    yield nn.standardize_backward(tall[::-1], tall)[0]


def masked_results(image, rows):
    lengths = np.arange(len(image)) % 16
    for chosen in ({"where": image > 100}, {"lengths": lengths, "length_axis": 2}):
        yield nn.batch_norm(image, training=True, **chosen)
        yield nn.instance_norm(image, **chosen)
        yield nn.layer_norm(image, axis=(1, 2, 3), **chosen)
    for chosen in ({"where": rows > 0}, {"lengths": np.arange(len(rows)), "length_axis": 1}):
        _, mean, rstd = nn.layer_norm(rows, return_stats=True, **chosen)
        yield from nn.layer_norm_backward(rows[::-1], rows, rows[0], mean, rstd, **chosen)


def gradients(forward, backward, x, gamma, **options):
    _, mean, rstd = forward(x, gamma, None, return_stats=True, **options)
    return backward(x[::-1], x, gamma, mean, rstd, **options)


def test_bitwise_equal_for_any_number_of_threads():
    threads = numba.get_num_threads()
    expected = list(results(np.random.default_rng(0)))
    try:
        for n in range(1, threads + 1):
            numba.set_num_threads(n)
            for actual, wanted in zip(results(np.random.default_rng(0)), expected, strict=True):
                np.testing.assert_array_equal(actual, wanted)
    finally:
        numba.set_num_threads(threads)


def test_parts_in_turn_give_the_same_bits(monkeypatch):
    expected = list(results(np.random.default_rng(0)))
    monkeypatch.setattr(_jit.Kernel, "__call__", lambda kernel, n_parts, *args: kernel.run(n_parts, 0, *args))
    for actual, wanted in zip(results(np.random.default_rng(0)), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


THREADS = """
    import threading
    import numpy as np
    import numbanorm as nn

    x = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    expected = nn.layer_norm(x), nn.var(x, axis=0)
    wrong = []

    def work():
        for _ in range(100):
            for actual, wanted in zip((nn.layer_norm(x), nn.var(x, axis=0)), expected):
                if not np.array_equal(actual, wanted):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong
    print(nn.show_config("dict")["threading layer"])
"""

FORK = """
    import multiprocessing
    import numpy as np
    import numbanorm as nn

    x = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    expected = nn.layer_norm(x)

    def child(_):
        return bool(np.array_equal(nn.layer_norm(x), expected)), float(nn.var(x))

    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map(child, range(8))
    assert all(same for same, _ in answers)
    assert np.array_equal(nn.layer_norm(x), expected)
    print(nn.show_config("dict")["threading layer"])
"""


#: The parent ran parallel code of its own, so that its threads are not in the child.
FORK_AFTER_OTHERS = """
    import os
    import numba
    import numpy as np
    import numbanorm as nn

    @numba.njit(parallel=True)
    def mine(a):
        for i in numba.prange(a.size):
            a[i] = i

    if os.environ["NUMBA_THREADING_LAYER"] == "tbb":
        nn.get_backend()  # which finds the library
    mine(np.zeros(1000))
    if os.fork() == 0:
        nn.layer_norm(np.ones((512, 256), np.float32))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    nn.layer_norm(np.ones((512, 256), np.float32))
    print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
@pytest.mark.parametrize(
    "code",
    [THREADS, FORK, FORK_AFTER_OTHERS],
    ids=["threads", "fork", "fork-after-others"],
)
def test_no_call_aborts_the_process(code, layer):
    """Python threads that meet, and forked children, under every threading layer."""
    if "fork" in code and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    assert run(code, NUMBA_THREADING_LAYER=layer).split()[-1] == layer


def test_losers_take_the_parts_in_turn(monkeypatch):
    gate = _jit._Gate()
    gate._owner = os.getpid()
    taken = []

    class Recorder:
        def run(self, n_parts, region):
            taken.append("parallel" if region else "in turn")
            if region:
                thread = threading.Thread(target=gate.guarded, args=(Recorder(), n_parts, ()))
                thread.start()
                thread.join()

    gate.guarded(Recorder(), 2, ())
    assert taken == ["parallel", "in turn"]
    monkeypatch.setattr(_jit, "threading_layer", lambda: "omp")
    gate._owner = -1
    gate.guarded(Recorder(), 2, ())
    assert taken == ["parallel", "in turn", "in turn"]


def test_the_tbb_wheel_is_found():
    pytest.importorskip("numba.np.ufunc.tbbpool")
    code = "import numbanorm as nn; print(nn.show_config('dict')['threading layer'])"
    assert run(code, NUMBA_THREADING_LAYER="default").strip() == "tbb"


def test_one_specialisation_for_every_rank_and_layout(rng):
    kernel = _kernels.norm_rows_kernel.run
    nn.layer_norm(np.ones((2, 3), np.float32))
    count = len(kernel.signatures)
    x = rng.standard_normal((2, 3, 2, 4)).astype(np.float32)
    readonly = x.copy()
    readonly.flags.writeable = False
    for y in (x, x[0], x[0, 0], x[0, 0, 0], readonly, x[:, ::2], np.asfortranarray(x), x[::-1]):
        nn.layer_norm(y)
        nn.layer_norm(y, np.ones(y.shape[-1], np.float64), return_stats=True)
        nn.rms_norm(y, out=y.copy())
    assert len(kernel.signatures) == count


def gradients_of_masks():
    x, mask, gamma, statistic = np.ones((2, 3), np.float32), np.ones((2, 3), bool), np.ones(3, np.float32), np.ones(3)
    outputs, scale = (gamma.copy(), gamma.copy()), (0.0, 0.0, True, False)
    of_rows = gamma, statistic[:2], statistic[:2], *scale
    cpu.masked_rows_backward(x, x, mask, *of_rows, x.copy(), *outputs)
    cube, taken = x[:, :, None], mask[:, :, None]
    cpu.masked_groups_backward(cube, cube, taken, *of_rows, cube.copy(), *outputs)
    of_channels = gamma, statistic, statistic, 0.0, 0.0, False, False
    cpu.masked_channels_backward(cube, cube, taken, *of_channels, cube.copy(), *outputs)


@pytest.mark.skipif(not get_host_cpu_features().get("avx2"), reason="the names of other machines' registers differ")
def test_main_loops_use_vector_registers():
    """Reductions and writes are packed: no element-by-element gathers, several accumulators."""
    nn.layer_norm(np.ones((2, 3), np.float32), np.ones(3))
    nn.var(np.ones((300, 300), np.float32), axis=0)
    nn.layer_norm(np.ones((2, 3, 4), np.float32), axis=1)
    x, per_row, per_column = np.ones((2, 3), np.float32), np.ones(2), np.ones(3)
    nn.layer_norm(x, where=x > 0)
    nn.layer_norm_backward(x, x, per_column, per_row, per_row)
    nn.layer_norm_backward(x, x, None, per_row, per_row)
    nn.batch_norm_backward(x, x, per_column, per_column, per_column, training=True)
    gradients_of_masks()
    for kernel in (
        _kernels.norm_rows_kernel,
        moments._moments_cols_kernel,
        affine._affine_cols_kernel,
        _kernels_backward.rows_kernel,
        _kernels_backward.groups_kernel,
        _kernels_backward.column_sums_kernel,
        _kernels_backward.column_gradients_kernel,
        _masked_short.masked_short_kernel,
        _masked_rows_backward.rows_kernel,
        _masked_kernels_backward.groups_kernel,
        _masked_kernels_backward.column_sums_kernel,
        _masked_kernels_backward.column_gradients_kernel,
    ):
        kernel.run.recompile()  # code from the cache cannot be inspected
    for function in LOOPS:
        code = "\n".join(function.inspect_asm().values())
        assert "ymm" in code or "zmm" in code, function.__name__
        assert "gather" not in code, function.__name__


def test_kernels_write_nothing_but_their_outputs(rng):
    assert len(KERNELS) >= 8
    x = rng.standard_normal((4, 5)).astype(np.float32)
    x.flags.writeable = False
    gamma = np.ones(5, np.float32)
    gamma.flags.writeable = False
    nn.layer_norm(x, gamma, gamma)
    nn.batch_norm(x, gamma, gamma, training=True)
    nn.layer_norm(x, gamma, gamma, where=x > 0)
    for kernel in KERNELS:
        for signature in kernel.run.signatures:
            arrays = [argument for argument in signature[2] if isinstance(argument, numba.types.Array)]
            assert not arrays[0].mutable
            if "norm" in kernel.name:
                n_inputs = 4 if "masked" in kernel.name else 3
                assert [array.mutable for array in arrays] == [False] * n_inputs + [True] * 3


MEMORY = """
    import resource
    import numpy as np
    import numbanorm as nn
    from numbanorm.backends.cpu import moments

    x = np.ones({shape}, np.float32)
    for axis in {axes}:  # load the kernels
        nn.mean_var(np.ones(({small}), np.float32), axis=axis)
    nn.mean_var(np.ones((1 << 14, 64), np.float32), axis=0)
    one = [np.ones(1) for _ in range(6)]
    for array in one[:3]:
        array.flags.writeable = False
    moments._combine_moments_kernel(2, *one[:3], (1, 1, 1), *one[3:])
    moments.FEW_SETS = 0
    for dtype in ("f4", "f8"):
        moments.finish_moments(*one[:3], 0, True, False, *np.ones((2, 1), dtype))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for axis in {axes}:
        nn.mean_var(x, axis=axis)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(
    ("shape", "axes", "small"),
    [
        ("(1 << 14, 1 << 14)", "(None, 1, 0)", "300, 400"),
        ("(646, 646, 643)", "((0, 2), (1, 2))", "50, 60, 70"),
    ],
)
def test_a_gigabyte_is_reduced_in_two_megabytes(shape, axes, small):
    assert int(run(MEMORY.format(shape=shape, axes=axes, small=small))) < 2048


def test_gaps_are_gathered_piece_by_piece():
    code = """
        import tracemalloc
        import numpy as np
        import numbanorm as nn

        x = np.ones((4000, 4000), np.float32)[:, ::2]
        nn.mean_var(x[:100], axis=0), nn.mean_var(x[:100], axis=0, where=x[:100] > 0)
        tracemalloc.start()
        nn.mean_var(x, axis=0), nn.mean_var(x.astype(">f4", copy=False)[::-1], axis=1)
        print(tracemalloc.get_traced_memory()[1])
    """
    assert int(run(code)) < 40_000_000  # the byte-swapped copy that the test itself makes is 32 MB
