"""Outputs that bypass the caches hold the same bits as those that do not."""

import contextlib
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanorm as nn
from numbanorm.backends.cpu import _stream

pytestmark = pytest.mark.compiled  # nothing is streamed with the JIT off

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
dimension = st.sampled_from([1, 2, 3, 7, 16, 33, 64, 65, 100, 300])

CALLS = {
    "layer_norm": lambda x, out: nn.layer_norm(x, out=out),
    "layer_norm, parameters": lambda x, out: nn.layer_norm(x, np.arange(x.shape[-1]), out=out),
    "columns": lambda x, out: nn.layer_norm(x, axis=1, out=out),
    "batch_norm": lambda x, out: nn.batch_norm(x, np.arange(x.shape[1]), training=x.size > x.shape[1], out=out),
    "channels-last": lambda x, out: nn.batch_norm(x, np.arange(x.shape[-1]), training=True, channel_axis=-1, out=out),
    "evaluation": lambda x, out: nn.batch_norm(x, None, None, *np.ones((2, x.shape[1])), training=False, out=out),
    "group_norm": lambda x, out: nn.group_norm(x, 1, np.arange(x.shape[1]), out=out),
}


@contextlib.contextmanager
def streaming(on):
    with mock.patch.multiple(_stream, STREAM_BYTES=0 if on else 1 << 60, SHORTEST_RUN=0):
        yield


@pytest.mark.parametrize("call", CALLS)
@given(shape=st.tuples(st.integers(1, 3), dimension, dimension), dtype=st.sampled_from(DTYPES), shift=st.integers(0, 9))
def test_the_same_bits_and_nothing_beyond(call, shape, dtype, shift):
    if shape[0] * shape[2] == 1 or shape[0] * shape[1] == 1:
        return  # batch norm has nothing to normalise
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    with streaming(False):
        expected = CALLS[call](x, np.empty_like(x))
    memory = np.full(x.size + 40, 7, dtype)
    with streaming(True):
        actual = CALLS[call](x, memory[shift : shift + x.size].reshape(shape))
    np.testing.assert_array_equal(actual.view(np.uint8), expected.view(np.uint8))
    assert (memory[:shift] == 7).all()
    assert (memory[shift + x.size :] == 7).all()


def test_which_outputs_stream():
    large, small = np.empty(1 << 24, np.float32), np.empty(1 << 10, np.float32)
    assert _stream.goes_past_caches(small, large, 1 << 12)
    assert not _stream.goes_past_caches(large, large, 1 << 12)
    assert not _stream.goes_past_caches(small, large, 16)
    assert not _stream.goes_past_caches(large, small, 1 << 10)
