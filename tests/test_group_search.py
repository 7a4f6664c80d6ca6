"""The group sizes of Q-DiT against every choice there is."""

from itertools import product

import numpy as np
import pytest

from pytest_arrowquant.errors import SchemeError
from pytest_arrowquant.group_search import SIZES, best_group_sizes, relative_errors
from pytest_arrowquant.quantizers import Rtn


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mean_size", [32, 100, 128, 300, 512])
def test_the_choice_is_the_best_of_all(seed: int, mean_size: int):
    generator = np.random.default_rng(seed)
    errors = np.sort(generator.exponential(size=(5, len(SIZES))), axis=1).tolist()

    def total(sizes) -> float:
        return sum(layer[SIZES.index(size)] for layer, size in zip(errors, sizes, strict=True))

    allowed = [sizes for sizes in product(SIZES, repeat=5) if sum(sizes) >= mean_size * len(errors)]
    found = best_group_sizes(errors, mean_size)
    assert found in allowed
    assert total(found) == pytest.approx(min(map(total, allowed)), rel=1e-12)


def test_the_layer_that_needs_small_groups_gets_them():
    flat, steep = [1.0, 1.01, 1.02, 1.03, 1.04], [1.0, 2.0, 4.0, 8.0, 16.0]
    sizes = best_group_sizes([flat, steep, flat, flat])
    assert sizes[1] == 32
    assert sum(sizes) >= 4 * 128


def test_relative_errors_are_those_of_rounding():
    w = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    found = relative_errors(w, 4)
    exact = w.astype(np.float64)
    for size, error in zip(SIZES, found, strict=True):
        restored = Rtn(size, "integer").quantize(w, 4).dequantize()
        assert error == pytest.approx(np.square(exact - restored).sum() / np.square(exact).sum())
    assert relative_errors(np.zeros((2, 64), np.float32), 4) == [0.0] * len(SIZES)


def test_a_mean_that_no_choice_has_is_refused():
    with pytest.raises(SchemeError, match="mean_size=513 is not from 1 to 512"):
        best_group_sizes([[1.0] * len(SIZES)], 513)
