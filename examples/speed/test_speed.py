"""How fast and how accurate, in one test."""

import numpy as np
import pytest
from group_quant import by_peak, by_search


@pytest.mark.arrowquant(bits=4, sqnr_db=19)
@pytest.mark.parametrize("quantize", [by_peak, by_search])
def test_quantize(arrowquant, benchmark, quantize):
    weight = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    restored = benchmark(quantize, weight)
    arrowquant.check(weight, restored)
