"""--arrowquant-selfcheck: which faults the targets of a test would have missed."""

import pytest

from pytest_arrowquant.faults import FAULTS

from .helpers import ACCURACY, read_report

TESTS = """
import numpy as np
import pytest
from pytest_arrowquant import Rtn

WEIGHT = np.random.default_rng(0).standard_normal((64, 256), np.float32)

@pytest.mark.arrowquant(bits=4)
def test_guarded(arrowquant):
    arrowquant.check(WEIGHT, Rtn().quantize(WEIGHT, 4))

@pytest.mark.arrowquant(bits=4, guards=False)
def test_cosine_alone(arrowquant):
    arrowquant.check(WEIGHT, Rtn().quantize(WEIGHT, 4))

@pytest.mark.arrowquant(bits=4, sqnr_db=90)
def test_failing(arrowquant):
    arrowquant.check(WEIGHT, Rtn().quantize(WEIGHT, 4))
"""


@pytest.fixture
def report(pytester: pytest.Pytester):
    pytester.makepyfile(test_it=TESTS)
    result = pytester.runpytest("--arrowquant-selfcheck", "--arrowquant-report=out")
    result.assert_outcomes(passed=2, failed=1)
    records = read_report(pytester.path / "out")["records"]
    return result, {record["name"]: record for record in records}


def test_the_default_gate_misses_none_and_a_cosine_alone_many(report):
    result, records = report
    guarded, alone = (records[f"test_{name}"]["selfcheck"] for name in ("guarded", "cosine_alone"))
    assert guarded["missed"] == {}
    assert guarded["tensors"] == 1
    assert {*guarded["injected"]} <= {*FAULTS}
    assert len(guarded["injected"]) > 25
    assert {"scales x2", "scales x1.05", "row zeroed", "row doubled"} <= {*alone["missed"]}
    missed = len(alone["missed"])
    said = f"* put into 2 tensors: this gate misses {missed} of *row zeroed (1 of 2)*"
    result.stdout.fnmatch_lines([f"self-check int4: {said}"])


def test_what_fails_is_not_broken_further(report):
    assert report[1]["test_failing"]["selfcheck"] is None


def test_of_a_model_all_layers_are_broken(pytester):
    result = pytester.runpytest(*ACCURACY, "--arrowquant-selfcheck")
    result.assert_outcomes(passed=1)
    record = read_report(pytester.path / ".arrowquant")["records"][0]
    assert record["selfcheck"]["tensors"] == record["subject"]["tensors"]
    assert record["selfcheck"]["missed"] == {}
    text = (pytester.path / ".arrowquant/accuracy.txt").read_text()
    assert "Self-check\n  self-check int4: " in text


def test_without_the_option_nothing_is_broken(pytester):
    pytester.makepyfile(test_it=TESTS)
    pytester.runpytest("--arrowquant-report=out")
    assert all(r["selfcheck"] is None for r in read_report(pytester.path / "out")["records"])
