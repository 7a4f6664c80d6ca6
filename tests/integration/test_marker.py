"""The marker: where the width comes from, what selects by it, and how its mistakes read."""

import re
from textwrap import dedent

import pytest

from .helpers import read_report

CHECKED = """
import pytest

@pytest.mark.{mark}
def test_it(arrowquant, weights, restored):
    arrowquant.check(weights, restored)
"""
KEYWORDS = "bits, cosine, sqnr_db, row_cosine, output_cosine, guards, judge"


def run_marked(project: pytest.Pytester, mark: str, *arguments: str) -> pytest.RunResult:
    project.makepyfile(CHECKED.format(mark=mark))
    return project.runpytest(*arguments)


def shown_targets(result: pytest.RunResult) -> dict[str, float]:
    """The column "target" of the summary, by the name of the record."""
    rows = [line.split() for line in result.outlines if line.startswith(("passed  ", "FAILED  "))]
    return {row[1]: float(row[3]) for row in rows if len(row) > 3}


WIDTHS = {
    "arrowquant(bits=2)": 0.7,
    "arrowquant(bits=4)": 0.9,
    "arrowquant(bits=8)": 0.95,
    "arrowquant_int2": 0.7,
    "arrowquant_int4": 0.9,
    "arrowquant_int4()": 0.9,
    "arrowquant_int8": 0.95,
    "arrowquant_int4(bits=4)": 0.9,
    "arrowquant_int4(cosine=0.93)": 0.93,
    "arrowquant(bits=3, cosine=0.8)": 0.8,
    "arrowquant(cosine=0.75)": 0.75,
}


def test_the_mark_sets_the_target(project):
    tests = [
        f"""
        @pytest.mark.{mark}
        def test_{number}(arrowquant, weights):
            arrowquant.check(weights, weights, guards=False)
        """
        for number, mark in enumerate(WIDTHS)
    ]
    project.makepyfile("import pytest\n" + dedent("".join(tests)))
    result = project.runpytest()
    result.assert_outcomes(passed=len(WIDTHS))
    shown = shown_targets(result)
    assert {m: shown[f"test_{n}"] for n, m in enumerate(WIDTHS)} == WIDTHS


def test_the_width_comes_from_call_mark_parameter_or_the_tensor_itself(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant
        @pytest.mark.parametrize("bits", [4, 8])
        def test_parameter(arrowquant, weights, bits):
            arrowquant.check(weights, weights, name=f"int{bits}", guards=False)

        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.arrowquant(bits=8))])
        def test_mark_of_a_parameter(arrowquant, weights, n):
            arrowquant.check(weights, weights, name="marked", guards=False)

        @pytest.mark.arrowquant(bits=4)
        def test_call(arrowquant, weights):
            arrowquant.check(weights, weights, bits=8, guards=False)

        @pytest.mark.arrowquant
        def test_tensor(arrowquant, weights, arrowquant_int2):
            arrowquant.check(weights, arrowquant_int2.quantize(weights))
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=5)
    assert shown_targets(result) == {
        "int4": 0.9,
        "int8": 0.95,
        "marked": 0.95,
        "test_call": 0.95,
        "test_tensor": 0.7,
    }


def test_bits_none_is_as_if_it_were_not_given(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=None)
        @pytest.mark.parametrize("bits", [8])
        def test_it(arrowquant, weights, bits):
            arrowquant.check(weights, weights, name="it", guards=False)
        """
    )
    assert shown_targets(project.runpytest()) == {"it": 0.95}


@pytest.mark.parametrize("expression", ["arrowquant_int4", "arrowquant(bits=4)"])
def test_m_selects_by_width_however_it_was_given(project, expression):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant
        @pytest.mark.parametrize("bits", [2, 4, 8])
        def test_parametrized(arrowquant, bits): ...

        @pytest.mark.arrowquant(bits=4)
        def test_long(arrowquant): ...

        @pytest.mark.arrowquant_int4(cosine=0.93)
        def test_short(arrowquant): ...

        @pytest.mark.arrowquant_int8
        def test_other(arrowquant): ...

        def test_unmarked(): ...
        """
    )
    result = project.runpytest("--collect-only", "-q", "--strict-markers", "-m", expression)
    result.stdout.fnmatch_lines(
        ["*::test_parametrized?4?", "*::test_long", "*::test_short", "3/7 tests collected*"]
    )


