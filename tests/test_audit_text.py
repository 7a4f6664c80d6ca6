"""An audit in words and in accuracy.json: its verdict, the worst first, a plan; never too much."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit_records import WEIGHTS, audited, broken, language_model, missing, target
from pytest_arrowquant import load_report, plan, synthetic_model
from pytest_arrowquant.options import Settings
from pytest_arrowquant.report import left_in_full_precision, write_reports
from pytest_arrowquant.report.audit_text import MOST_FAILED, size_text, verdict_lines
from pytest_arrowquant.report.ranking import nearest, room, worst_first
from pytest_arrowquant.report.text import report_text, summary_lines
from test_gains import record

Plain = dict[str, Any]
SETTINGS = Settings(True, None, (4,), None, None, "small", None, None, 0, {})

VERDICT = """\
audit: 3 of 6 tensors failed (3 quantized, 2 plain, 1 missing)
4.250 bits per weight quantized, 8.950 in all: 5.59 MiB of 10.00 MiB (1.79 to 1)
FAILED  model.layers.2.mlp.up_proj.weight: cosine 0.3298 >= 0.9; row_sqnr_db -2.5 > 0 (row 3)
        {mended}
FAILED  model.norm.weight: unequal 3 <= 0 (index (5,): 2.0, not 1)
FAILED  lm_head.weight: complete: missing in the quantized checkpoint
closest to a bound of those that passed:
  model.layers.1.mlp.up_proj.weight: cosine 0.9679 >= 0.9; cosine 0.967938, SQNR 12.00 dB
  model.layers.0.mlp.up_proj.weight: cosine 0.995 >= 0.9; cosine 0.994987, SQNR 20.00 dB
"""
MISSED = """
  {name}: row_sqnr_db -2.5 > 0 margin -2.5 in {name} (row 3)
  {name}: {mended}
  model.norm.weight: unequal 3 <= 0 margin -3 in model.norm.weight (index (5,): 2.0, not 1)
