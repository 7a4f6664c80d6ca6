"""The report folder and the summary: what they hold, and that no finished record is lost."""

import json
import re
import socket
from pathlib import Path

import pytest

from pytest_arrowquant import AccuracyRecord, OptionError, load_report

from .helpers import ACCURACY, SUITE, Plain, names, new_in_pytest_9, read_report

METRICS = (
    "cosine", "row_cosine_min", "sqnr_db", "row_sqnr_db_min", "norm_ratio", "gain", "bias",
    "max_abs_error", "output_cosine", "output_sqnr_db", "bits_per_weight", "compression_ratio",
    "original_bytes", "stored_bytes", "shannon_gap_db",
)  # fmt: skip
FIELDS = {
    "subject": ("kind", "modality", "family", "source", "tensors", "parameters", "dtype"),
    "quantizer": ("name", "options"),
    "scheme": ("bits", "group_size", "symmetric", "zero"),
    "metrics": METRICS,
    "layers": ("count", "cosine_min", "cosine_max", "cosine_mean", "cosine_std", "worst"),
}
NOT_ASKED_FOR = ("stored_as", "selfcheck")
CHARTS = ("accuracy_by_bit_width", "target_achievement", "accuracy_compression_tradeoff", "layers")
PER_RUN = ("created", "environment")


@pytest.fixture(scope="module")
def report(runs) -> Plain:
    return read_report(runs.folder / "serial")


def the_record(report: Plain, name: str) -> Plain:
    (record,) = (record for record in report["records"] if record["name"] == name)
    return record


def test_the_head_of_the_report(report):
    assert (report["schema"], report["schema_version"]) == ("arrowquant-accuracy", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["created"])
    assert report["seed"] == 0
    assert (report["rollup"], report["plan"]) == (None, None)
    assert {"python", "platform", "cpu", "pytest_arrowquant", "numpy", "numba"} <= set(
        report["environment"]
    )


def test_every_record_has_the_fields_of_the_schema(report):
    for record in report["records"]:
        assert {"nodeid", "attempt", "index", "name", "optimizations", "improvement"} <= set(record)
        for part, fields in FIELDS.items():
            assert set(record[part]) == set(fields)
        assert record["optimizations"] == []
        assert record["improvement"] is None
        assert [record[field] for field in NOT_ASKED_FOR] == [None, None]
        assert record["explanation"] is None or not record["passed"]
        assert set(record["energies"]) == {"reference", "restored", "error"}
        for target in record["targets"]:
            assert set(target) == {"metric", "op", "bound", "value", "margin", "tensor", "where",
                                   "passed"}  # fmt: skip
        assert record["passed"] is all(target["passed"] for target in record["targets"])


def test_a_record_of_the_suite(report):
    record = the_record(report, "audio-int4-rtn")
    assert record["nodeid"] == f"{SUITE}[audio-int4-rtn]"
    assert (record["attempt"], record["index"], record["notes"]) == (0, 0, [])
    assert record["subject"]["kind"] == "synthetic"
    assert (record["subject"]["modality"], record["subject"]["family"]) == ("audio", "wavegrad")
    assert (record["subject"]["source"], record["subject"]["dtype"]) == (None, "float32")
    assert record["quantizer"]["name"] == "rtn"
    assert record["scheme"] == {"bits": 4, "group_size": 64, "symmetric": True, "zero": "none"}
    metrics, layers = record["metrics"], record["layers"]
    assert 0.99 < metrics["cosine"] < 1
    assert metrics["original_bytes"] == 4 * record["subject"]["parameters"]
    assert metrics["compression_ratio"] == pytest.approx(
        metrics["original_bytes"] / metrics["stored_bytes"]
    )
    assert 4.5 <= metrics["bits_per_weight"] < 4.52
    assert layers["count"] == record["subject"]["tensors"] > 5
    assert layers["cosine_min"] <= layers["cosine_mean"] <= layers["cosine_max"]
    assert [layer["cosine"] for layer in layers["worst"]] == sorted(
        layer["cosine"] for layer in layers["worst"]
    )
    assert layers["worst"][0]["cosine"] == layers["cosine_min"]
    assert set(layers["worst"][0]) == {"name", "shape", "cosine", "sqnr_db"}


