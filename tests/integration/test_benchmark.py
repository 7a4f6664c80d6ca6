"""pytest-benchmark beside us: speed and quality in one row, and none of it where it is off."""

import json

import pytest

from .helpers import ACCURACY, read_report

NOT_TIMED = "not timed: pytest-benchmark is off, disabled, or off under xdist"


@pytest.fixture(scope="module")
def serial(runs):
    """(the records by name, the entries of pytest-benchmark's JSON by name) of one run."""
    benchmarks = json.loads((runs.folder / "serial.json").read_text())["benchmarks"]
    records = read_report(runs.folder / "serial")["records"]
    return {r["name"]: r for r in records}, {b["name"]: b for b in benchmarks}


def test_the_suite_is_timed(serial, runs):
    records, benchmarks = serial
    timing, metrics = (records["audio-int4-rtn"][key] for key in ("timing", "metrics"))
    stats = benchmarks["test_model[audio-int4-rtn]"]["stats"]
    assert timing["quantize_s"] == pytest.approx(stats["total"], rel=1e-3)
    assert stats["rounds"] == records["audio-int4-rtn"]["subject"]["tensors"]
    for step in ("quantize", "dequantize"):
        seconds = timing[f"{step}_s"]
        assert seconds > 0
        assert timing[f"{step}_gb_s"] == pytest.approx(metrics["original_bytes"] / seconds / 1e9)
    assert NOT_TIMED not in runs.serial.stdout
    assert "quantize GB/s" in runs.serial.stdout


def test_a_users_test_that_takes_both_has_the_time_in_its_record(serial):
    records, benchmarks = serial
    timing = records["test_timed"]["timing"]
    assert timing["quantize_s"] == pytest.approx(benchmarks["test_timed"]["stats"]["median"])
    assert timing["quantize_gb_s"] == pytest.approx(64 * 128 * 4 / timing["quantize_s"] / 1e9)
    assert (timing["dequantize_s"], timing["dequantize_gb_s"]) == (None, None)
    assert records["first"]["timing"] is None


@pytest.mark.parametrize(
    ("timed", "record"),
    [("test_timed", "test_timed"), ("test_model[audio-int4-rtn]", "audio-int4-rtn")],
)
def test_the_accuracy_is_in_the_extra_info_of_the_benchmark(serial, timed, record):
    records, benchmarks = serial
    metrics = records[record]["metrics"]
    assert benchmarks[timed]["extra_info"][record] == {
        "cosine": metrics["cosine"],
        "sqnr_db": metrics["sqnr_db"],
        "row_sqnr_db_min": metrics["row_sqnr_db_min"],
        "bits_per_weight": metrics["bits_per_weight"],
        "compression_ratio": metrics["compression_ratio"],
        "passed": True,
    }


def test_every_check_of_a_benchmarked_test_is_in_its_extra_info(project):
    project.makepyfile(
        """
        def test_it(arrowquant, benchmark, weights, arrowquant_kernels):
            q = benchmark.pedantic(arrowquant_kernels.quantize, (weights,), rounds=2)
            arrowquant.check(weights, q)
            arrowquant.check(weights, q)
            arrowquant.check(weights, q, name="named")
        """
    )
    result = project.runpytest("--benchmark-json=b.json", "-k", "int4")
    result.assert_outcomes(passed=1)
    (benchmark,) = json.loads((project.path / "b.json").read_text())["benchmarks"]
    assert len(benchmark["extra_info"]) == 3


@pytest.mark.parametrize("argument", ["--benchmark-disable", "-pno:benchmark"])
def test_where_benchmarks_are_off_timing_is_null_and_that_is_said_once(project, argument):
    result = project.runpytest(*ACCURACY, argument)
    result.assert_outcomes(passed=1)
    (record,) = read_report(project.path / ".arrowquant")["records"]
    assert record["timing"] is None
    assert record["layers"]["count"] == record["subject"]["tensors"] > 5
    assert result.outlines.count(NOT_TIMED) == 1


def test_under_xdist_timing_is_null_and_that_is_said_once(runs):
    records = read_report(runs.folder / "two")["records"]
    assert {record["timing"] for record in records} == {None}
    assert runs.two.stdout.splitlines().count(NOT_TIMED) == 1


def test_tests_that_time_nothing_are_not_told_that_they_are_not_timed(project):
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("not timed*")


def test_benchmark_only_runs_the_suite(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant_int4
        def test_timed(arrowquant, benchmark, weights, arrowquant_int4):
            q = benchmark.pedantic(arrowquant_int4.quantize, (weights,), rounds=3)
            arrowquant.check(weights, q)

        @pytest.mark.arrowquant_int4
        def test_untimed(arrowquant, weights, restored):
            arrowquant.check(weights, restored)
        """
    )
    result = project.runpytest(*ACCURACY, "--benchmark-only", "-v")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*::test_model?audio-int4-rtn? PASSED*"])


def test_benchmark_skip_skips_the_suite(project):
    project.runpytest(*ACCURACY, "--benchmark-skip").assert_outcomes(skipped=1)


def test_an_unused_benchmark_times_nothing(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
        def test_it(arrowquant, benchmark, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    project.runpytest("--arrowquant-report=out").assert_outcomes(passed=1)
    assert read_report(project.path / "out")["records"][0]["timing"] is None


def test_what_fails_while_it_is_timed_fails_once(project):
    project.makepyfile(
        """
        def refuse():
            raise ValueError("cannot quantize this")

        def test_it(arrowquant, benchmark):
            benchmark.pedantic(refuse, rounds=3)
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*ValueError: cannot quantize this"])