def test_m_arrowquant_selects_every_marked_test(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant
        def test_of_no_width(arrowquant): ...

        @pytest.mark.arrowquant_int8
        def test_short(arrowquant): ...

        def test_unmarked(): ...
        """
    )
    result = project.runpytest("--collect-only", "-q", "-m", "arrowquant")
    result.stdout.fnmatch_lines(["*::test_of_no_width", "*::test_short", "2/3 tests collected*"])


def test_markers_are_listed_with_their_keywords(project):
    result = project.runpytest("--markers")
    for name in ("arrowquant", "arrowquant_int2", "arrowquant_int4", "arrowquant_int8"):
        result.stdout.fnmatch_lines([f"@pytest.mark.{name}(?, bits=None, cosine=None,*"])


MISTAKES = {
    "cosin=0.9": f"unknown keyword 'cosin' (did you mean 'cosine'?); valid are {KEYWORDS}",
    "bits=4, zzz=1": f"unknown keyword 'zzz'; valid are {KEYWORDS}",
    "cosine=1.2": "cosine=1.2 is not above -1 and at most 1",
    "row_cosine=-1": "row_cosine=-1 is not above -1 and at most 1",
    "cosine=float('nan')": "cosine=nan is not a finite number",
    "sqnr_db=float('inf')": "sqnr_db=inf is not a finite number",
    "cosine='0.9'": "cosine='0.9' is not a finite number",
    "cosine=True": "cosine=True is not a finite number",
    "bits='4'": "bits='4' is not a whole number from 1 to 16",
    "bits=0": "bits=0 is not a whole number from 1 to 16",
    "bits=True": "bits=True is not a whole number from 1 to 16",
    "bits=[4]": "bits=[4] is not a whole number from 1 to 16",
    "judge='tokens'": "judge='tokens' is not 'weights' or 'outputs'",
    "guards='order'": ("guards='order' is neither True nor False nor a mapping of guard to reason"),
    "guards={'odrer': 'GPTQ'}": "unknown guard 'odrer'; valid are row_sqnr_db, gain,",
    "guards={'order': ' '}": "guards['order']=' ' is no reason; say why in words",
    "guards={'order': True}": "guards['order']=True is no reason; say why in words",
}


@pytest.mark.parametrize("keywords", MISTAKES)
def test_a_mistake_fails_that_test_alone_in_one_line(project, keywords):
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.arrowquant({keywords})
        def test_mistaken(arrowquant, weights, restored):
            arrowquant.check(weights, restored)

        @pytest.mark.arrowquant(bits=4)
        def test_good(arrowquant, weights, restored):
            arrowquant.check(weights, restored)
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    heads = [n for n, line in enumerate(result.outlines) if "ERROR at setup of test_mist" in line]
    said = next(line for line in result.outlines[heads[0] + 1 :] if line)
    assert said.startswith(f"@pytest.mark.arrowquant: {MISTAKES[keywords]}")


def test_a_positional_argument_is_refused(project):
    result = run_marked(project, "arrowquant(4)")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.arrowquant takes keywords only, not (4,)"])


def test_a_shorthand_cannot_contradict_its_name(project):
    result = run_marked(project, "arrowquant_int4(bits=8)")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.arrowquant_int4: bits=8 contradicts its name"])


@pytest.mark.parametrize("value", ["'4'", "4.0", "np.array([4, 8])"])
def test_a_parameter_bits_of_a_wrong_type_fails_that_test_alone(project, value):
    project.makepyfile(
        f"""
        import numpy as np
        import pytest

        @pytest.mark.arrowquant
        @pytest.mark.parametrize("bits", [{value}, 4], ids=["wrong", "right"])
        def test_it(arrowquant, weights, restored, bits):
            arrowquant.check(weights, restored)
        """
    )
    result = project.runpytest("--strict-markers")
    result.stdout.no_fnmatch_line("*PytestUnknownMarkWarning*")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*: bits=* is not a whole number from 1 to 16"])


def test_a_width_without_a_default_needs_targets(project):
    result = run_marked(project, "arrowquant(bits=3)")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            (
                "*bits=3 has no default target and no target given; "
                "give one of cosine, sqnr_db, row_cosine, output_cosine"
            )
        ]
    )


def test_no_width_at_all_needs_targets(project):
    result = run_marked(project, "arrowquant")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no bits and no target given; give one of cosine, sqnr_db,*"])


def test_guards_left_out_leave_their_reason_in_the_record(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=4, guards={"order": "GPTQ"})
        def test_order_off(arrowquant, weights, restored):
            arrowquant.check(weights, restored)

        @pytest.mark.arrowquant(bits=4, guards=False)
        def test_without(arrowquant, weights, restored):
            arrowquant.check(weights, restored)
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=2)
    one, none = read_report(project.path / "out")["records"]
    assert one["notes"] == ["guard order left out: GPTQ"]
    metrics = [target["metric"] for target in one["targets"]]
    assert "order" not in metrics
    assert {"cosine", "complete", "row_sqnr_db", "gain", "bias", "floor"} <= set(metrics)
    assert [target["metric"] for target in none["targets"]] == ["cosine", "complete"]
    assert "guard order left out: guards=False" in none["notes"]


@pytest.mark.parametrize("body", ["pass", "arrowquant.measure(weights, restored)"])
def test_a_marked_test_that_checks_nothing_fails(project, body):
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored):
            {body}
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["marked arrowquant_int4 but checked nothing: call arrowquant.check(reference, restored)"]
    )


def test_a_marked_test_without_the_fixture_fails(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=4)
        def test_it(): ...
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["marked arrowquant but checked nothing: *"])


def test_a_marked_test_that_skips_has_nothing_to_check(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=4)
        def test_in_its_body(arrowquant):
            pytest.skip("no weights here")

        @pytest.mark.arrowquant(bits=4)
        @pytest.mark.skip
        def test_by_mark(arrowquant): ...
        """
    )
    project.runpytest().assert_outcomes(skipped=2)


