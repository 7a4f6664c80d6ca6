"""How targets are resolved and refused, and that there is one verdict."""

from math import inf, nan

import numpy as np
import pytest

from pytest_arrowquant import TargetError
from pytest_arrowquant.case import Finding
from pytest_arrowquant.expectation import DEFAULT_COSINE, GUARD_NAMES, expect, validated
from pytest_arrowquant.guards import GUARDS
from pytest_arrowquant.messages import passing_bound
from pytest_arrowquant.options import OptionError, parse_bits, parse_seed, parse_targets
from pytest_arrowquant.targets import Outcome, Verdict

MARK = "@pytest.mark.arrowquant"


def test_the_default_targets():
    assert DEFAULT_COSINE == {2: 0.70, 4: 0.90, 8: 0.95}
    for bits, cosine in DEFAULT_COSINE.items():
        assert expect({"bits": bits}, {}, {}, None, MARK).bounds == {"cosine": cosine}


def test_every_guard_can_be_named():
    assert tuple(GUARDS) == GUARD_NAMES


def test_the_nearest_source_of_a_target_wins():
    project = {4: {"cosine": 0.97, "sqnr_db": 18.0}}
    assert expect({}, {"bits": 4}, project, None, MARK).bounds == {"cosine": 0.97, "sqnr_db": 18.0}
    marked = expect({}, {"bits": 4, "cosine": 0.98}, project, None, MARK)
    assert marked.bounds == {"cosine": 0.98, "sqnr_db": 18.0}
    called = expect({"cosine": 0.99}, {"bits": 4, "cosine": 0.98}, project, None, MARK)
    assert called.bounds == {"cosine": 0.99, "sqnr_db": 18.0}
    assert expect({"bits": 8}, {"bits": 4}, project, 2, MARK).bits == 8
    assert expect({}, {}, project, 2, MARK).bits == 2


def test_judging_outputs_moves_the_cosine_target_there():
    judged = expect({"bits": 4, "judge": "outputs"}, {}, {}, None, MARK)
    assert judged.bounds == {"output_cosine": 0.90}


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (
            {"cosin": 0.9},
            "unknown keyword 'cosin' (did you mean 'cosine'?); valid are bits, cosine",
        ),
        ({"bits": True}, "bits=True is not a whole number from 1 to 16"),
        ({"bits": 4.0}, "bits=4.0 is not a whole number from 1 to 16"),
        ({"bits": 0}, "bits=0 is not a whole number from 1 to 16"),
        ({"cosine": "0.9"}, "cosine='0.9' is not a finite number"),
        ({"cosine": nan}, "cosine=nan is not a finite number"),
        ({"cosine": 1.2}, "cosine=1.2 is not above -1 and at most 1"),
        ({"row_cosine": -1}, "row_cosine=-1 is not above -1 and at most 1"),
        ({"sqnr_db": inf}, "sqnr_db=inf is not a finite number"),
        ({"judge": "rows"}, "judge='rows' is not 'weights' or 'outputs'"),
        ({"guards": 3}, "guards=3 is neither True nor False nor a mapping of guard to reason"),
        (
            {"guards": {"ordre": "x"}},
            "unknown guard 'ordre'; valid are row_sqnr_db, gain",
        ),
        ({"guards": {"complete": "x"}}, "unknown guard 'complete'; valid are row_sqnr_db, gain"),
        ({"sqnr_db": 10**400}, "is not a finite number"),
        ({"guards": {"order": " "}}, "guards['order']=' ' is no reason; say why in words"),
    ],
)
def test_what_is_no_good_is_named_with_what_would_be(keywords, said):
    with pytest.raises(TargetError) as error:
        validated(keywords, MARK)
    assert str(error.value).startswith(f"{MARK}: ")
    assert said in str(error.value)


def test_a_width_without_default_needs_a_target():
    with pytest.raises(TargetError, match="bits=3 has no default target and no target given; give"):
        expect({"bits": 3}, {}, {}, None, MARK)
    with pytest.raises(TargetError, match="no bits and no target given"):
        expect({}, {}, {}, None, MARK)
    assert expect({"bits": 3, "cosine": 0.9}, {}, {}, None, MARK).bounds == {"cosine": 0.9}


def test_a_bound_met_exactly_passes_and_nan_never_does():
    assert Finding("cosine", ">=", 0.9, 0.9).passed
    assert not Finding("cosine", ">=", 0.9, np.nextafter(0.9, 0)).passed
    assert not Finding("row_sqnr_db", ">", 0.0, 0.0).passed
    assert Finding("gain", "within", 0.01, 0.99).margin == pytest.approx(0)
    for op in (">=", ">", "<=", "within"):
        assert not Finding("x", op, 1.0, nan).passed
    assert Finding("sqnr_db", ">=", 18, inf).passed


def test_the_verdict_names_the_worst_tensor_of_each_metric():
    def cosine(value, tensor):
        return Outcome(Finding("cosine", ">=", 0.9, value), tensor)

    verdict = Verdict.over([cosine(0.99, "a"), cosine(0.91, "b"), cosine(0.95, "c")])
    assert [(o.tensor, o.finding.value) for o in verdict.outcomes] == [("b", 0.91)]
    assert verdict.passed
    failing = Verdict.over([cosine(0.99, "a"), cosine(nan, "b"), cosine(-1, "c")])
    assert failing.outcomes[0].tensor == "b"
    assert not failing.passed


def test_a_strict_bound_missed_by_nothing_ranks_below_a_loose_one_met():
    zero_row = Outcome(Finding("row_sqnr_db", ">", 0.0, 0.0), "lost")
    good = Outcome(Finding("row_sqnr_db", ">", 0.0, 5.0), "good")
    assert Verdict.over([good, zero_row]).outcomes[0].tensor == "lost"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.871299, "0.8712"),
        (0.99999, "0.9999"),
        (-6.0206, "-6.021"),
        (0.0, "0"),
        (19.4567, "19.45"),
    ],
)
def test_the_bound_that_would_pass_is_rounded_down(value, text):
    assert passing_bound(value) == text
    assert float(text) <= value


def test_project_targets_are_lines():
    lines = ["4: cosine=0.97, sqnr_db=18", "2: row_cosine=0.5"]
    assert parse_targets(lines) == {4: {"cosine": 0.97, "sqnr_db": 18.0}, 2: {"row_cosine": 0.5}}
    for line, said in {
        "cosine=0.9": "'cosine=0.9' is not like '4: cosine=0.97, sqnr_db=18'",
        "4: cosine": "'cosine' in '4: cosine' is not like 'cosine=0.97'",
        "4: cosin=0.9": "unknown keyword 'cosin' (did you mean 'cosine'?)",
        "4: cosine=2": "cosine=2.0 is not above -1 and at most 1",
    }.items():
        with pytest.raises(OptionError) as error:
            parse_targets([line])
        assert said in str(error.value)


def test_options_repeat_what_they_refuse():
    assert parse_bits("8, 2") == (2, 8)
    with pytest.raises(OptionError, match=r"'4,3' names '3', which is none of the bits 2, 4, 8"):
        parse_bits("4,3")
    with pytest.raises(OptionError, match=r"'-1' is not a whole number from 0"):
        parse_seed("-1")
