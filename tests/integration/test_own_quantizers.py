"""The hook: a project's own quantizers in the suite, and how what is wrong with them is said."""

import json

import pytest

from .helpers import read_report, run_pytest

FIVE_LINES = """
from my_library import round_trip
from pytest_arrowquant import roundtrip

def pytest_arrowquant_quantizers(config):
    return [roundtrip("mine", round_trip, bits=(4, 8))]
"""
LIBRARY = """
import numpy as np


def round_trip(weight, bits):
    "Symmetric, a scale a row."
    rows = np.atleast_2d(weight.astype(np.float32)).reshape(len(np.atleast_2d(weight)), -1)
    highest = 2 ** (bits - 1) - 1
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    scale = np.maximum(peaks / np.float32(highest), np.finfo(np.float32).tiny)
    codes = np.clip(np.rint(rows / scale), -highest, highest)
    return (codes * scale).astype(np.float32).reshape(weight.shape)
"""
BROKEN = """
import numpy as np
from pytest_arrowquant import Rtn, roundtrip

def unsteady(weight, bits, generator=np.random.default_rng(0)):
    restored = Rtn().quantize(weight, bits).dequantize()
    return restored * (1 + generator.integers(2) * np.float32(1e-3))

def pytest_arrowquant_quantizers(config):
    return (
        roundtrip("unsteady", unsteady, bits=4),
        roundtrip("raising", lambda weight: 1 / 0),
        roundtrip("idle", lambda weight: weight),
    )
"""
OPTIONS = ("--arrowquant-accuracy", "--arrowquant-modalities=audio")


def conftest(pytester: pytest.Pytester, returned: str) -> None:
    pytester.makeconftest(
        "from pytest_arrowquant import Rtn, roundtrip\n"
        f"def pytest_arrowquant_quantizers(config):\n    {returned}\n"
    )