def test_the_failure_of_the_test_is_not_hidden_by_having_checked_nothing(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant(bits=4)
        def test_it(arrowquant):
            assert 1 == 2, "its own failure"
        """
    )
    result = project.runpytest()
    result.stdout.fnmatch_lines(["E*AssertionError: its own failure"])
    result.stdout.no_fnmatch_line("*checked nothing*")


def test_the_nearest_mark_wins(project):
    project.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.arrowquant(bits=2)

        @pytest.mark.arrowquant_int4
        class TestOfAClass:
            def test_inherited(self, arrowquant, weights):
                arrowquant.check(weights, weights, guards=False)

            @pytest.mark.arrowquant(bits=8, cosine=0.99)
            def test_own(self, arrowquant, weights):
                arrowquant.check(weights, weights, guards=False)

        def test_of_the_module(arrowquant, weights):
            arrowquant.check(weights, weights, guards=False)
        """
    )
    assert shown_targets(project.runpytest()) == {
        "test_inherited": 0.9,
        "test_own": 0.99,
        "test_of_the_module": 0.7,
    }


def test_strict_markers_knows_them_all(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("bits", [2, 4, 8])
        @pytest.mark.arrowquant
        def test_it(arrowquant, weights, bits):
            arrowquant.check(weights, weights, guards=False)

        @pytest.mark.arrowquant_int2
        def test_int2(arrowquant, weights):
            arrowquant.check(weights, weights, guards=False)
        """
    )
    result = project.runpytest_subprocess("--strict-markers", "--strict-config", "-Werror")
    result.assert_outcomes(passed=4)


def test_mistakes_fail_under_xdist_as_they_do_alone(runs):
    for run in (runs.serial, runs.two):
        assert run.returncode == pytest.ExitCode.TESTS_FAILED
        assert "INTERNALERROR" not in run.stdout + run.stderr
        for test, said in {
            "test_typo": "unknown keyword 'cosin' (did you mean 'cosine'?)",
            "test_positional": "@pytest.mark.arrowquant takes keywords only, not (4,)",
            "test_nothing_checked": "marked arrowquant_int4 but checked nothing: call ",
            "test_no_target": "bits=3 has no default target and no target given",
        }.items():
            section = re.search(
                rf"^_+ [\w ]*{test} _+$(.*?)^[_=]", run.stdout, re.DOTALL | re.MULTILINE
            )
            assert said in section[1]
