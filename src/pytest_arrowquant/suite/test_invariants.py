"""The project's own quantizers, at every width of theirs, held to every invariant."""

from typing import Any

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.invariants import Invariant, applicable
from pytest_arrowquant.suite import said_plainly
from pytest_arrowquant.suite.quantizers import quantizers_of, widths_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a quantizer, width and invariant: ids are like mine-int4-rows_independent."""
    config = metafunc.config
    cases = [
        pytest.param(quantizer, bits, invariant, id=f"{name}-int{bits}-{invariant.name}")
        for name, quantizer in quantizers_of(config).items()
        for bits in widths_of(config, quantizer)
        for invariant in applicable(quantizer)
    ]
    metafunc.parametrize(("quantizer", "bits", "invariant"), cases)


@pytest.mark.arrowquant
def test_invariant(quantizer: Any, bits: int, invariant: Invariant, arrowquant: Accuracy) -> None:
    """The invariant holds, on weights that hypothesis draws."""
    with said_plainly():
        arrowquant.check_invariant(quantizer, bits, invariant)
