"""A project to run pytest in.

Pytester puts `sys.modules` back after a run in this process, and numba cannot be imported twice:
so what such runs need is imported and used here, once.
"""

import hypothesis.extra.numpy  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401
import numba
import numpy as np
import pytest
import safetensors.numpy  # noqa: F401

import pytest_arrowquant.report.charts
import pytest_arrowquant.report.json_file
import pytest_arrowquant.report.text  # noqa: F401
from pytest_arrowquant import Rtn, synthetic_model
from pytest_arrowquant.accuracy import Accuracy

from .helpers import (
    ACCURACY,
    CONFTEST,
    ENVIRONMENT,
    OF_THE_OUTER_RUN,
    Runs,
    add_virtual_environment,
    run_pytest,
)

# numba imports more when it compiles, and more when it runs what its cache holds
numba.njit(lambda x: x.sum())(np.ones(2))
Accuracy([]).check_model(synthetic_model("audio"), Rtn(), bits=4)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project whose tests have `weights` (64 x 128) and `restored` (INT4)."""
    for name in OF_THE_OUTER_RUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    pytester.makeconftest(CONFTEST)
    return pytester


USERS_TESTS = """
import numpy as np
import pytest

@pytest.mark.arrowquant_int4
def test_two_checks(arrowquant, weights, restored):
    arrowquant.check(weights, restored, name="first")
    arrowquant.check(weights, restored, name="second", nbytes=4608)

@pytest.mark.arrowquant(bits=4, guards={"order": "columns are permuted"})
def test_doubled(arrowquant, weights, restored):
    arrowquant.check(weights, 2 * restored)

@pytest.mark.arrowquant
@pytest.mark.parametrize("bits", [np.int64(4), 8], ids=["four", "eight"])
def test_numpy_scalars(arrowquant, weights, bits):
    bound, nbytes = np.float64(0.9), np.int64(4096)
    arrowquant.check(weights, weights, cosine=bound, guards=False, nbytes=nbytes)

@pytest.mark.arrowquant_int8
def test_exact(arrowquant, weights):
    arrowquant.check(weights, weights)

@pytest.mark.arrowquant_int4
def test_timed(arrowquant, benchmark, weights, arrowquant_int4):
    q = benchmark.pedantic(arrowquant_int4.quantize, (weights,), rounds=3)
    arrowquant.check(weights, q)

@pytest.mark.arrowquant_int4
def test_broken(arrowquant, no_such_fixture): ...

@pytest.mark.arrowquant_int4(cosin=0.9)
def test_typo(arrowquant): ...

@pytest.mark.arrowquant(4)
def test_positional(arrowquant): ...

@pytest.mark.arrowquant_int4
def test_nothing_checked(arrowquant): ...

@pytest.mark.arrowquant(bits=3)
def test_no_target(arrowquant, weights, restored):
    arrowquant.check(weights, restored)

def test_unmarked():
    raise AssertionError("not asked for")
"""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A project with all that could hide the suite, run serially, again, and by two workers."""
    folder = tmp_path_factory.mktemp("shared")
    add_virtual_environment(folder)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_accuracy.py").write_text(USERS_TESTS)
    serial, again, two = (
        run_pytest(folder, *ACCURACY, "-v", f"--arrowquant-report={name}", *more)
        for name, *more in (("serial", "--benchmark-json=serial.json"), ("again",), ("two", "-n2"))
    )
    return Runs(folder, serial, again, two)
