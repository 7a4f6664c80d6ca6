"""The examples: each runs as its README says, and breaks as its README says."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import Plain, Run, names, read_report, run_pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = ("own_quantizer", "marker", "invariants", "speed", "checkpoint_gate")
REPORT = "--arrowquant-report=report"


@pytest.fixture
def example(tmp_path, request) -> Path:
    """A copy of the example that the test is parametrized over, far from this project's files."""
    folder = tmp_path / request.param
    left = shutil.ignore_patterns("__pycache__", ".*")
    return Path(shutil.copytree(EXAMPLES / request.param, folder, ignore=left))


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", [name], indirect=True)


def blocks(example: Path, language: str) -> list[str]:
    """The fenced blocks of a language in its README."""
    readme = (example / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)


def run(example: Path, *further: str, block: int = 0) -> Run:
    """The commands of its README, the last one with further arguments; all but that must pass."""
    *before, last = (shlex.split(line) for line in blocks(example, "sh")[block].splitlines())
    for program, *arguments in before:
        assert program == "python"
        subprocess.run([sys.executable, *arguments], cwd=example, check=True)
    assert last[0] == "pytest"
    return run_pytest(example, *last[1:], *further)


def break_it(example: Path) -> None:
    """Replace the lines of its README's diff, each of which is in one file once."""
    lines = blocks(example, "diff")[0].splitlines()
    old, new = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    for was, becomes in zip(old, new, strict=True):
        (file,) = (f for f in example.glob("*.py") if f"{was}\n" in f.read_text(encoding="utf-8"))
        text = file.read_text(encoding="utf-8")
        assert text.count(f"{was}\n") == 1
        file.write_text(text.replace(f"{was}\n", f"{becomes}\n"), encoding="utf-8")


def require_quoted(example: Path, output: str, block: int = 0) -> None:
    """Every line of a block of the README is in the output; `...` stands for the rest of a line."""
    said = [" ".join(line.split()) for line in output.splitlines()]
    for quoted in blocks(example, "text")[block].splitlines():
        start = " ".join(quoted.partition("...")[0].split())
        assert any(start in line for line in said), quoted


def read(folder: Path) -> tuple[Plain, dict[str, bool], dict[str, list[str]]]:
    """A report; whether its records passed, by name; and which targets each of them misses."""
    report = read_report(folder)
    passed = {record["name"]: record["passed"] for record in report["records"]}
    missed = {
        record["name"]: [target["metric"] for target in record["targets"] if not target["passed"]]
        for record in report["records"]
    }
    return report, passed, missed


def broken(report: Plain) -> set[str]:
    return {entry["invariant"] for entry in report["invariants"] if not entry["holds"]}


def outcomes(run: Run) -> dict[str, int]:
    """What the last line counts."""
    line = run.stdout.strip().splitlines()[-1]
    return {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error)", line)}


