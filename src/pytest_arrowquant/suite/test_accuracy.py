"""Every synthetic model, at every width, by every quantizer."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.fixtures import SETTINGS
from pytest_arrowquant.models import SyntheticModel
from pytest_arrowquant.quantizers import Quantizer
from pytest_arrowquant.suite import families, grid, said_plainly


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The grid that the options leave: ids are like text-int4-mse."""
    settings = metafunc.config.stash[SETTINGS]
    subjects = families(settings).items()
    metafunc.parametrize(("name", "family", "bits", "quantizer"), grid(metafunc.config, subjects))


@pytest.mark.arrowquant
def test_model(
    name: str,
    family: str,
    bits: int,
    quantizer: Quantizer,
    arrowquant: Accuracy,
    arrowquant_models: Callable[[str], SyntheticModel],
    arrowquant_benchmark: Any,
) -> None:
    """The model, quantized to this width, meets the targets of the width."""
    model = arrowquant_models(family)
    with said_plainly():
        arrowquant.check_model(
            model, quantizer, name=name, bits=bits, benchmark=arrowquant_benchmark
        )