def test_a_target_of_several_tensors_names_the_worst(report):
    record = the_record(report, "audio-int4-rtn")
    cosine = record["targets"][0]
    assert (cosine["metric"], cosine["op"], cosine["bound"]) == ("cosine", ">=", 0.9)
    assert cosine["value"] == record["layers"]["cosine_min"]
    assert cosine["tensor"] == record["layers"]["worst"][0]["name"]
    assert cosine["margin"] == pytest.approx(cosine["value"] - 0.9)


def test_two_checks_of_one_test_are_two_records(report):
    first, second = (the_record(report, name) for name in ("first", "second"))
    assert first["nodeid"] == second["nodeid"] == "test_accuracy.py::test_two_checks"
    assert (first["index"], second["index"]) == (0, 1)
    assert (first["metrics"]["stored_bytes"], second["metrics"]["stored_bytes"]) == (None, 4608)


def test_a_failed_check_is_a_record_and_no_error(report):
    record = the_record(report, "test_doubled")
    assert record["passed"] is False
    missed = {target["metric"]: target for target in record["targets"] if not target["passed"]}
    assert missed["gain"]["margin"] < 0
    assert missed["gain"]["tensor"] == "test_doubled"
    assert "guard order left out: columns are permuted" in record["notes"]
    assert "test_accuracy.py::test_doubled" not in [error["nodeid"] for error in report["errors"]]


@pytest.mark.parametrize("run", ["serial", "two"])
@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("test_broken", "fixture 'no_such_fixture' not found"),
        ("test_typo", "unknown keyword 'cosin' (did you mean 'cosine'?)"),
    ],
)
def test_a_test_that_could_not_be_set_up_is_an_error_that_says_why(runs, run, test, said):
    errors = read_report(runs.folder / run)["errors"]
    (error,) = (error for error in errors if error["nodeid"] == f"test_accuracy.py::{test}")
    assert error["when"] == "setup"
    assert said in error["message"]


def test_the_summary_counts_records_and_tests(report):
    records = report["records"]
    summary = report["summary"]
    assert summary["records"] == len(records) == summary["passed"] + summary["failed"]
    assert summary["failed"] == sum(not record["passed"] for record in records) == 1
    assert summary["tests"] == 12  # test_unmarked is deselected
    assert (summary["complete"], summary["exit_status"]) == (True, 1)


def test_infinity_is_null_and_noted(report):
    record = the_record(report, "test_exact")
    assert record["metrics"]["sqnr_db"] is None
    assert "sqnr_db is null: its value is inf" in record["notes"]


def test_nothing_names_the_machine_the_user_or_an_absolute_path(runs):
    for file in ("accuracy.json", "accuracy.txt", "layers.svg"):
        text = (runs.folder / "serial" / file).read_text(encoding="utf-8")
        assert socket.gethostname() not in text
        assert str(runs.folder) not in text
        assert str(Path.home()) + "/" not in text


