"""Every floating tensor of the user's checkpoint, at every width, by every quantizer."""

from typing import Any

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.checkpoints import CheckpointTensor, SafetensorsFile
from pytest_arrowquant.fixtures import SETTINGS
from pytest_arrowquant.quantizers import QUANTIZERS, Quantizer
from pytest_arrowquant.suite import said_plainly


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a tensor, width and quantizer: ids are like encoder.weight-int4-mse."""
    settings = metafunc.config.stash[SETTINGS]
    assert settings.original is not None
    grid = [
        pytest.param(tensor, bits, QUANTIZERS[name](), id=f"{tensor.name}-int{bits}-{name}")
        for tensor in SafetensorsFile.open(settings.original).quantizable
        for bits in settings.bits
        for name in settings.quantizers or QUANTIZERS
    ]
    metafunc.parametrize(("tensor", "bits", "quantizer"), grid)


@pytest.mark.arrowquant
def test_tensor(
    tensor: CheckpointTensor,
    bits: int,
    quantizer: Quantizer,
    arrowquant: Accuracy,
    arrowquant_benchmark: Any,
) -> None:
    """The tensor, quantized to this width, meets the targets of the width."""
    name = f"{tensor.name}-int{bits}-{quantizer.name}"
    with said_plainly():
        arrowquant.check_model(
            tensor, quantizer, name=name, bits=bits, benchmark=arrowquant_benchmark
        )
