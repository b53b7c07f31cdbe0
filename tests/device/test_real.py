"""What only a device can show: streams, graphs, threads, other libraries' memory, sizes of memory."""

import threading

import cupy as cp
import numpy as np
import pytest

import numbanorm as nn
from tests.device.conftest import REAL
from tests.norms_backward.checks import assert_gradient, expected
from tests.oracle import as_dtype, assert_normalized, normalized

pytestmark = pytest.mark.skipif(not REAL, reason="needs NUMBANORM_TEST_DEVICE=cuda and a device")
#: One of each tier: a few threads a row, a warp, a block with registers, shared memory, in pieces.
LENGTHS = (1, 7, 32, 33, 128, 1000, 1024, 1025, 4096, 8192, 8200, 16384, 28000, 32768, 50001, 65536, 131072, 262144)
EPS = 1e-5


def in_threads(*calls):
    """Run calls at once, each in a thread of its own; their results, or the first error."""
    results, barrier = [None] * len(calls), threading.Barrier(len(calls))

    def run(i):
        try:
            barrier.wait()
            results[i] = calls[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def layer_norm(x):
    """The answer, on the host in float64."""
    return normalized(x, -1, EPS)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("n_cols", LENGTHS)
def test_rows_of_every_tier(n_cols, dtype, rng):
    """Many rows, and too few to fill the device, which are split; aligned, and not."""
    for n_rows in (3, 70):
        x = as_dtype(rng.standard_normal((n_rows, n_cols)) * 3 + 2, dtype)
        expected = layer_norm(x)
        memory = cp.empty(x.size + 1, x.dtype)
        for first in (0, 1):
            y = memory[first : first + x.size].reshape(x.shape)
            y.set(x)
            assert_normalized(cp.asnumpy(nn.layer_norm(y, eps=EPS)), expected)
            mean, var = nn.mean_var(y, -1)
            wide = x.astype("f8")
            rough = {"float32": 1e-5, "float64": 1e-11}.get(dtype, 1e-2)
            np.testing.assert_allclose(cp.asnumpy(mean).astype("f8"), wide.mean(-1), rtol=rough, atol=rough)
            np.testing.assert_allclose(cp.asnumpy(var).astype("f8"), wide.var(-1), rtol=rough, atol=rough)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("n_cols", LENGTHS)
def test_gradients_of_every_tier(n_cols, dtype, rng):
    """Rows in registers and in two visits, aligned and not, against the formulas in float64."""
    for n_rows in (3, 70, 300):
        x = as_dtype(rng.standard_normal((n_rows, n_cols)) * 3 + 100, dtype)
        dy, gamma = as_dtype(rng.standard_normal(x.shape), dtype), rng.standard_normal(n_cols).astype("f4")
        wanted = expected(dy, x, gamma, (1,), (1,), eps=EPS)
        memory = cp.empty((2, x.size + 1), x.dtype)
        for first in (0, 1):
            given = [row[first : first + x.size].reshape(x.shape) for row in memory]
            for target, values in zip(given, (dy, x), strict=True):
                target.set(values)
            _, *statistics = nn.layer_norm(given[1], cp.asarray(gamma), eps=EPS, return_stats=True)
            results = nn.layer_norm_backward(*given, cp.asarray(gamma), *statistics, eps=EPS)
            # What cancels in dx is as large as gamma * rstd.
            largest = max(1.0, float(np.abs(gamma).max() * cp.asnumpy(statistics[1]).max()))
            for ours, theirs in zip(results, wanted, strict=True):
                assert_gradient(cp.asnumpy(ours), theirs, scale=largest)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(8, 64, 56, 56), (32, 512, 7, 7), (4, 32, 112, 112), (300, 24, 5, 1)], ids=str)
