"""Every floating tensor of the user's checkpoint, at every width, by every quantizer."""

from typing import Any

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.checkpoints import StoredTensor, open_checkpoint
from pytest_arrowquant.fixtures import SETTINGS
from pytest_arrowquant.quantizers import Quantizer
from pytest_arrowquant.suite import grid, said_plainly


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a tensor, width and quantizer: ids are like encoder.weight-int4-mse."""
    settings = metafunc.config.stash[SETTINGS]
    assert settings.original is not None
    tensors = open_checkpoint(settings.original).quantizable
    subjects = [(tensor.name, tensor) for tensor in tensors]
    metafunc.parametrize(("name", "tensor", "bits", "quantizer"), grid(metafunc.config, subjects))


@pytest.mark.arrowquant
def test_tensor(
    name: str,
    tensor: StoredTensor,
    bits: int,
    quantizer: Quantizer,
    arrowquant: Accuracy,
    arrowquant_benchmark: Any,
) -> None:
    """The tensor, quantized to this width, meets the targets of the width."""
    with said_plainly():
        arrowquant.check_model(
            tensor, quantizer, name=name, bits=bits, benchmark=arrowquant_benchmark
        )
