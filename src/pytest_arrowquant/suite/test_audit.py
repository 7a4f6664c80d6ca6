"""Every tensor of a quantized checkpoint against its original: a test a tensor."""

import pytest

from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.audit import Audit
from pytest_arrowquant.checkpoints.pairing import Pair
from pytest_arrowquant.fixtures import AUDIT, SETTINGS
from pytest_arrowquant.suite import said_plainly


def audit_of(config: pytest.Config) -> Audit:
    """The audit that the options ask for: its headers are read and paired once a process."""
    if AUDIT not in config.stash:
        settings = config.stash[SETTINGS]
        assert settings.quantized is not None
        config.stash[AUDIT] = Audit(settings.quantized, settings.original)
    return config.stash[AUDIT]


@pytest.fixture
def audit(pytestconfig: pytest.Config) -> Audit:
    """The audit of this run."""
    return audit_of(pytestconfig)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a tensor; the id is its name."""
    if "pair" in metafunc.fixturenames:
        pairs = audit_of(metafunc.config).pairing.pairs
        metafunc.parametrize("pair", pairs, ids=[pair.name for pair in pairs])


@pytest.mark.arrowquant
def test_checkpoint(audit: Audit, arrowquant: Accuracy) -> None:
    """What the checkpoint says of itself as a whole is true of its tensors."""
    with said_plainly():
        arrowquant.check_checkpoint(audit)


@pytest.mark.arrowquant
def test_tensor(pair: Pair, audit: Audit, arrowquant: Accuracy) -> None:
    """The tensor is what its original was, as exactly as its width allows."""
    with said_plainly():
        arrowquant.check_pair(audit, pair)
