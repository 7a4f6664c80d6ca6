"""--arrowquant-accuracy: which tests run, under which ids, whatever the project looks like."""

import itertools
import re

import pytest

from .helpers import (
    ACCURACY,
    CONFTEST,
    DECOY,
    SUITE,
    add_virtual_environment,
    new_in_pytest_9,
    run_pytest,
)

ID = f"{SUITE}[audio-int4-rtn]"
COLLECT = (*ACCURACY, "--collect-only", "-q")
MIXED = """
import pytest

@pytest.mark.arrowquant_int4
def test_marked(arrowquant, weights, restored):
    arrowquant.check(weights, restored)

def test_unmarked():
    raise AssertionError("not asked for")
"""


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


def test_the_suite_is_collected_in_an_empty_project(project):
    assert collected(project.runpytest(*COLLECT)) == [ID]


@pytest.mark.parametrize(
    "files",
    [
        {"test_accuracy.py": DECOY},
        {"tests/test_accuracy.py": DECOY},
        {"suite/__init__.py": "", "suite/test_accuracy.py": DECOY},
        {"pytest_arrowquant/suite/test_accuracy.py": DECOY},
    ],
    ids=lambda files: list(files)[-1],
)
def test_a_file_of_the_same_name_is_neither_taken_for_the_suite_nor_hides_it(project, files):
    for name, text in files.items():
        path = project.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert collected(project.runpytest(*COLLECT)) == [ID]


@pytest.mark.parametrize(
    "ini",
    [
        "python_files = check_*.py",
        "python_functions = check_*",
        "python_classes = Check",
        "testpaths = tests",
        "norecursedirs = *",
        "collect_imported_tests = false",
        "addopts = --import-mode=importlib",
        "consider_namespace_packages = true",
    ],
)
def test_the_collection_settings_of_the_project_do_not_drop_the_suite(project, ini):
    project.makeini(f"[pytest]\n{ini}")
    tests = project.mkdir("tests")
    (tests / "test_mixed.py").write_text(MIXED)
    assert ID in collected(project.runpytest(*COLLECT))


@new_in_pytest_9
def test_the_suite_runs_where_pytest_is_strict_and_warnings_are_errors(project):
    project.makepyprojecttoml("[tool.pytest]\nstrict = true\nfilterwarnings = ['error']")
    result = project.runpytest_subprocess(*ACCURACY)
    result.assert_outcomes(passed=1)


def test_with_a_virtual_environment_inside_the_project_the_suite_runs_once(project):
    add_virtual_environment(project.path)
    (project.path / "test_mixed.py").write_text(MIXED)
    result = project.runpytest(*ACCURACY, "-v")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(
        ["test_mixed.py::test_marked PASSED*", f"{ID.replace('[', '?').replace(']', '?')} PASSED*"]
    )
    result.stdout.no_fnmatch_line("*decoy*")


@pytest.mark.parametrize("arguments", [("tests",), ("tests/test_mixed.py",), (".",)], ids="".join)
def test_paths_among_the_arguments_choose_the_users_tests_alone(project, arguments):
    (project.mkdir("tests") / "test_mixed.py").write_text(MIXED)
    project.makepyfile(test_elsewhere=MIXED)
    ids = collected(project.runpytest(*COLLECT, *arguments))
    elsewhere = ["test_elsewhere.py::test_marked"] if arguments == (".",) else []
    assert ids == [*elsewhere, "tests/test_mixed.py::test_marked", ID]


def test_marked_tests_stay_and_the_others_are_deselected(project):
    project.makepyfile(test_mixed=MIXED)
    result = project.runpytest(*COLLECT)
    assert collected(result) == ["test_mixed.py::test_marked", ID]
    result.stdout.fnmatch_lines(["2/3 tests collected (1 deselected)*"])


def test_without_the_option_there_is_no_suite(project):
    project.makepyfile(test_mixed=MIXED)
    assert collected(project.runpytest("--collect-only", "-q")) == [
        "test_mixed.py::test_marked",
        "test_mixed.py::test_unmarked",
    ]


def test_collect_only_shows_the_suite_and_writes_nothing(project):
    result = project.runpytest(*ACCURACY, "--collect-only")
    result.stdout.fnmatch_lines(["*<*Module *test_accuracy.py>", "*<Function test_model?audio*"])
    assert not (project.path / ".arrowquant").exists()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("audio and int4", ["audio-int4-rtn", "audio-int4-mse", "audio-int4-hqq"]),
        ("mse and not int2", ["audio-int4-mse", "audio-int8-mse"]),
        ("test_accuracy and int8", ["audio-int8-rtn", "audio-int8-mse", "audio-int8-hqq"]),
    ],
)
def test_k_selects_among_the_suite(project, expression, expected):
    project.makepyfile(test_mixed=MIXED)
    arguments = ("--arrowquant-accuracy", "--arrowquant-modalities=audio", "--collect-only", "-q")
    result = project.runpytest(*arguments, "-k", expression)
    assert collected(result) == [f"{SUITE}[{name}]" for name in expected]


