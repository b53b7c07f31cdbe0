"""Every row of the table of errors, word for word; nothing is changed by a call that fails."""

import numpy as np
import pytest

import numbanorm as nn

F = np.float32


def batch(shape, eps=1e-5, training=True, channels=None):
    c = channels or shape[1]
    return nn.batch_norm(np.ones(shape, F), None, None, np.zeros(c), np.ones(c), training=training, eps=eps)


ROWS = [
    (lambda: batch((1, 3)), ValueError, "Expected more than 1 value per channel when training, got input size (1, 3)"),
    (
        lambda: nn.BatchNorm1d(3)(np.ones((1, 3), F)),
        ValueError,
        "Expected more than 1 value per channel when training, got input size (1, 3)",
    ),
    (lambda: nn.BatchNorm1d(3)(np.ones(3, F)), ValueError, "expected 2D or 3D input (got 1D input)"),
    (lambda: nn.BatchNorm2d(3)(np.ones((2, 3, 4), F)), ValueError, "expected 4D input (got 3D input)"),
    (lambda: nn.BatchNorm3d(3)(np.ones((2, 3, 4, 5), F)), ValueError, "expected 5D input (got 4D input)"),
    (lambda: nn.InstanceNorm1d(3)(np.ones(3, F)), ValueError, "expected 2D or 3D input (got 1D input)"),
    (lambda: batch((2, 3), channels=4), ValueError, "running_mean should contain 3 elements not 4"),
    (lambda: nn.BatchNorm1d(4)(np.ones((2, 3), F)), ValueError, "running_mean should contain 3 elements not 4"),
    (
        lambda: nn.BatchNorm1d(4, track_running_stats=False)(np.ones((2, 3), F)),
        ValueError,
        "gamma should contain 3 elements not 4",
    ),
    (
        lambda: nn.batch_norm(np.ones((2, 3), F), np.ones(4), training=True),
        ValueError,
        "gamma should contain 3 elements not 4",
    ),
    (
        lambda: nn.instance_norm(np.ones((2, 3, 4), F), None, np.ones(4)),
        ValueError,
        "beta should contain 3 elements not 4",
    ),
    (
        lambda: nn.batch_norm(np.ones((2, 3), F), running_var=np.ones(4), training=True),
        ValueError,
        "running_var should contain 3 elements not 4",
    ),
    (lambda: batch((2, 3), eps=0), ValueError, "batch_norm eps must be positive during training, but got 0"),
    (lambda: batch((2, 3), eps=-1), ValueError, "batch_norm eps must be non-negative, but got -1"),
    (lambda: batch((2, 3), eps=-1, training=False), ValueError, "batch_norm eps must be non-negative, but got -1"),
    (lambda: nn.layer_norm(np.ones(3, F), eps=-1), ValueError, "layer_norm eps must be non-negative, but got -1"),
    (lambda: nn.group_norm(np.ones((2, 3), F), 2), ValueError, "num_channels (3) must be divisible by num_groups (2)"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "num_channels (3) must be divisible by num_groups (2)"),
    (lambda: nn.group_norm(np.ones((2, 3), F), -1), ValueError, "Expected num groups to be greater than 0, got -1"),
    (lambda: nn.GroupNorm(0, 3), ValueError, "Expected num groups to be greater than 0, got 0"),
    (
        lambda: nn.instance_norm(np.ones((2, 3, 1), F)),
        ValueError,
        "Expected more than 1 spatial element when training, got input size (2, 3, 1)",
    ),
    (
        lambda: nn.InstanceNorm1d(3)(np.ones((2, 3, 1), F)),
        ValueError,
        "Expected more than 1 spatial element when training, got input size (2, 3, 1)",
    ),
    (
        lambda: nn.LayerNorm(4)(np.ones((2, 3), F)),
        ValueError,
        "Given normalized_shape=(4,), expected input with shape (*, 4), but got input of size (2, 3)",
    ),
    (
        lambda: nn.LayerNorm(4)(np.ones((2, 3), F)),
        RuntimeError,
        "Given normalized_shape=(4,), expected input with shape (*, 4), but got input of size (2, 3)",
    ),
    (
        lambda: nn.RMSNorm((5, 4))(np.ones(4, F)),
        ValueError,
        "Given normalized_shape=(5, 4), expected input with shape (*, 5, 4), but got input of size (4,)",
    ),
    (lambda: nn.mean(np.ones((2, 3)), axis=(0, 0)), ValueError, "duplicate value in 'axis'"),
    (
        lambda: nn.mean(np.ones((2, 3)), axis=5),
        np.exceptions.AxisError,
        "axis 5 is out of bounds for array of dimension 2",
    ),
    (
        lambda: nn.var(np.ones(3), ddof=1, correction=1),
        ValueError,
        "ddof and correction can't be provided simultaneously.",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), ROWS)
