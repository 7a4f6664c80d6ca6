"""Every synthetic model under every recipe: what each optimization gains over round-to-nearest."""

from collections.abc import Callable

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.fixtures import SETTINGS
from pytest_arrowquant.models import SyntheticModel
from pytest_arrowquant.suite import families, said_plainly

OUTPUTS = {"small": 512, "full": 1024}  # output channels are alike and independent: so many do


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a family of the modalities that the options leave; ids are like dit."""
    metafunc.parametrize("family", families(metafunc.config.stash[SETTINGS]).values())


@pytest.mark.arrowquant
def test_recipes(
    family: str,
    arrowquant: Accuracy,
    arrowquant_models: Callable[[str], SyntheticModel],
    pytestconfig: pytest.Config,
) -> None:
    """What is recommended for the family, and all optimizations together, meet the targets.

    One test for all widths, because they share each layer's Hessian.
    """
    settings = pytestconfig.stash[SETTINGS]
    with said_plainly():
        arrowquant.check_recipes(arrowquant_models(family), settings.bits, OUTPUTS[settings.scale])
