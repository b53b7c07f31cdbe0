"""What the five source articles print and state."""

import json
from pathlib import Path

import numpy as np
import pytest

import numbanorm as nn
from tests.oracle import spread

GOLDEN = json.loads((Path(__file__).parent / "data" / "seeds_golden.json").read_text())["cases"]


def inputs(name):
    """The recipe of the file: batch norm's three inputs from one seed, layer norm's from a fresh one."""
    random = np.random.RandomState(0)
    if name.startswith("layer_norm"):
        return random.randn(2, 3, 4).astype(np.float32)
    drawn = {
        key: random.randn(*shape) for key, shape in (("1d", (1, 3, 4)), ("2d", (1, 3, 4, 5)), ("3d", (1, 2, 3, 4, 5)))
    }
    return drawn[name.split("_")[2][:2]].astype(np.float32)


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_printed_tables(backend, case):
    x = inputs(case["name"])
    assert list(x.shape) == case["input_shape"]
    options = {"eps": case["eps"], "eps_on": case["eps_on"]}
    # The tables' "std + eps" divides by the biased standard deviation.
    results = [nn.standardize(x, tuple(case["axis"]), **options)]
    if case["name"].startswith("layer_norm"):
        results.append(nn.layer_norm(x, axis=tuple(case["axis"]), **options))
    elif case["eps_on"] == "var":
        results.append(nn.batch_norm(x, training=True, eps=case["eps"]))
    for result in results:
        # Four printed decimals, and an article's own float32 arithmetic in the last of them.
        np.testing.assert_allclose(result, case["expected"], atol=1.01e-4)


@pytest.mark.parametrize(("eps", "value"), [(1e-5, 1.1526), (1e-3, 1.1517622)])
def test_the_old_class(backend, eps, value):
    """Article 004: `(1 - m) * batch + m * running` with the biased variance."""
    x = np.array([[1, 2], [1, 3], [1, 4]], np.float32)
    layer = nn.BatchNorm(2, eps=eps, momentum=0.01, momentum_convention="keep", running_var="biased")
    layer.gamma[1] = 0.94113
    np.testing.assert_allclose(layer(x), [[0, -value], [0, 0], [0, value]], atol=5e-5)
    np.testing.assert_allclose(layer.running_mean, [0.99, 0.99 * 3], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var, [0.01, 0.01 + 0.99 * 2 / 3], rtol=1e-6)


def test_the_old_class_without_its_random_gamma():
    x = np.array([[1, 2], [1, 3], [1, 4]], np.float32)
    np.testing.assert_allclose(nn.batch_norm(x, training=True)[:, 1], [-1.2247, 0, 1.2247], atol=5e-5)


def test_parameter_counts():
    """Articles 001 and 003: batch norm adds two per channel, layer norm two per normalised element."""
    assert nn.BatchNorm2d(16).num_parameters() == 32
    bn = nn.BatchNorm2d(100)
    assert bn.gamma.shape == bn.beta.shape == (100,)
    assert bn.num_parameters() == 200
    assert bn.num_parameters(buffers=True) == 400
    assert bn(np.random.default_rng(0).standard_normal((2, 100, 3, 4)).astype(np.float32)).shape == (2, 100, 3, 4)
    for shape, expected in ((10, (10,)), ([5, 10, 15], (5, 10, 15))):
        ln = nn.LayerNorm(shape)
        assert ln.gamma.shape == ln.beta.shape == expected
        assert ln.num_parameters() == 2 * np.prod(expected)
    assert nn.BatchNorm2d(16, affine=False).num_parameters() == 0


def test_number_of_statistics(rng):
    """Article 002: BN 2C, LN 2B, IN 2BC, GN 2BG."""
    batch, channels, groups = 4, 6, 3
    x = rng.standard_normal((batch, channels, 5, 5)).astype(np.float32)

    def counted(result):
        return sum(np.unique(statistic).size for statistic in result[1:])

    assert counted(nn.batch_norm(x, training=True, return_stats=True)) == 2 * channels
    assert counted(nn.layer_norm(x, axis=(1, 2, 3), return_stats=True)) == 2 * batch
    assert counted(nn.instance_norm(x, return_stats=True)) == 2 * batch * channels
    assert counted(nn.group_norm(x, groups, return_stats=True)) == 2 * batch * groups


def test_cumulative_statistics_are_the_articles_estimate(backend, rng):
    """Article 002: E[x] is the mean of the batches' means, Var[x] the mean of m/(m-1) times their variances."""
    batches = rng.standard_normal((7, 10, 3, 4)).astype(np.float32) + 5
    layer = nn.BatchNorm1d(3, momentum=None)
    for x in batches:
        layer(x)
    assert layer.num_batches_tracked == 7
    np.testing.assert_allclose(layer.running_mean, batches.astype("f8").mean((1, 3)).mean(0), rtol=1e-6)
    np.testing.assert_allclose(layer.running_var, batches.astype("f8").var((1, 3), ddof=1).mean(0), rtol=1e-6)


def test_the_folded_form_is_the_unfolded(backend, rng):
    """Article 002: y = (gamma / sqrt(Var + eps)) x + (beta - gamma E / sqrt(Var + eps))."""
    layer = nn.BatchNorm2d(5)
    layer.gamma[:], layer.beta[:] = rng.standard_normal((2, 5))
    for _ in range(3):
        layer(rng.standard_normal((4, 5, 6, 6)).astype(np.float32) * 3 + 1)
    x = rng.standard_normal((4, 5, 6, 6)).astype(np.float32)
    scale, shift = layer.folded()
    folded = x * spread(scale, (1,), 4) + spread(shift, (1,), 4)
    np.testing.assert_allclose(layer.eval()(x), folded, atol=2e-6)


def test_z_score_and_min_max_inputs(rng):
    """Article 002: z-score scaling is `standardize` without eps, column by column."""
    x = rng.standard_normal((50, 3)) * [1, 10, 100] + [0, 5, -7]
    np.testing.assert_allclose(nn.standardize(x, 0, eps=0), (x - x.mean(0)) / x.std(0), rtol=1e-9, atol=1e-12)