def test_an_absolute_path_in_an_error_is_not_passed_on(project):
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def original():
            return open("/no-such-folder/weights.bin")

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, original): ...
        """
    )
    project.runpytest("--arrowquant-report=out")
    (error,) = read_report(project.path / "out")["errors"]
    assert "No such file or directory" in error["message"]
    assert "/no-such-folder" not in error["message"]


def test_records_are_sorted(report):
    keys = [(r["nodeid"], r["attempt"], r["index"]) for r in report["records"]]
    assert keys == sorted(keys)
    assert keys[0][0].startswith("pytest_arrowquant/suite/")


def without_the_run(report: Plain) -> Plain:
    """What must be equal in any two runs: all but created, environment and timing."""
    kept = {key: value for key, value in report.items() if key not in PER_RUN}
    return kept | {"records": [{**record, "timing": None} for record in report["records"]]}


@pytest.mark.parametrize("other", ["again", "two"])
def test_two_runs_write_the_same_but_for_created_environment_and_timing(runs, report, other):
    assert without_the_run(read_report(runs.folder / other)) == without_the_run(report)


def test_a_run_by_workers_ends_as_the_serial_one(runs):
    for run in (runs.serial, runs.again, runs.two):
        assert run.returncode == pytest.ExitCode.TESTS_FAILED
        assert "INTERNALERROR" not in run.stdout + run.stderr


@pytest.mark.parametrize("run", ["serial", "two"])
def test_numpy_scalars_are_taken_as_numbers(runs, run):
    records = [r for r in read_report(runs.folder / run)["records"] if "scalars" in r["nodeid"]]
    assert [record["scheme"]["bits"] for record in records] == [8, 4]  # eight, four
    assert {record["targets"][0]["bound"] for record in records} == {0.9}
    assert {record["metrics"]["stored_bytes"] for record in records} == {4096}


def test_the_summary_has_a_line_a_record_and_the_worst_layers(runs):
    lines = runs.serial.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if "accuracy of quantization" in line)
    section = lines[start:]
    assert any(re.match(r"passed  audio-int4-rtn +0\.99\d+ +0\.90? ", line) for line in section)
    assert any(line.startswith("FAILED  test_doubled ") for line in section)
    worst = section.index("worst layers:")
    assert re.match(r"  audio-int4-rtn: \S+ \(\d.*\) cosine 0\.99\d+, SQNR ", section[worst + 1])
    assert "reports in serial: accuracy.json, accuracy.txt, accuracy_by_bit_width.png" in "\n".join(
        section
    )


def test_the_text_report_says_what_the_json_says(runs, report):
    text = (runs.folder / "serial/accuracy.txt").read_text(encoding="utf-8")
    for record in report["records"]:
        verdict = "passed" if record["passed"] else "FAILED"
        assert re.search(rf"^{verdict}  {re.escape(record['name'])} ", text, re.MULTILINE)
    missed = text.partition("Bounds missed\n")[2]
    assert re.match(r"  test_doubled: \w+ \S+ (<=|>=|>|within) ", missed)
    assert "test_accuracy.py::test_broken (setup): " in text
    assert "test_doubled: guard order left out: columns are permuted" in text


def test_there_are_four_charts_as_png_and_svg(runs):
    for name in CHARTS:
        assert (runs.folder / "serial" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (runs.folder / "serial" / f"{name}.svg").read_text(encoding="utf-8")


def test_the_shown_target_is_the_one_that_was_held(project):
    """A cosine of 0.9944 misses 0.9949: both at two digits would read as passed."""
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4, cosine=0.9949)
        """
    )
    result = project.runpytest()
    result.stdout.fnmatch_lines(["FAILED  test_it  0.9944*  0.9949*"])


def test_load_report_reads_a_folder_or_its_file(runs, report):
    assert load_report(runs.folder / "serial") == report
    assert load_report(str(runs.folder / "serial/accuracy.json")) == report
    for record in report["records"]:
        assert AccuracyRecord.from_json(record).to_json() == record


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "accuracy.json does not exist"),
        ("no JSON", "accuracy.json is not JSON: Expecting value"),
        ("[]", "accuracy.json is no arrowquant-accuracy report of version 1"),
        ('{"schema": "other"}', "accuracy.json is no arrowquant-accuracy report of version 1"),
        (
            '{"schema": "arrowquant-accuracy", "schema_version": 2}',
            "is no arrowquant-accuracy report of version 1: ('arrowquant-accuracy', 2)",
        ),
    ],
)
def test_load_report_refuses_what_is_no_report(tmp_path, text, said):
    if text is not None:
        (tmp_path / "accuracy.json").write_text(text)
    with pytest.raises(OptionError, match=re.escape(said)):
        load_report(tmp_path / "accuracy.json")


def test_the_default_folder_ignores_itself(project):
    project.makepyfile(test_mine="def test_unmarked(): pass")
    result = project.runpytest(*ACCURACY)
    result.stdout.fnmatch_lines(["reports in .arrowquant: accuracy.json, *"])
    assert (project.path / ".arrowquant/.gitignore").read_text() == "*\n"
    assert names(read_report(project.path / ".arrowquant")) == ["audio-int4-rtn"]


