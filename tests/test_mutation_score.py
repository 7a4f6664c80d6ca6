"""Every broken quantizer fails the suite that comes for free, and the honest ones pass it."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import broken_quantizers
from broken_quantizers import ALL, BROKEN, HONEST, REFUSALS, Honest
from integration.helpers import run_pytest
from pytest_arrowquant import measure
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.errors import AccuracyFailure, InvariantBroken
from pytest_arrowquant.expectation import DEFAULT_COSINE
from pytest_arrowquant.invariants import INVARIANTS, applicable
from pytest_arrowquant.subject import Subject

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what is broken


@dataclass(frozen=True)
class GaussianLayer:
    """A layer that numpy drew."""

    name: str
    shape: tuple[int, ...]

    @property
    def weight(self) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(self.shape, dtype=np.float32) / 50


class GaussianModel:
    """As many rows as no byte counts, a ragged last group, and a square."""

    subject = Subject()
    layers = (GaussianLayer("up", (258, 200)), GaussianLayer("square", (96, 96)))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[GaussianLayer]:
        return iter(self.layers)


def check(broken: type[Honest], name: str, bits: int) -> None:
    """One test of the suite: an invariant, or the accuracy of a model."""
    quantizer, accuracy = broken(), Accuracy([])
    if name == "accuracy":
        accuracy.check_model(GaussianModel(), quantizer, bits=bits)
    else:
        accuracy.check_invariant(quantizer, bits, INVARIANTS[name])


def suite_of(quantizer: type[Honest]) -> list[str]:
    """The suite's tests for it."""
    return ["accuracy", *(invariant.name for invariant in applicable(quantizer()))]


def cosine_sees(broken: type[Honest], bits: int) -> bool:
    """Whether a cosine target sees it on ordinary weights."""
    weight = GaussianModel.layers[0].weight
    try:
        restored = broken().quantize(weight.copy(), bits).dequantize()
        return measure(weight, restored).cosine < DEFAULT_COSINE[bits]
    except (ValueError, TypeError):
        return True


NO_WEIGHT_AT_ALL = {
    **{refusing.name: "raised on" for refusing in REFUSALS},
    "restores codes": "on weight",
    "restores an array of objects": "on weight",
    "returns its input": "returned",
}  # what is said then instead of a broken invariant
HONEST_CASES = [(name, bits) for name, honest in HONEST.items() for bits in honest.bits]
BROKEN_CASES = [
    (name, bits) for name, broken in BROKEN.items() for bits in broken.seen_at or broken.bits
]


@pytest.mark.parametrize(("name", "bits"), HONEST_CASES)
def test_an_honest_quantizer_passes(name, bits):
    for test in suite_of(HONEST[name]):
        check(HONEST[name], test, bits)


@pytest.mark.parametrize(("name", "bits"), BROKEN_CASES)
def test_a_broken_quantizer_fails_what_its_mistake_breaks(name, bits):
    suite = suite_of(BROKEN[name])
    for expected in BROKEN[name].caught_by.split():
        test = expected if expected in suite else "accuracy"
        with pytest.raises((AccuracyFailure, InvariantBroken)) as caught:
            check(BROKEN[name], test, bits)
        first, *bounds = str(caught.value).splitlines()
        if test == "accuracy":
            assert any(bound.startswith(f"  {expected} ") for bound in bounds)
        elif name in NO_WEIGHT_AT_ALL:
            assert first.startswith(f"quantizer {name!r} {NO_WEIGHT_AT_ALL[name]} ")
        else:
            sentence = INVARIANTS[expected].sentence
            assert first == f"quantizer {name!r} at {bits} bits breaks {expected}: {sentence}"


def test_there_are_many_of_them_which_a_cosine_hardly_sees():
    assert len(ALL) == len(BROKEN) >= 100
    seen = sum(cosine_sees(BROKEN[name], bits) for name, bits in BROKEN_CASES)
    assert 0 < seen < len(BROKEN_CASES) / 5


CONFTEST = """
from broken_quantizers import BROKEN, HONEST

def pytest_arrowquant_quantizers(config):
    names = "scale of the row before", "restores into one buffer"
    return [HONEST["honest"](), *(BROKEN[name]() for name in names)]
"""


def test_a_project_of_five_lines_is_told(tmp_path):
    """The hook alone, in a conftest.py: the broken ones fail by name, and the honest one passes."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    shutil.copytree(Path(broken_quantizers.__file__).parent, tmp_path / "broken_quantizers")
    options = "--arrowquant-accuracy", "--arrowquant-bits=4", "--arrowquant-modalities=audio"
    said = run_pytest(tmp_path, *options).stdout
    failed = set(re.findall(r"^FAILED .*::test_\w+\[(.*)\]", said, re.MULTILINE))
    assert {
        "audio-int4-scale of the row before",
        "scale of the row before-int4-rows_independent",
        "restores into one buffer-int4-calls_independent",
    } <= failed
    assert not [name for name in failed if "honest" in name]
    invariants = len(suite_of(BROKEN["restores into one buffer"])) - 1
    assert f"honest int4: {invariants} of {invariants} invariants hold" in said
    assert (
        f"restores into one buffer int4: {invariants - 1} of {invariants} invariants hold; "
        "broken: calls_independent"
    ) in said
    assert "passed  audio-int4-honest" in said
    assert "FAILED  audio-int4-scale of the row before" in said