def test_k_that_matches_nothing_exits_5(project):
    result = project.runpytest(*ACCURACY, "-k", "nonsense")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.assert_outcomes(deselected=1)


@pytest.mark.parametrize("expression", ["arrowquant_int4", "arrowquant(bits=4)"])
def test_m_selects_a_width_of_the_suite_and_of_the_users_tests(project, expression):
    project.makepyfile(test_mixed=MIXED)
    arguments = ("--arrowquant-accuracy", "--arrowquant-modalities=audio", "--collect-only", "-q")
    assert collected(project.runpytest(*arguments, "-m", expression)) == [
        "test_mixed.py::test_marked",
        f"{SUITE}[audio-int4-rtn]",
        f"{SUITE}[audio-int4-mse]",
        f"{SUITE}[audio-int4-hqq]",
    ]


def test_deselect_takes_an_id_of_the_suite(project):
    arguments = ("--arrowquant-accuracy", "--arrowquant-modalities=audio", "--collect-only", "-q")
    narrow = ("--arrowquant-bits=4", "--arrowquant-quantizers=rtn,mse", "--deselect", ID)
    result = project.runpytest(*arguments, *narrow)
    assert collected(result) == [f"{SUITE}[audio-int4-mse]"]


def test_lf_repeats_what_failed_in_the_suite(project):
    project.makeini("[pytest]\narrowquant_targets = 4: cosine=0.999")
    arguments = ("--arrowquant-accuracy", "--arrowquant-modalities=audio", "--arrowquant-bits=4,8")
    first = project.runpytest(*arguments, "--arrowquant-quantizers=rtn")
    first.assert_outcomes(passed=1, failed=1)
    again = project.runpytest(*arguments, "--lf", "--collect-only", "-q")
    assert collected(again) == [ID]
    again.stdout.fnmatch_lines(["1/7 tests collected (6 deselected)*"])


def test_ids_under_xdist_are_those_of_a_serial_run(runs):
    """In a project with a virtual environment and a test_accuracy.py of its own."""
    serial, two = (re.findall(r"\S+::\S+", run.stdout) for run in (runs.serial, runs.two))
    assert ID in serial
    assert set(serial) == set(two)
    assert not [node for node in two if "decoy" in node]


def test_a_file_that_cannot_be_imported_fails_the_run(project):
    project.makepyfile(test_broken="import no_such_module")
    result = project.runpytest(*ACCURACY)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["ERROR test_broken.py*"])


def test_fixtures_of_the_project_do_not_reach_into_the_suite(project):
    project.makeconftest(
        """
        import pytest

        @pytest.fixture(params=["a", "b"])
        def modality(request):
            return request.param
        """
    )
    assert collected(project.runpytest(*COLLECT)) == [ID]


SCHEDULER = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_xdist_make_scheduler(config):
    scheduler = yield
    config.rootpath.joinpath("scheduler").write_text(type(scheduler).__name__)
    return scheduler
"""


@pytest.mark.parametrize(
    ("options", "scheduler"),
    [
        (ACCURACY, "WorkStealingScheduling"),
        ((*ACCURACY, "--dist=loadfile"), "LoadFileScheduling"),
        ((), "LoadScheduling"),
    ],
)
def test_idle_workers_take_over_tests_unless_the_user_asks_for_another_way(
    project, options, scheduler
):
    project.makeconftest(f"{CONFTEST}\n{SCHEDULER}")
    project.makepyfile("def test_anything(): pass")
    assert run_pytest(project.path, "-n", "1", *options).returncode == 0
    assert (project.path / "scheduler").read_text() == scheduler


def test_the_tests_of_a_model_stay_together_and_the_longest_comes_first(project):
    found = collected(project.runpytest("--arrowquant-accuracy", "--collect-only", "-q"))
    families = [re.split(r"[\[\]-]", line)[1] for line in found]
    labels = {"mdlm": "text", "dit": "image", "wavegrad": "audio"}
    ofs = [labels.get(family, family) for family in families]
    assert [label for label, _ in itertools.groupby(ofs)] == list(dict.fromkeys(ofs))
    first = dict(zip(reversed(ofs), reversed(found), strict=True))
    assert all("::test_recipes[" in line for line in first.values())
