"""The group sizes of Q-DiT against every choice there is."""

from itertools import product

import numpy as np
import pytest

from pytest_arrowquant.errors import SchemeError
from pytest_arrowquant.group_search import SHARES, SIZES, LayerErrors, best_group_sizes
from pytest_arrowquant.quantizers import Rtn


def mean_of(layers: list[LayerErrors], sizes: tuple[int, ...]) -> float:
    """Over weights, in shares as the search rounds them; no group is longer than its row."""
    total = sum(layer.weights for layer in layers)
    shares = [max(1, round(SHARES * layer.weights / total)) for layer in layers]
    groups = [
        min(size, layer.columns) // 32 * 32 for size, layer in zip(sizes, layers, strict=True)
    ]
    return float(np.average(groups, weights=shares))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mean_size", [32, 128, 288, 512])
def test_the_choice_is_the_best_of_all(seed: int, mean_size: int):
    generator = np.random.default_rng(seed)
    layers = [
        LayerErrors(
            int(generator.integers(1_000, 100_000)),
            1024,
            tuple(np.sort(generator.exponential(size=len(SIZES))).tolist()),
        )
        for _ in range(5)
    ]

    def total(sizes: tuple[int, ...]) -> float:
        return sum(
            layer.errors[SIZES.index(size)] for layer, size in zip(layers, sizes, strict=True)
        )

    allowed = [s for s in product(SIZES, repeat=5) if mean_of(layers, s) >= mean_size]
    found = best_group_sizes(layers, mean_size)
    assert found in allowed
    assert total(found) == pytest.approx(min(map(total, allowed)), rel=1e-12)


def test_the_layer_that_needs_small_groups_gets_them():
    flat = LayerErrors(1000, 1024, (1.0, 1.01, 1.02, 1.03, 1.04))
    steep = LayerErrors(1000, 1024, (1.0, 2.0, 4.0, 8.0, 16.0))
    layers = [flat, steep, flat, flat]
    sizes = best_group_sizes(layers)
    assert sizes[1] == 32
    assert mean_of(layers, sizes) >= 128


def test_small_layers_and_short_rows_buy_nothing():
    small = LayerErrors(100, 4096, (1.0, 1.0, 1.0, 1.0, 1.0))
    short = LayerErrors(500_000, 36, (1.0, 1.0, 1.0, 1.0, 1.0))
    large = LayerErrors(500_000, 1024, (1.0, 2.0, 3.0, 4.0, 5.0))
    assert best_group_sizes([small, short, large])[2] == 128


def test_errors_are_those_of_rounding():
    w = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    found = LayerErrors.of(w, 4, w.size)
    exact = w.astype(np.float64)
    for size, error in zip(SIZES, found.errors, strict=True):
        restored = Rtn(size, "integer").quantize(w, 4).dequantize()
        assert error == pytest.approx(np.square(exact - restored).sum() / np.square(exact).sum())
    assert LayerErrors.of(np.zeros((2, 64), np.float32), 4, 128).errors == (0.0,) * len(SIZES)


def test_a_mean_that_no_choice_has_is_refused():
    with pytest.raises(SchemeError, match="mean_size=513 is not from 1 to 512"):
        best_group_sizes([LayerErrors(1, 512, (1.0,) * len(SIZES))], 513)
