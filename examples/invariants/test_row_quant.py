"""Properties of the library's quantizer, by hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from row_quant import RowQuantizer

from pytest_arrowquant import invariants, strategies

QUANTIZER = RowQuantizer()


@settings(deadline=None)
@given(weight=strategies.weights())
def test_rows_do_not_see_each_other(weight):
    invariants.rows_independent(QUANTIZER, weight, 4)


@settings(deadline=None)
@given(weight=strategies.weights())
def test_codes_are_within_the_width(weight):
    assert np.abs(QUANTIZER.quantize(weight, 4).codes).max() <= 7


@pytest.mark.parametrize("bits", QUANTIZER.bits)
@pytest.mark.parametrize("invariant", invariants.applicable(QUANTIZER), ids=lambda i: i.name)
def test_it_holds(arrowquant, bits, invariant):
    arrowquant.check_invariant(QUANTIZER, bits, invariant)