def test_gradients_of_channels_and_groups(shape, dtype, rng):
    """Both layouts; the same bits in every run."""
    x, dy = (as_dtype(rng.standard_normal(shape) * 2 + shift, dtype) for shift in (10, 0))
    gamma = rng.standard_normal(shape[1]).astype("f4")
    spread = gamma[:, None, None]
    cases = {
        "batch": (nn.batch_norm, nn.batch_norm_backward, (0, 2, 3), {"training": True}),
        "instance": (nn.instance_norm, nn.instance_norm_backward, (2, 3), {}),
    }
    for name, (forward, backward, axes, options) in cases.items():
        if name == "instance" and dtype == "bfloat16" and shape[2] * shape[3] < 8:
            continue
        wanted = expected(dy, x, spread, axes, (1,), eps=EPS)
        for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
            back = np.argsort(order)
            given = [cp.asarray(np.ascontiguousarray(a.transpose(order))).transpose(back) for a in (dy, x)]
            _, *statistics = forward(given[1], cp.asarray(gamma), return_stats=True, **options)
            results = backward(*given, cp.asarray(gamma), *statistics, **options)
            for ours, theirs in zip(results, wanted, strict=True):
                assert_gradient(cp.asnumpy(ours), theirs)
            again = backward(*given, cp.asarray(gamma), *statistics, **options)
            assert all(bool((a == b).all()) for a, b in zip(results[1:], again[1:], strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_torch(dtype, rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng.standard_normal((64, 1000)) * 3 + 2).to("cuda", getattr(torch, dtype))
    expected = layer_norm(x.double().cpu().numpy())
    name = as_dtype(0.0, dtype).dtype
    y = nn.layer_norm(x, eps=EPS)
    assert isinstance(y, torch.Tensor)
    assert (y.dtype, y.device) == (x.dtype, x.device)
    assert_normalized(y.double().cpu().numpy(), expected, name)
    out = torch.empty_like(x)
    assert nn.layer_norm(x, eps=EPS, out=out) is out
    assert torch.equal(out, y)
    # A view with gaps, and memory that torch frees and gives away again at once.
    assert_normalized(nn.layer_norm(x[::2], eps=EPS).double().cpu().numpy(), expected[::2], name)
    for _ in range(20):
        z = nn.layer_norm(x.clone(), eps=EPS)
    assert torch.equal(z, y)
    mean, var = nn.mean_var(x, 0)
    assert isinstance(mean, torch.Tensor)
    assert torch.allclose(var.double(), x.double().var(0, correction=0), rtol=1e-2)


def test_torch_streams(rng):
    """Work goes behind what is on torch's current stream, and before what comes after."""
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(rng.standard_normal((512, 4096)).astype("f4"))
    expected = layer_norm(values.numpy())
    stream = torch.cuda.Stream()
    x = torch.zeros(values.shape, device="cuda")
    source = values.cuda()
    torch.cuda.synchronize()
    for _ in range(5):
        with torch.cuda.stream(stream):
            x.zero_()
            torch.cuda._sleep(20_000_000)
            x.copy_(source)
            y = nn.layer_norm(x, eps=EPS)
            x.zero_()
        stream.synchronize()
        assert_normalized(y.cpu().numpy(), expected)


def test_torch_and_cupy_by_dlpack(rng):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng.standard_normal((16, 256)).astype("f4")).cuda()
    torch.cuda.synchronize()
    y = nn.layer_norm(cp.from_dlpack(x), eps=EPS)
    assert isinstance(y, cp.ndarray)
    assert_normalized(torch.from_dlpack(y).cpu().numpy(), layer_norm(x.cpu().numpy()))


def test_numba(rng):
    from numba import cuda

    x = rng.standard_normal((64, 1000)).astype("f4")
    y = nn.layer_norm(cuda.to_device(x), eps=EPS)
    assert type(y).__module__.startswith("numba")
    assert_normalized(y.copy_to_host(), layer_norm(x))
    stream = cuda.stream()
    y = nn.layer_norm(cuda.to_device(x, stream=stream), eps=EPS)
    cuda.synchronize()
    assert_normalized(y.copy_to_host(), layer_norm(x))


CALLS = {
    "registers": ((256, 1024), lambda x: nn.layer_norm(x, eps=EPS)),
    "shared": ((256, 24576), lambda x: nn.layer_norm(x, eps=EPS)),
    "split": ((4, 131072), lambda x: nn.layer_norm(x, eps=EPS)),
    "channels": ((4096, 64), lambda x: nn.batch_norm(x, training=True, channel_axis=-1)),
    "statistics": ((4096, 64), lambda x: nn.mean_var(x, 0).var),
    "all": ((1024, 1024), lambda x: nn.mean_var(x).var),
    "gradient": ((256, 1024), lambda x: nn.layer_norm_backward(x, x, None, x[:, 0], x[:, 1])[0]),
    "gaps": ((512, 1024), lambda x: nn.mean_var(x[::2, ::2], 1).var),
    "in two": ((64, 32, 100), lambda x: nn.layer_norm(x, axis=1)),
}


@pytest.mark.parametrize(("shape", "call"), CALLS.values(), ids=CALLS)
def test_graphs(shape, call, rng):
    """A captured call computes from what is in x when it is replayed, as often as one likes."""
    values = rng.standard_normal(shape).astype("f4")
    x = cp.asarray(values)
    stream = cp.cuda.Stream(non_blocking=True)
    cp.cuda.runtime.deviceSynchronize()
    with stream:
        call(x)
        stream.synchronize()
        stream.begin_capture()
        y = call(x)
        graph = stream.end_capture()
        others = [cp.full(n, 7, "f4") for n in (1 << k for k in range(1, 20)) for _ in range(4)]
        for k in range(1, 4):
            x.set(values * np.float32(k))
            graph.launch(stream)
            replayed = cp.asnumpy(y)
            stream.synchronize()
            np.testing.assert_array_equal(replayed, cp.asnumpy(call(x)))
        assert all((cp.asnumpy(other) == 7).all() for other in others), "a replay wrote to memory of others"


@pytest.mark.parametrize(("shape", "call"), CALLS.values(), ids=CALLS)
def test_two_streams(shape, call, rng):
    """Each has its own scratch: nothing of one shows in the other."""
    inputs = [cp.asarray((rng.standard_normal(shape) * k).astype("f4")) for k in (1, 5)]
    expected = [cp.asnumpy(call(x)) for x in inputs]
    streams = [cp.cuda.Stream(non_blocking=True) for _ in inputs]
    cp.cuda.runtime.deviceSynchronize()
    found = [[], []]
    for _ in range(20):
        for i, stream in enumerate(streams):
            with stream:
                found[i].append(call(inputs[i]))
    cp.cuda.runtime.deviceSynchronize()
    for ours, answer in zip(found, expected, strict=True):
        for y in ours:
            np.testing.assert_array_equal(cp.asnumpy(y), answer)


@pytest.mark.parametrize("shape", [(4096, 64), (32, 64, 56, 56), (2, 8, 256, 256)], ids=str)
def test_two_threads_on_the_null_stream(shape, rng):
    """Batch norm in training, whose launches hand statistics to one another, at once."""
    inputs = [cp.asarray((rng.standard_normal(shape) * k + k).astype("f4")) for k in (1, 7)]

    def train(x):
        def call():
            running = cp.zeros(shape[1], "f4"), cp.zeros(shape[1], "f4")
            results = [nn.batch_norm(x, None, None, *running, training=True, eps=EPS) for _ in range(20)]
            first, *others = map(cp.asnumpy, results)
            return first, cp.asnumpy(running[0]), all(np.array_equal(y, first) for y in others)

        return call

    calls = [train(x) for x in inputs]
    alone = [call() for call in calls]
    for (y, mean, same), (y_alone, mean_alone, _) in zip(in_threads(*calls), alone, strict=True):
        assert same
        np.testing.assert_array_equal(y, y_alone)
        np.testing.assert_array_equal(mean, mean_alone)


def test_a_thread_that_never_touched_cuda(rng):
    x = rng.standard_normal((8, 1000)).astype("f4")
    given = cp.asarray(x)
    cp.cuda.runtime.deviceSynchronize()
    for y in in_threads(lambda: cp.asnumpy(nn.layer_norm(given, eps=EPS))):
        assert_normalized(y, layer_norm(x))

    def numpy_there():
        with nn.use_backend("cuda"):
            return nn.layer_norm(x, eps=EPS)

    assert_normalized(in_threads(numpy_there)[0], layer_norm(x))


@pytest.mark.parametrize("shape", [(1 << 20, 2056), (1 << 15, 65664), (8195, 262144)], ids=str)
def test_more_than_two_billion_elements(shape, rng):
    """Offsets beyond 2**31: the last rows are as right as the first."""
    n = shape[0] * shape[1]
    assert n > 1 << 31
    if cp.cuda.runtime.memGetInfo()[0] < 2 * 2 * n + (4 << 30):
        pytest.skip("the device has too little memory")
    try:
        x = cp.zeros(shape, "f2")
        ends = [slice(0, 4), slice(shape[0] - 4, None)]
        rows = [rng.standard_normal((4, shape[1])).astype("f2") for _ in ends]
        for end, values in zip(ends, rows, strict=True):
            x[end].set(values)
        mean, var = nn.mean_var(x, -1)
        for end, values in zip(ends, rows, strict=True):
            np.testing.assert_allclose(cp.asnumpy(var[end]).astype("f8"), values.astype("f8").var(-1), rtol=2e-3)
        assert not cp.asnumpy(mean[4:-4]).any()
        assert nn.layer_norm(x, eps=EPS, out=x) is x
        for end, values in zip(ends, rows, strict=True):
            assert_normalized(cp.asnumpy(x[end]), layer_norm(values))
        assert not cp.asnumpy(x[shape[0] // 2]).any()
    finally:
        x = None
        cp.get_default_memory_pool().free_all_blocks()
