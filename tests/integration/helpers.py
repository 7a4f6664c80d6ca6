"""What the integration tests share: arguments, subprocess runs, and reading a report strictly."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pytest

Plain = dict[str, Any]
new_in_pytest_9 = pytest.mark.skipif(pytest.version_tuple < (9,), reason="new in pytest 9")

ACCURACY = (
    "--arrowquant-accuracy",
    "--arrowquant-modalities=audio",
    "--arrowquant-bits=4",
    "--arrowquant-quantizers=rtn",
)
SUITE = "pytest_arrowquant/suite/test_accuracy.py::test_model"
ENVIRONMENT = {"MPLCONFIGDIR": matplotlib.get_configdir()}  # its font cache is slow to make
OF_THE_OUTER_RUN = (
    "PYTEST_ADDOPTS",
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
    "PYTEST_XDIST_TESTRUNUID",
)
CONFTEST = """
import numpy as np
import pytest

from pytest_arrowquant import Scheme, quantize


@pytest.fixture(scope="session")
def weights():
    return np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32)


@pytest.fixture(scope="session")
def restored(weights):
    return quantize(weights, Scheme(4)).dequantize()
"""

DECOY = """
def test_decoy():
    raise AssertionError("this file is not of the suite")
"""
Run = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Runs:
    """Three runs of one project; their reports are in folders of these names."""

    folder: Path
    serial: Run
    again: Run
    two: Run


def add_virtual_environment(project: Path) -> None:
    """As `python -m venv .venv` and an installation would leave it."""
    packages = project / ".venv/lib/python3.11/site-packages/pytest_arrowquant/suite"
    packages.mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").write_text(f"home = {sys.prefix}\n")
    (packages / "test_accuracy.py").write_text(DECOY)


def run_pytest(folder: Path, *arguments: str) -> Run:
    """Pytest in a process of its own, for runs that several tests look at."""
    inherited = {key: value for key, value in os.environ.items() if key not in OF_THE_OUTER_RUN}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env={**inherited, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


def read_report(folder: Path) -> Plain:
    """accuracy.json as strict JSON: NaN and infinity are errors."""
    text = (folder / "accuracy.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"accuracy.json holds {name}")


def names(report: Plain) -> list[str]:
    """The names of its records, in their order."""
    return [record["name"] for record in report["records"]]
