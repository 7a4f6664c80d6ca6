"""Installed and unused, the plugin prints nothing, writes nothing and imports nothing heavy."""

import json

import pytest

PLAIN = """
def test_it(tmp_path):
    assert tmp_path
"""
HEAVY = ("numpy", "numba", "matplotlib", "hypothesis", "safetensors", "ml_dtypes")


def lines_without_time(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if not line.startswith(("=====", "plugins:"))]


@pytest.fixture
def plain(project):
    """A project with one trivial test and nothing else."""
    (project.path / "conftest.py").unlink()
    project.makepyfile(PLAIN)
    return project


@pytest.mark.parametrize("arguments", [(), ("-n2",)], ids=["serial", "n2"])
def test_the_output_is_that_of_a_run_without_the_plugin(plain, arguments):
    arguments = (*arguments, "-p", "no:cacheprovider")
    with_it = plain.runpytest_subprocess(*arguments)
    without = plain.runpytest_subprocess(*arguments, "-p", "no:arrowquant")
    with_it.assert_outcomes(passed=1)
    assert lines_without_time(with_it) == lines_without_time(without)
    assert [line for line in with_it.outlines if "arrowquant" in line] == [
        line for line in with_it.outlines if line.startswith("plugins:")
    ]
    assert with_it.stderr.str() == without.stderr.str()


def test_no_file_is_written(plain):
    before = sorted(plain.path.rglob("*"))
    plain.runpytest("-pno:cacheprovider", "-pno:benchmark").assert_outcomes(passed=1)
    after = sorted(path for path in plain.path.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_nothing_heavy_is_imported(plain):
    plain.makeconftest(
        f"""
        import json
        import sys
        from pathlib import Path

        def pytest_unconfigure(config):
            heavy = [name for name in {HEAVY} if name in sys.modules]
            ours = [name for name in sys.modules if name.startswith("pytest_arrowquant.")]
            Path("imported.json").write_text(json.dumps([heavy, ours]))
        """
    )
    others = [f"-pno:{name}" for name in ("hypothesispytest", "benchmark", "xdist")]
    found = []
    for arguments in (["-pno:arrowquant"], []):
        plain.runpytest_subprocess(*others, *arguments).assert_outcomes(passed=1)
        found.append(json.loads((plain.path / "imported.json").read_text()))
    without, with_it = found
    assert without == [[], []]
    assert with_it[0] == []
    assert "pytest_arrowquant.plugin" in with_it[1]


def test_a_run_of_accuracy_tests_names_the_records_but_writes_no_file(project):
    project.makepyfile(
        """
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored, bits=4)
        """
    )
    result = project.runpytest("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["=* accuracy of quantization =*", "passed  test_it *"])
    result.stdout.no_fnmatch_line("reports in*")
    assert sorted(path.name for path in project.path.iterdir() if path.suffix != "") == [
        "conftest.py",
        "test_a_run_of_accuracy_tests_names_the_records_but_writes_no_file.py",
    ]
    assert not (project.path / ".arrowquant").exists()


def test_blocked_the_plugin_leaves_no_option_and_no_marker(plain):
    result = plain.runpytest("-p", "no:arrowquant", "--markers")
    result.stdout.no_fnmatch_line("*arrowquant*")
    refused = plain.runpytest("-p", "no:arrowquant", "--arrowquant-accuracy")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR


def test_without_autoloading_the_plugin_works_when_named(project, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project.makepyfile(
        """
        import pytest

        @pytest.mark.arrowquant_int4
        def test_it(arrowquant, weights, restored):
            arrowquant.check(weights, restored)
        """
    )
    result = project.runpytest_subprocess("-p", "pytest_arrowquant.plugin", "--strict-markers")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["passed  test_it *"])