@pytest.fixture(scope="module")
def conforming(tmp_path_factory):
    """(the folder, the finished run) of five lines, with two workers."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "conftest.py").write_text(FIVE_LINES)
    (folder / "my_library.py").write_text(LIBRARY)
    return folder, run_pytest(folder, *OPTIONS, "-n2", "-v")


@pytest.fixture(scope="module")
def report(conforming):
    return read_report(conforming[0] / ".arrowquant")


def test_five_lines_give_the_accuracy_of_the_projects_own_quantizers_alone(conforming, report):
    assert conforming[1].returncode == 0, conforming[1].stdout
    names = {record["name"] for record in report["records"]}
    assert names == {"audio-int4-mine", "audio-int8-mine"}
    assert all(record["passed"] for record in report["records"])
    assert {record["quantizer"]["name"] for record in report["records"]} == {"mine"}


def test_five_lines_give_the_invariants(conforming, report):
    held = report["invariants"]
    assert {(entry["quantizer"], entry["bits"]) for entry in held} == {("mine", 4), ("mine", 8)}
    assert all(entry["holds"] and entry["message"] is None for entry in held)
    assert len({entry["invariant"] for entry in held}) >= 12
    assert "mine int4: " in conforming[1].stdout
    text = (conforming[0] / ".arrowquant/accuracy.txt").read_text()
    assert "invariants hold" in text
    assert "Invariants broken" not in text


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    (folder / "conftest.py").write_text(BROKEN)
    return folder, run_pytest(folder, *OPTIONS, "--arrowquant-bits=4")


def test_what_is_wrong_with_a_quantizer_is_said_by_its_name(broken):
    output = broken[1].stdout
    assert broken[1].returncode == 1
    assert "quantizer 'unsteady' at 4 bits breaks deterministic: " in output
    assert "quantizer 'raising' raised on " in output
    assert "ZeroDivisionError: division by zero" in output
    assert "quantizer 'idle' returned its input itself" in output


def test_what_is_broken_stands_in_the_reports(broken):
    report = read_report(broken[0] / ".arrowquant")
    broken_ones = {
        (entry["quantizer"], entry["invariant"])
        for entry in report["invariants"]
        if not entry["holds"]
    }
    assert ("unsteady", "deterministic") in broken_ones
    assert ("unsteady", "shape_kept") not in broken_ones
    assert not any("invariant" in error["nodeid"] for error in report["errors"])
    assert any("ZeroDivisionError" in error["message"] for error in report["errors"])
    text = (broken[0] / ".arrowquant/accuracy.txt").read_text()
    assert "Invariants broken" in text
    assert "breaks deterministic" in text
    assert json.dumps(report)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("return [3]", "of type int has name=None; expected a line of text"),
        ("import pytest; pytest.skip('no library')", "_quantizers raised Skipped: no library"),
        ("return roundtrip('a', abs, lacks={'finit': 'x'})", "lacks has 'finit', which is none of"),
        ("return []", "pytest_arrowquant_quantizers returned no quantizer"),
        ("return None", "pytest_arrowquant_quantizers returned no quantizer"),
        ("return [Rtn(), Rtn()]", "two quantizers are called 'rtn'"),
        ("raise OSError('no library')", "pytest_arrowquant_quantizers raised OSError: no library"),
        ("return roundtrip('mine', 3)", "quantizer 'mine': function=3 cannot be called"),
    ],
)
def test_a_hook_that_returns_no_quantizers_is_a_usage_error(pytester, returned, message):
    conftest(pytester, returned)
    result = pytester.runpytest_subprocess(*OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message.replace('[', '[[]')}*"])


def test_names_choose_among_the_projects_own(pytester):
    conftest(pytester, "return [Rtn(), roundtrip('mine', lambda weight: weight * 1)]")
    result = pytester.runpytest(*OPTIONS, "--arrowquant-quantizers=rtn", "--collect-only", "-q")
    assert "int4-rtn" in result.stdout.str()
    assert "mine" not in result.stdout.str()
    result = pytester.runpytest_subprocess(*OPTIONS, "--arrowquant-quantizers=mse")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'mse' is none of the project quantizers rtn, mine*"])


def test_a_wrong_name_is_told_with_workers_too(pytester):
    conftest(pytester, "return [Rtn()]")
    result = pytester.runpytest_subprocess(*OPTIONS, "--arrowquant-quantizers=mse", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'mse' is none of the project quantizers rtn*"])


def test_a_width_of_their_own_is_held_to_the_targets_of_the_next_narrower(pytester):
    pytester.makeconftest(
        """
        import numpy as np
        from pytest_arrowquant import Rtn, roundtrip

        def pytest_arrowquant_quantizers(config):
            eight_bits = Rtn(32)
            return roundtrip("six", lambda w: eight_bits.quantize(w, 8).dequantize(), bits=6)
        """
    )
    result = pytester.runpytest(*OPTIONS, "-k", "test_model and audio")
    result.assert_outcomes(passed=1)
    record = read_report(pytester.path / ".arrowquant")["records"][0]
    assert record["name"] == "audio-int6-six"
    assert record["targets"][0]["bound"] == 0.9


def test_what_a_quantizer_lacks_is_tried_and_said_and_fails_nothing(pytester):
    pytester.makeconftest(
        """
        from pytest_arrowquant import Rtn, roundtrip

        def pytest_arrowquant_quantizers(config):
            return roundtrip(
                "whole", lambda w: Rtn("tensor").quantize(w, 8).dequantize(), bits=8,
                lacks={"rows_independent": "one scale for all"},
            )
        """
    )
    result = pytester.runpytest(*OPTIONS, "-k", "rows_independent")
    result.assert_outcomes(passed=1)
    entry = read_report(pytester.path / ".arrowquant")["invariants"][0]
    assert entry["lacks"] == "one scale for all"
    assert not entry["holds"]
    result.stdout.fnmatch_lines(["whole int8: *lacks rows_independent (one scale for all)"])


BARE = "roundtrip('mine', lambda w, b: Rtn().quantize(w, b).dequantize(), (2, 4, 8))"


@pytest.mark.parametrize("returned", ["[Rtn()]", BARE])
def test_the_originals_weights_are_quantized_by_the_projects_own(pytester, returned):
    conftest(pytester, f"return {returned}")
    pytester.makepyfile(
        make="""
        import numpy as np
        from safetensors.numpy import save_file
        weight = np.random.default_rng(0).standard_normal((32, 64), np.float32)
        save_file({"a": weight}, "m.safetensors")
        """
    )
    pytester.runpython(pytester.path / "make.py")
    result = pytester.runpytest(
        "--arrowquant-accuracy", "--arrowquant-original=m.safetensors", "-k", "test_tensor"
    )
    result.assert_outcomes(passed=3)
    assert len(read_report(pytester.path / ".arrowquant")["records"]) == 3


def test_an_object_that_needs_calibration_is_given_one(pytester):
    pytester.makeconftest(
        """
        import numpy as np
        from pytest_arrowquant import Rtn

        class Fed:
            name, bits, needs_calibration = "fed", 4, True

            def quantize(self, weight, bits, calibration):
                assert calibration.inputs.shape[1] == weight[0].size, weight.shape
                return Rtn().quantize(weight, bits)

        def pytest_arrowquant_quantizers(config):
            yield Fed()
        """
    )
    result = pytester.runpytest(*OPTIONS, "-k", "test_model")
    result.assert_outcomes(passed=1)


def test_a_conftest_found_while_collecting_has_its_say(pytester):
    conftest(pytester, "return [Rtn()]")
    folder = pytester.mkpydir("deeper")
    (folder / "conftest.py").write_text(
        "from pytest_arrowquant import Mse\n"
        "def pytest_arrowquant_quantizers(config): return [Mse()]\n"
    )
    (folder / "test_it.py").write_text("def test_it(): pass\n")
    result = pytester.runpytest(*OPTIONS, "--arrowquant-quantizers=mse", "--collect-only", "-q")
    assert "int4-mse" in result.stdout.str()


def test_widths_that_no_quantizer_has_are_a_usage_error(pytester):
    conftest(pytester, "return roundtrip('mine', lambda w: w * 1, bits=3)")
    result = pytester.runpytest_subprocess(*OPTIONS, "--arrowquant-bits=4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*none of the quantizers mine has any of the widths 4*"])


def test_nothing_is_left_on_disk(pytester):
    conftest(pytester, "return [Rtn()]")
    pytester.runpytest(*OPTIONS, "-k", "int4-finite").assert_outcomes(passed=1)
    assert not (pytester.path / ".hypothesis").exists()


def test_without_the_accuracy_run_the_hook_is_not_asked(pytester):
    conftest(pytester, "raise OSError('asked')")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest().assert_outcomes(passed=1)