def test_the_table_names_every_example():
    folders = {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()}
    assert folders == {*HERE, "peers"}
    for page in (EXAMPLES / "README.md", EXAMPLES.parent / "docs/examples.md"):
        rows = re.findall(r"^\| [\[`](\w+)[\]`]", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert rows == [*HERE, "peers"]


@pytest.mark.parametrize("name", HERE)
def test_an_example_is_a_project_of_its_own(name):
    settings = {"pytest.ini": "[pytest]", "pyproject.toml": "[tool.pytest.ini_options]"}
    files = {file: EXAMPLES / name / file for file in settings}
    assert any(f.exists() and settings[k] in f.read_text("utf-8") for k, f in files.items())


def test_five_lines_suffice():
    lines = (EXAMPLES / "own_quantizer/conftest.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 5


@of("own_quantizer")
def test_own_quantizer_passes_the_whole_suite(example):
    finished = run(example, "--arrowquant-modalities=audio")
    assert finished.returncode == 0, finished.stdout
    report, passed, _ = read(example / ".arrowquant")
    assert passed == {"audio-int4-group_quant": True, "audio-int8-group_quant": True}
    assert {record["metrics"]["bits_per_weight"] < 9 for record in report["records"]} == {True}
    held = {(entry["bits"], entry["invariant"]) for entry in report["invariants"]}
    assert {(4, "finite"), (8, "rows_independent"), (8, "accurate")} <= held
    assert broken(report) == set()


@of("own_quantizer")
def test_own_quantizer_breaks_where_only_invariants_see_it(example):
    break_it(example)
    four = ("--arrowquant-modalities=audio", "--arrowquant-bits=4", "-k", "audio or finite or rows")
    finished = run(example, *four)
    assert finished.returncode == 1
    require_quoted(example, finished.stdout)
    report, passed, _ = read(example / ".arrowquant")
    assert passed == {"audio-int4-group_quant": True}
    assert "finite" in broken(report)
    assert "rows_independent" not in broken(report)


@of("marker")
def test_marker_passes_the_projects_own_targets(example):
    finished = run(example, REPORT)
    assert outcomes(finished) == {"passed": 6}
    report, passed, _ = read(example / "report")
    four, eight, outputs = names(report)
    assert passed == {four: True, eight: True, outputs: True}
    bounds = [
        {target["metric"]: target["bound"] for target in record["targets"]}
        for record in report["records"]
    ]
    assert (bounds[0]["cosine"], bounds[0]["sqnr_db"]) == (0.99, 18)
    assert bounds[1]["cosine"] == 0.9999
    assert (bounds[2]["cosine"], bounds[2]["output_cosine"]) == (0.99, 0.99)


@of("marker")
def test_marker_breaks_in_the_marked_tests_alone(example):
    break_it(example)
    finished = run(example)
    assert outcomes(finished) == {"failed": 3, "passed": 3}
    failed = re.findall(r"^FAILED test_int_codec\.py::(\w+)", finished.stdout, re.MULTILINE)
    assert failed == [*2 * ["test_every_width_is_accurate"], "test_outputs_of_a_layer_are_accurate"]
    require_quoted(example, finished.stdout)


@of("marker")
def test_marker_selects_by_width(example):
    finished = run(example, "-m", "arrowquant_int4", "--collect-only", "-q")
    assert [line.partition("::")[2] for line in finished.stdout.splitlines() if "::" in line] == [
        "test_every_width_is_accurate[4]",
        "test_outputs_of_a_layer_are_accurate",
    ]


@of("invariants")
def test_invariants_hold(example):
    finished = run(example, REPORT)
    assert set(outcomes(finished)) == {"passed"}, finished.stdout
    report = read(example / "report")[0]
    held = {(entry["bits"], entry["invariant"]) for entry in report["invariants"]}
    assert outcomes(finished)["passed"] == len(held) + 2
    assert {(4, "rows_independent"), (8, "levels"), (8, "monotone")} <= held
    assert {entry["quantizer"] for entry in report["invariants"]} == {"row_quant"}
    assert broken(report) == set()


@of("invariants")
def test_invariants_break_for_a_scale_of_the_tensor(example):
    break_it(example)
    finished = run(example, REPORT, "-k", "do_not_see or rows_independent or finite")
    require_quoted(example, finished.stdout)
    assert re.search(r"^FAILED .*::test_rows_do_not_see_each_other", finished.stdout, re.MULTILINE)
    report = read(example / "report")[0]
    assert "rows_independent" in broken(report)
    assert "finite" not in broken(report)


@of("speed")
def test_speed_is_beside_accuracy_in_both_files(example):
    finished = run(example)
    assert outcomes(finished) == {"passed": 2}
    require_quoted(example, finished.stdout)
    in_benchmark, in_record = (json.loads(block) for block in blocks(example, "json"))
    report, passed, _ = read(example / "accuracy")
    assert passed == {"test_quantize[by_peak]": True, "test_quantize[by_search]": True}
    peak, search = (record["timing"] for record in report["records"])
    assert peak.keys() == in_record.keys()
    assert {key for key, value in peak.items() if value is None} == {
        key for key, value in in_record.items() if value is None
    }
    assert 0 < peak["quantize_s"] < search["quantize_s"]
    benchmarks = json.loads((example / "speed.json").read_text(encoding="utf-8"))["benchmarks"]
    ((name, accuracy),) = in_benchmark.items()
    assert benchmarks[0]["extra_info"] == {name: pytest.approx(accuracy, rel=1e-5)}
    assert benchmarks[0]["stats"]["median"] == pytest.approx(peak["quantize_s"])


@of("checkpoint_gate")
def test_checkpoint_gate_lets_the_good_copy_through_and_stops_the_other(example):
    good = run(example)
    assert good.returncode == 0, good.stdout
    require_quoted(example, good.stdout)
    report, passed, _ = read(example / ".arrowquant")
    assert len(passed) == 4
    assert all(passed.values())
    assert {record["scheme"]["bits"] for record in report["records"]} == {4}

    bad = run(example, block=1)
    assert bad.returncode == 1
    require_quoted(example, bad.stdout, block=1)
    _, passed, missed = read(example / ".arrowquant")
    (name,) = (name for name, good in passed.items() if not good)
    assert name == "model.layers.1.mlp.down_proj.weight"
    assert "row_sqnr_db" in missed[name]
    assert "cosine" not in missed[name]