def test_word_for_word(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


NORMS = [
    nn.layer_norm,
    nn.rms_norm,
    nn.standardize,
    nn.instance_norm,
    lambda x: nn.batch_norm(x, training=True),
    lambda x: nn.group_norm(x, 1),
    nn.BatchNorm(3),
    nn.LayerNorm(4),
]
STATISTICS = [nn.mean, nn.var, nn.std, nn.mean_var, nn.moments]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ["i4", "u1", "?"])
def test_a_norm_of_integers_says_what_to_write(norm, dtype):
    with pytest.raises(TypeError, match=r"x\.astype\(np\.float32\)"):
        norm(np.ones((2, 3, 4), dtype))


@pytest.mark.parametrize("function", NORMS + STATISTICS)
@pytest.mark.parametrize("dtype", ["c8", "c16", "O", "U3", "S3", "M8[s]", "m8[s]", [("a", "f4")]])
def test_other_dtypes_are_named(function, dtype):
    dtype = np.dtype(dtype)
    with pytest.raises(TypeError) as caught:
        function(np.zeros((2, 3, 4), dtype))
    assert str(dtype) in str(caught.value)


@pytest.mark.parametrize("function", NORMS + STATISTICS)
def test_masked_arrays_are_sent_to_where(function):
    with pytest.raises(TypeError, match="where="):
        function(np.ma.masked_less(np.ones((2, 3, 4), F), 0.5))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"gamma": np.ones(4)}, ValueError, "gamma should contain 3 elements not 4"),
        ({"gamma": np.ones((3, 1))}, ValueError, r"gamma should have shape \(3,\), but has \(3, 1\)"),
        ({"running_var": np.ma.ones(3)}, TypeError, "MaskedArray"),
        ({"gamma": np.array(["a"] * 3)}, TypeError, "gamma has dtype <U1"),
        ({"beta": np.ones(3, complex)}, TypeError, "beta has dtype complex128"),
        ({"running_var": np.ones(3, int)}, TypeError, "running_var must be a floating-point NumPy array"),
        ({"running_var": [1.0, 1.0, 1.0]}, TypeError, "but got list"),
        ({"eps": -1}, ValueError, "non-negative"),
        ({"eps": float("nan")}, ValueError, "non-negative"),
        ({"channel_axis": 3}, np.exceptions.AxisError, "out of bounds"),
        ({"out": np.empty((2, 4), F)}, ValueError, r"out should have shape \(2, 3\), but has \(2, 4\)"),
        ({"out": np.empty((2, 3), int)}, TypeError, "cannot write a float32 result to out with dtype int64"),
        ({"out": "no"}, TypeError, "out must be an array"),
    ],
)
def test_a_failed_call_changes_nothing(options, error, text):
    x = np.arange(6, dtype=F).reshape(2, 3)
    arrays = {"running_mean": np.full(3, 2.0), "running_var": np.full(3, 3.0), "out": np.full((2, 3), 4, F)}
    arguments = {**arrays, **options}
    before = {key: np.copy(value) for key, value in arguments.items()}
    with pytest.raises(error, match=text):
        nn.batch_norm(x, training=True, **arguments)
    np.testing.assert_array_equal(x, np.arange(6).reshape(2, 3))
    for key, value in arguments.items():
        np.testing.assert_array_equal(value, before[key])


def test_read_only_running_statistics_are_refused_before_anything_is_written():
    mean, var, out = np.zeros(3), np.ones(3), np.full((2, 3), 9, F)
    var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var is read-only"):
        nn.batch_norm(np.ones((2, 3), F), None, None, mean, var, training=True, out=out)
    assert not mean.any()
    assert (out == 9).all()
    nn.batch_norm(np.ones((2, 3), F), None, None, mean, var, training=False)


def test_evaluation_needs_running_statistics():
    with pytest.raises(ValueError, match="needs running_mean and running_var"):
        nn.batch_norm(np.ones((2, 3), F), None, None, np.zeros(3), training=False)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: nn.layer_norm(np.ones((2, 3), F), np.ones(2)), r"gamma should have shape \(3,\)"),
        (
            lambda: nn.layer_norm(np.ones((2, 3), F), eps_on="mean"),
            "eps_on must be one of 'var', 'std', but got 'mean'",
        ),
        (lambda: nn.standardize(np.ones((2, 3), F), gamma=np.ones(2)), r"gamma with shape \(2,\) does not broadcast"),
        (lambda: nn.standardize(np.ones(3, F), beta=np.ones((2, 3))), r"beta with shape \(2, 3\) does not broadcast"),
        (lambda: nn.batch_norm(np.ones(3, F), training=True), r"expected at least 2D input \(got 1D input\)"),
        (lambda: nn.group_norm(np.ones((1, 3), F), 3), "Expected more than 1 value per channel when training"),
    ],
)
def test_other_messages(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_a_fractional_number_of_groups():
    with pytest.raises(TypeError):
        nn.group_norm(np.ones((2, 4), F), 2.0)
