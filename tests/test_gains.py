"""The comparison of recipes in words: a table a family, and where an optimization does not help."""

from typing import Any

import pytest

from pytest_arrowquant.report.gains import comparison_lines
from pytest_arrowquant.report.text import MOST_LINES, report_text, summary_lines

Plain = dict[str, Any]
BITS = {2: 2.25, 4: 4.25, 8: 8.25}
MISSED = {"metric": "output_cosine", "op": ">=", "bound": 0.9, "value": 0.8, "margin": -0.1,
          "tensor": "blocks.0.mlp", "passed": False}  # fmt: skip
LEGEND = """\
recipes: output SQNR in dB and its gain over the baseline of the same widths
(* best, ! misses a bound; bpw: bits per weight as stored, by width)
"""


def record(name: str, **fields: Any) -> Plain:
    """The record of a check on its own."""
    return {
        "nodeid": "test_it.py::test_it",
        "attempt": 0,
        "name": name,
        "subject": {"kind": "synthetic", "modality": "text", "family": "mdlm"},
        "quantizer": {"name": "rtn", "options": {}},
        "scheme": {"bits": 4},
        "metrics": {"cosine": 0.99, "sqnr_db": 20.0, "row_sqnr_db_min": 15.0,
                    "bits_per_weight": 4.25, "compression_ratio": 7.53},
        "layers": {"worst": [{"name": "blocks.0.mlp", "shape": [8, 8], "cosine": 0.98,
                              "sqnr_db": 14.0}]},
        "targets": [{"metric": "cosine", "op": ">=", "bound": 0.9, "value": 0.98, "margin": 0.08,
                     "tensor": "blocks.0.mlp", "passed": True}],
        "passed": True,
        "notes": [],
        "timing": None,
        **fields,
    }  # fmt: skip


def compared(
    recipe: str, pair: tuple[int, int], sqnr_db: float | None, gain: float | None = None,
    family: str = "mdlm", bits: float | None = None, passed: bool = True, **fields: Any,
) -> Plain:  # fmt: skip
    """A record of the comparison."""
    made = record(f"{family}-w{pair[0]}a{pair[1]}-{recipe}", recipe=recipe, passed=passed)
    made["subject"] |= {"family": family}
    made["scheme"] = {"bits": pair[0]}
    made["metrics"] |= {"bits_per_weight": bits or BITS[pair[0]], "output_sqnr_db": sqnr_db}
    made["activations"] = {"bits": pair[1], "range": "static", "groups": 1}
    made["asserted"] = False
    made["improvement"] = None if recipe == "baseline" else {"over": "", "sqnr_db": gain}
    made["targets"] += [] if passed else [MISSED]
    return made | fields


def mdlm() -> list[Plain]:
    """Every recipe at two pairs of widths."""
    narrow, wide = (4, 4), (2, 8)
    return [
        compared("baseline", wide, 6.1),
        compared("time_aware", wide, 6.08, -0.02),
        compared("spatial", wide, 6.1, 0.0),
        compared("all", wide, 6.096, -0.004),
        compared("recommended", wide, 10.0, 3.9, bits=2.5, asserted=True),
        compared("q_dit", wide, 9.25, 3.15),
        compared("baseline", narrow, 9.5, passed=False),
        compared("time_aware", narrow, 12.7, 3.2, passed=False),
        compared("spatial", narrow, 8.25, -1.25),
        compared("all", narrow, 12.7, 3.2),
        compared("recommended", narrow, 16.5, 7.0, passed=False, asserted=True),
        compared("q_dit", narrow, 17.0, 7.5, bits=4.5),
    ]


MDLM = """\
        mdlm                 W2A8          W4A4  W2 bpw  W4 bpw
missed  baseline      6.10          9.50      !    2.25    4.25
missed  time_aware    6.08 -0.02   12.70 +3.20!    2.25    4.25
passed  spatial       6.10 +0.00    8.25 -1.25     2.25    4.25
passed  all           6.10 +0.00   12.70 +3.20     2.25    4.25
FAILED  recommended  10.00 +3.90*  16.50 +7.00!    2.50    4.25
passed  q_dit         9.25 +3.15   17.00 +7.50*    2.25    4.50
  time_aware does not help at W2A8: -0.02 dB
  spatial does not help at W2A8: +0.00 dB, W4A4: -1.25 dB
  all does not help at W2A8: +0.00 dB
  recommended is ahead of q_dit at W2A8: +0.75 dB with +0.25 bits/weight; \
behind q_dit at W4A4: -0.50 dB with -0.25 bits/weight
"""


def test_a_table_says_what_each_recipe_gains_and_pays() -> None:
    assert "\n".join(comparison_lines(mdlm())) + "\n" == LEGEND + MDLM


def test_one_width_one_family_and_recipes_left_out() -> None:
    records = [compared("baseline", (8, 8), 30.0, family="vae"),
               compared("all", (8, 8), 33.5, 3.5, family="vae")]  # fmt: skip
    assert comparison_lines(records)[2:] == [
        "        vae               W8A8  W8 bpw",
        "passed  baseline  30.00           8.25",
        "passed  all       33.50 +3.50*    8.25",
    ]
    assert comparison_lines(records[:1])[2:] == [
        "        vae           W8A8  W8 bpw",
        "passed  baseline  30.00       8.25",
    ]
    assert comparison_lines([]) == []