def test_the_default_folder_is_under_the_root_wherever_pytest_starts(project, monkeypatch):
    project.makeini("[pytest]")
    monkeypatch.chdir(project.mkdir("below"))
    project.runpytest(*ACCURACY)
    assert (project.path / ".arrowquant/accuracy.json").exists()
    assert not (project.path / "below/.arrowquant").exists()


def test_an_ordinary_run_writes_a_report_of_the_tests_that_used_the_fixture(project):
    project.makepyfile(
        """
        def test_used(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)

        def test_other():
            raise AssertionError("of no concern")
        """
    )
    project.runpytest("--arrowquant-report=some/where").assert_outcomes(passed=1, failed=1)
    report = read_report(project.path / "some/where")
    assert names(report) == ["test_used"]
    assert (report["errors"], report["summary"]["exit_status"]) == ([], 1)
    assert not (project.path / "some/where/.gitignore").exists()


def test_a_run_without_records_writes_a_report_that_says_so(project):
    project.makepyfile("def test_other(): pass")
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=1)
    report = read_report(project.path / "out")
    assert (report["records"], report["summary"]["records"]) == ([], 0)
    assert "no records" in (project.path / "out/accuracy.txt").read_text()


def test_a_report_that_cannot_be_written_fails_the_run_in_one_line(project):
    (project.path / "taken").write_text("a file")
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    result = project.runpytest("--arrowquant-report=taken")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["the reports could not be written: *File exists*taken*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert (project.path / "taken").read_text() == "a file"


def test_without_a_terminal_the_report_is_written_all_the_same(project):
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    result = project.runpytest("-pno:terminal", "--arrowquant-report=out")
    assert (result.ret, result.stderr.str()) == (0, "")
    assert names(read_report(project.path / "out")) == ["test_it"]


STOPPED = """
import pytest

@pytest.mark.arrowquant_int4
def test_1_good(arrowquant, weights, restored):
    arrowquant.check(weights, restored)

@pytest.mark.arrowquant_int4
def test_2_stops(arrowquant, weights, restored):
    arrowquant.check(weights, restored)
    {stop}

@pytest.mark.arrowquant_int4
def test_3_never(arrowquant, weights, restored):
    arrowquant.check(weights, restored)
"""


def test_ctrl_c_keeps_the_records_before_it(project):
    project.makepyfile(STOPPED.format(stop="raise KeyboardInterrupt"))
    result = project.runpytest("--arrowquant-report=out", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    report = read_report(project.path / "out")
    assert "test_1_good" in names(report)
    assert "test_3_never" not in names(report)
    assert report["summary"]["complete"] is False
    assert report["summary"]["exit_status"] == pytest.ExitCode.INTERRUPTED


def test_a_run_that_a_test_ends_is_not_complete(project):
    project.makepyfile(STOPPED.format(stop="pytest.exit('enough', returncode=0)"))
    project.runpytest("--arrowquant-report=out")
    report = read_report(project.path / "out")
    assert "test_1_good" in names(report)
    assert report["summary"]["complete"] is False


def test_stopping_at_the_first_failure_is_not_complete(project):
    project.makepyfile(STOPPED.format(stop="raise ValueError('no more')"))
    project.runpytest("--arrowquant-report=out", "-x").assert_outcomes(passed=1, failed=1)
    report = read_report(project.path / "out")
    assert names(report) == ["test_1_good", "test_2_stops"]
    assert (report["summary"]["complete"], report["summary"]["exit_status"]) == (False, 1)
    assert [(e["when"], e["message"]) for e in report["errors"]] == [
        ("call", "ValueError: no more")
    ]


def test_a_worker_that_dies_loses_no_finished_record(project):
    project.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.arrowquant_int4
        @pytest.mark.parametrize("n", range(6))
        def test_it(arrowquant, weights, restored, n):
            if n == 5:
                os._exit(9)
            arrowquant.check(weights, restored)
        """
    )
    result = project.runpytest_subprocess("-n2", "--arrowquant-report=out")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    report = read_report(project.path / "out")
    finished = [record["nodeid"].partition("::")[2] for record in report["records"]]
    assert finished == [f"test_it[{n}]" for n in range(5)]
    (error,) = report["errors"]
    assert error["nodeid"].endswith("::test_it[5]")
    assert "crashed while running" in error["message"]
    summary = report["summary"]
    assert (summary["complete"], summary["tests_failed"], summary["exit_status"]) == (False, 1, 1)


def test_a_file_that_cannot_be_imported_is_an_error_of_the_run(project):
    project.makepyfile(test_broken="import no_such_module", test_mine=STOPPED.format(stop=""))
    project.runpytest("--arrowquant-report=out", "--continue-on-collection-errors")
    report = read_report(project.path / "out")
    assert report["summary"]["complete"] is False
    assert [error["nodeid"] for error in report["errors"]] == ["test_broken.py"]


def test_each_attempt_of_a_rerun_test_has_its_own_records(project):
    project.makepyfile(
        """
        import pytest

        attempts = []

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored):
            attempts.append(1)
            arrowquant.check(weights, restored, name="good")
            arrowquant.check(weights, restored * (3 - len(attempts)), name="first bad")
        """
    )
    result = project.runpytest("--arrowquant-report=out", "--reruns=1")
    result.assert_outcomes(passed=1)
    report = read_report(project.path / "out")
    assert [(r["attempt"], r["index"], r["name"], r["passed"]) for r in report["records"]] == [
        (0, 0, "good", True),
        (0, 1, "first bad", False),
        (1, 0, "good", True),
        (1, 1, "first bad", True),
    ]
    summary = report["summary"]
    assert (summary["tests"], summary["tests_failed"], summary["exit_status"]) == (1, 0, 0)


@new_in_pytest_9
def test_subtests_do_not_repeat_the_records_of_their_test(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored, subtests):
            for n in (1, 2, 1):
                with subtests.test(n=n):
                    arrowquant.check(weights, n * restored, name=f"times {n}")
        """
    )
    project.runpytest("--arrowquant-report=out")
    report = read_report(project.path / "out")
    assert names(report) == ["times 1", "times 2", "times 1"]
    assert [record["passed"] for record in report["records"]] == [True, False, True]
    assert (report["summary"]["tests"], report["summary"]["tests_failed"]) == (1, 1)
    assert report["errors"] == []  # the second record says all of it