"""
MENDED = (
    "zero point -1: every zero point is one too low; "
    "undone, cosine 0.3298 -> 0.9953, SQNR dB 0.50 -> 20.25"
)


def small_audit() -> list[Plain]:
    """Two quantized tensors, one broken, one plain, one plain and unequal, one missing."""
    unequal = audited("model.norm.weight")
    unequal["targets"] = [target("unequal", "<=", 0, 3, unequal["name"], "index (5,): 2.0, not 1")]
    unequal["passed"] = False
    return [
        audited("model.layers.0.mlp.up_proj.weight", 20.0),
        audited("model.layers.1.mlp.up_proj.weight", 12.0),
        broken("model.layers.2.mlp.up_proj.weight"),
        audited("model.embed_tokens.weight"),
        unequal,
        missing("lm_head.weight"),
    ]


def test_the_verdict_of_an_audit():
    assert verdict_lines(small_audit()) == VERDICT.format(mended=MENDED).splitlines()


def test_the_pooled_bits_are_all_stored_bytes_over_all_weights():
    records = small_audit()
    stored = 3 * (WEIGHTS // 2 + WEIGHTS // 32) + 2 * 2 * WEIGHTS
    assert f"{8 * stored / (5 * WEIGHTS):.3f} in all" in verdict_lines(records)[1]
    bare = [missing("a.weight"), missing("b.weight")]
    assert verdict_lines(bare)[:2] == [
        "audit: 2 of 2 tensors failed (2 missing)",
        "FAILED  a.weight: complete: missing in the quantized checkpoint",
    ]


@pytest.mark.parametrize("number", [100, 5000])
def test_the_terminal_is_never_flooded(number):
    failed = [broken(f"layers.{n}.fc1.weight", 5 - 4 * n / number) for n in range(number)]
    lines = summary_lines([*failed, *language_model(200)])
    assert len(lines) < 3 + 2 * MOST_FAILED + 10
    named = [line for line in lines if line.startswith("FAILED")]
    assert [line.split(":")[0] for line in named[:2]] == [
        f"FAILED  layers.{number - 1}.fc1.weight",
        f"FAILED  layers.{number - 2}.fc1.weight",
    ]
    assert f"... and {number - MOST_FAILED} more failed, in accuracy.txt" in lines
    assert lines[-1].startswith("1603 of ")
    assert not any("not timed" in line for line in lines)


def test_a_bound_about_one_says_so():
    record = audited("fc1.weight", 20.0)
    record["targets"] = [target("gain", "within", 0.01, 0.5, "fc1.weight") | {"passed": False}]
    record["passed"] = False
    assert verdict_lines([record])[2] == "FAILED  fc1.weight: gain 0.5 within 0.01 of 1"


def test_of_many_missed_bounds_three_are_shown():
    bad = broken("fc1.weight")
    bad["targets"] = [target(f"bound_{n}", "<=", 1, 2, "fc1.weight") for n in range(5)]
    assert verdict_lines([bad])[2].endswith(
        "bound_0 2 <= 1; bound_1 2 <= 1; bound_2 2 <= 1; and 2 more"
    )


def test_other_records_keep_their_lines_beside_an_audit():
    mine = record("mine")
    lines = summary_lines([mine, *small_audit()])
    assert lines[1].startswith("passed  mine ")
    assert lines.index("audit: 3 of 6 tensors failed (3 quantized, 2 plain, 1 missing)") > 1
    assert lines[-2] == "4 of 7 records passed"
    assert [line for line in summary_lines([mine]) if "audit" in line] == []


def test_of_several_attempts_at_a_tensor_the_last_counts():
    again = audited("model.layers.2.mlp.up_proj.weight", 20.0) | {"attempt": 1}
    assert summary_lines([*small_audit(), again])[0].startswith("audit: 2 of 6 tensors failed")


def test_the_text_has_all_tensors_the_worst_first():
    records = small_audit()
    for judged in records[:2]:
        judged["notes"] = ["judged after unfolding"]
    text = report_text(records, [], {}, [])
    names = [line.split()[1] for line in text.splitlines() if line[:7] in ("passed ", "FAILED ")]
    assert names == [
        "model.layers.2.mlp.up_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.embed_tokens.weight",
    ]
    rows = {line.split()[1]: line.split()[2] for line in text.splitlines() if "model." in line}
    assert rows["model.layers.0.mlp.up_proj.weight"] == "gptq"
    assert rows["model.embed_tokens.weight"] == "plain"
    assert MISSED.format(name="model.layers.2.mlp.up_proj.weight", mended=MENDED) in text
    assert "  2 tensors: judged after unfolding\n" in text
    assert "  lm_head.weight: missing in the quantized checkpoint\n" in text


def test_the_nearest_bound_is_by_share_and_counts_have_none():
    """A code at the end of its range and all levels in use are no near miss."""
    good = audited("fc1.weight", 20.0)
    assert nearest(good)["metric"] == "cosine"
    assert room(good) == pytest.approx((good["metrics"]["cosine"] - 0.9) / 0.1)
    for metric in ("code_range", "finite_scales", "levels", "complete"):
        (found,) = (t for t in good["targets"] if t["metric"] == metric)
        assert (found["margin"], room({"targets": [found]})) == (0, 1.0)
        assert room({"targets": [found | {"passed": False}]}) == -1.0
    (floor,) = (t for t in good["targets"] if t["metric"] == "floor")
    floor |= {"margin": 0.3, "value": -2.7}
    assert (nearest(good), room(good)) == (floor, pytest.approx(0.1))


def test_worst_first_is_failed_first_then_by_the_least_room():
    names = ["a", "b", "c", "d"]
    records = [audited(name, sqnr_db) for name, sqnr_db in zip(names, (9, 30, 8, 20), strict=True)]
    records[1]["passed"] = False
    assert [r["name"] for r in worst_first(records)] == ["b", "c", "a", "d"]


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.00 KiB"), (1 << 32, "4.00 GiB"),
     (3 << 50, "3072.00 TiB")],
)  # fmt: skip
def test_sizes_are_in_the_largest_unit(nbytes, text):
    assert size_text(nbytes) == text


def written(folder: Path, records: list[Plain], **more: Any) -> Plain:
    summary = {"records": len(records)}
    write_reports(folder, records, [], summary, SETTINGS, **more)
    return load_report(folder)


def test_accuracy_json_of_an_audit(tmp_path):
    records = small_audit()
    report = written(tmp_path, records)
    assert report["records"] == records
    assert [row["layer"] for row in report["rollup"]["layers"]] == [0, 1, 2, None]
    assert report["rollup"]["experts"] == []
    assert [row["role"] for row in report["rollup"]["roles"]] == [
        "embed_tokens", "lm_head", "norm", "up_proj",
    ]  # fmt: skip
    lines = (tmp_path / "accuracy.json").read_text(encoding="utf-8").splitlines()
    of_records = [line for line in lines if line.startswith('  {"nodeid": ')]
    assert [json.loads(line.removesuffix(",")) for line in of_records] == records
    text = (tmp_path / "accuracy.txt").read_text(encoding="utf-8")
    assert text.index("By layer") > text.index("passed  model.embed_tokens.weight")
    assert (tmp_path / "depth.svg").exists()


def test_a_number_that_json_lacks_leaves_the_report_before_it(tmp_path):
    before = written(tmp_path, small_audit())
    records = small_audit()
    records[-1]["metrics"]["cosine"] = float("nan")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        written(tmp_path, records)
    assert load_report(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".accuracy")]


def test_a_plan_is_a_table_beside_the_widths_that_there_are():
    made = plan(model := synthetic_model("audio"), (2, 4)).to_json()
    records = [audited(layer.name, 20.0, bits=8) for layer in model]
    text = report_text(records, [], {}, [], None, made)
    section = text.partition("Plan for the original\n")[2].partition("\n\n")[0].splitlines()
    assert section[0].split()[:3] == ["tensor", "bits", "has"]
    assert [line.split()[:3] for line in section[1:-1]] == [
        [choice["name"], str(choice["bits"]), "8"] for choice in made["choices"]
    ]
    assert section[-1] == f"  {made['bits_per_weight']:.3f} bits per weight by mse"


def test_a_plan_says_why_a_tensor_stays():
    choice = {"name": "fc1.weight", "shape": [4, 4], "dtype": "float32", "cosine": None,
              "stored_bytes": 64, "bits_per_weight": 32.0}  # fmt: skip
    made = {"quantizer": "mse", "bits_per_weight": 32.0, "left": [],
            "choices": [choice | {"bits": None, "reason": "2 bits: cosine 0.5, not >= 0.7"}],
            }  # fmt: skip
    lines = report_text([audited("fc2.weight", 20.0)], [], {}, [], None, made).splitlines()
    place = lines.index("Plan for the original")
    assert lines[place + 2].split(maxsplit=1) == [
        "fc1.weight",
        "2 bits: cosine 0.5, not >= 0.7       32.000",
    ]
    assert lines[place + 3] == ("  32.000 bits per weight by mse; 1 of 1 tensors meet no target")


def test_without_an_audit_there_is_neither_roll_up_nor_plan(tmp_path):
    report = written(tmp_path, [])
    assert (report["rollup"], report["plan"], report["records"]) == (None, None, [])


def test_an_audit_leaves_nothing_in_full_precision(tmp_path):
    """What has no quantizer put on it is of the suite on an original alone."""
    audit = SETTINGS._replace(original=tmp_path / "no such file", quantized=tmp_path)
    assert left_in_full_precision(audit) == []