def test_families_pairs_and_recipes_have_an_order_of_their_own() -> None:
    pairs = ((4, 4), (8, 8), (2, 8), (4, 8))
    records = [
        compared(recipe, pair, 9.0, 1.0, family=family)
        for pair in pairs
        for family in ("sedd", "code")
        for recipe in ("q_dit", "own", "all", "baseline")
    ]
    lines = comparison_lines(records)[2:]
    heads = [line.split() for line in lines if "bpw" in line]
    widths = ["W2A8", "W4A8", "W8A8", "W4A4", "W2", "bpw", "W4", "bpw", "W8", "bpw"]
    assert heads == [["sedd", *widths], ["code", *widths]]
    rows = [line.split()[1] for line in lines if line.startswith("passed")]
    assert rows == 2 * ["baseline", "all", "q_dit", "own"]


def test_a_value_that_is_null_or_missing_is_a_dash_and_says_nothing() -> None:
    records = [
        compared("baseline", (8, 8), 30.0),
        compared("spatial", (8, 8), None, None),
        compared("recommended", (8, 8), None, None),
        compared("recommended", (4, 8), 20.0, None),
        compared("q_dit", (8, 8), 31.0, 1.0),
    ]
    assert comparison_lines(records)[2:] == [
        "        mdlm             W4A8          W8A8  W4 bpw  W8 bpw",
        "passed  baseline         -     30.00              -    8.25",
        "passed  spatial          -         -              -    8.25",
        "passed  recommended  20.00         -           4.25    8.25",
        "passed  q_dit            -     31.00 +1.00*       -    8.25",
    ]


def test_a_record_that_measured_no_layer_is_shown_as_what_it_is() -> None:
    empty = compared("all", (4, 8), None, None, passed=False, scheme={}, asserted=True)
    empty["metrics"]["bits_per_weight"] = None
    assert comparison_lines([compared("baseline", (4, 8), 20.0), empty])[2:] == [
        "        mdlm          W4A8  W?A8  W4 bpw",
        "passed  baseline  20.00     -       4.25",
        "FAILED  all           -     -  !       -",
    ]


def test_bits_that_differ_by_the_activations_are_both_shown() -> None:
    records = [compared("q_dit", (4, 8), 20.0, 2.0, bits=4.5), compared("q_dit", (4, 4), 9.0, 2.0)]
    assert comparison_lines(records)[-1].split()[-1] == "4.50/4.25"


def test_a_tie_is_a_tie() -> None:
    records = [compared("recommended", (4, 8), 20.001, 2.0), compared("q_dit", (4, 8), 20.0, 2.0)]
    first, second, last = comparison_lines(records)[3:]
    assert (first.split()[3], second.split()[3]) == ("+2.00*", "+2.00*")
    assert last == "  recommended is level with q_dit at W4A8: +0.00 dB"


def test_a_lead_with_fewer_bits_needs_no_excuse() -> None:
    records = [compared("recommended", (4, 8), 20.0, 2.0, bits=4.0),
               compared("q_dit", (4, 8), 19.0, 1.0, bits=4.25)]  # fmt: skip
    assert comparison_lines(records)[-1] == "  recommended is ahead of q_dit at W4A8: +1.00 dB"


def test_of_several_attempts_the_last_is_shown() -> None:
    records = [compared("spatial", (4, 8), 20.0 + n, -1.0 * n, attempt=n) for n in (0, 1)]
    assert comparison_lines(records)[-1] == "  spatial does not help at W4A8: -1.00 dB"


def test_the_main_table_and_its_limit_are_of_the_other_records() -> None:
    single = [record(f"text-int4-{place}") for place in range(MOST_LINES)]
    single[-1]["targets"][0]["margin"] = 0.01  # first, were they sorted by their margins
    lines = summary_lines([*single, *mdlm()])
    assert lines[: MOST_LINES + 1] == summary_lines(single)[: MOST_LINES + 1]
    assert not any("closest to their bounds" in line or "mdlm-w" in line for line in lines)
    assert "\n".join(lines).count(LEGEND + MDLM) == 1
    assert "69 of 72 records passed; no test fails on 2 of the others" in lines


def test_a_run_of_the_comparison_alone_has_no_empty_table() -> None:
    lines = summary_lines(mdlm())
    assert lines[:2] == LEGEND.splitlines()
    assert lines[-1] == "9 of 12 records passed; no test fails on 2 of the others"
    text = report_text(mdlm(), [], {"records": 12}, [])
    assert text.startswith("Accuracy of quantization\n\n" + LEGEND + MDLM)


def test_accuracy_txt_tells_bounds_that_no_test_asserts_from_those_that_failed() -> None:
    notes = ["judged by outputs", "guard order left out: GPTQ"]
    records = [*mdlm(), compared("all", (8, 8), 30.0, 2.0, "vae", notes=notes[:1])]
    records[0]["notes"], records[1]["notes"] = notes, notes[:1]
    text = report_text([record("mine", notes=["mine alone"]), *records], [], {}, [])
    said = "output_cosine 0.8 >= 0.9 margin -0.1 in blocks.0.mlp"
    assert LEGEND + MDLM in text
    assert (
        f"""
Bounds missed
  mdlm-w4a4-recommended: {said}

Bounds missed where no test fails on it
  mdlm-w4a4-baseline: {said}
  mdlm-w4a4-time_aware: {said}

Notes
  mine: mine alone
  recipes of mdlm: judged by outputs (2 records)
  recipes of mdlm: guard order left out: GPTQ (1 record)
  recipes of vae: judged by outputs (1 record)
"""
        in text
    )


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"passed": True, "asserted": False}, "passed"),
        ({"passed": False, "asserted": True}, "FAILED"),
        ({"passed": False, "asserted": False}, "missed"),
        ({"passed": False}, "FAILED"),  # of a report that does not tell
    ],
)
def test_the_first_column_of_the_main_table(fields: Plain, verdict: str) -> None:
    assert summary_lines([record("mine", **fields)])[1].startswith(f"{verdict}  mine ")