def test_an_expected_failure_keeps_its_record_and_fails_no_test(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.xfail(strict=True)
        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, 2 * restored)
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(xfailed=1)
    report = read_report(project.path / "out")
    assert [record["passed"] for record in report["records"]] == [False]
    assert (report["errors"], report["summary"]["tests_failed"]) == ([], 0)


def test_what_fails_in_teardown_is_an_error_and_keeps_the_record(project):
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def leaking():
            yield
            raise RuntimeError("left open")

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored, leaking):
            arrowquant.check(weights, restored)
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=1, errors=1)
    report = read_report(project.path / "out")
    assert names(report) == ["test_it"]
    assert [(e["when"], e["message"]) for e in report["errors"]] == [
        ("teardown", "RuntimeError: left open")
    ]


def test_a_failure_of_the_test_itself_is_an_error_beside_a_failed_record(project):
    """A record that failed does not explain a test that asserted nothing of it."""
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.measure(weights, 2 * restored, bits=4)
            raise ValueError("something else")
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(failed=1)
    report = read_report(project.path / "out")
    assert [record["passed"] for record in report["records"]] == [False]
    assert [e["message"] for e in report["errors"]] == ["ValueError: something else"]


def test_json_on_disk_has_a_line_a_record_and_ends_in_a_newline(runs, report):
    text = (runs.folder / "serial/accuracy.json").read_text(encoding="utf-8")
    assert text.startswith('{\n "schema": "arrowquant-accuracy",\n')
    assert text.endswith("}\n")
    lines = [line.strip().removesuffix(",") for line in text.splitlines()]
    records = [json.loads(line) for line in lines if line.startswith('{"nodeid": ')]
    assert [record for record in records if "targets" in record] == report["records"]
