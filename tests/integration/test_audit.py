"""--arrowquant-quantized: a checkpoint against its original, whole and damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from .helpers import names, read_report, run_pytest

GOLDEN = Path(__file__).parents[1] / "golden"
TEST = "pytest_arrowquant/suite/test_audit.py::test_tensor"
WHOLE = "pytest_arrowquant/suite/test_audit.py::test_checkpoint"
ORIGINAL, QUANTIZED = "--arrowquant-original=original.safetensors", "--arrowquant-quantized=int4"
ARGUMENTS = ("--arrowquant-accuracy", ORIGINAL, QUANTIZED)
UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
NAMES = [f"{DOWN}.weight", f"{UP}.weight", "model.norm.weight"]


def lay(folder: Path, case: str = "pack-int4-g32-asym") -> Path:
    """A golden pair: original.safetensors, and the folder int4 with its quantized copy."""
    golden = GOLDEN / "compressed_tensors" / case
    (folder / "int4").mkdir()
    shutil.copy(golden / "original.safetensors", folder)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(golden / name, folder / "int4")
    return folder


def change(folder: Path, **changed) -> None:
    """Other arrays in the quantized file; None takes one away; `__` stands for a dot."""
    path = folder / "int4" / "model.safetensors"
    tensors = load_file(path)
    for key, array in changed.items():
        name = key.replace("__", ".")
        tensors.pop(name, None)
        if array is not None:
            tensors[name] = array
    save_file(tensors, path)


def configure(folder: Path, **said) -> None:
    path = folder / "int4" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= said
    path.write_text(json.dumps(config))


def failures(result) -> dict[str, str]:
    """What each failed test said, by its id."""
    report = read_report(result)
    said: dict[str, str] = {}
    for record in report["records"]:
        if not record["passed"]:
            missed = [t["metric"] for t in record["targets"] if not t["passed"]]
            said[record["name"]] = f"{missed} {record['notes']}"
    for error in report["errors"]:
        said[error["nodeid"].partition("::")[2]] = error["message"]
    return said


def audit(project, *arguments) -> tuple[pytest.RunResult, dict[str, str]]:
    result = project.runpytest(*ARGUMENTS, *arguments)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "Error:" not in result.stdout.str()
    return result, failures(project.path / ".arrowquant")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder, run) of one audit serial and one by two workers."""
    made = []
    for arguments in ((), ("-n2",)):
        folder = lay(tmp_path_factory.mktemp("audit"))
        made.append((folder, run_pytest(folder, *ARGUMENTS, "-v", *arguments)))
    return made


def test_a_test_a_tensor_under_its_own_name(runs):
    folder, run = runs[0]
    assert run.returncode == 0, run.stdout
    for name in NAMES:
        assert f"{TEST}[{name}] PASSED" in run.stdout
    assert f"{WHOLE} PASSED" in run.stdout
    report = read_report(folder / ".arrowquant")
    assert sorted(names(report)) == NAMES
    assert report["summary"] | {"tests": 4, "tests_failed": 0} == report["summary"]


def test_two_workers_write_the_same(runs):
    reports = [read_report(folder / ".arrowquant") for folder, _ in runs]
    for report in reports:
        del report["created"], report["environment"]
    assert reports[0] == reports[1]


def test_a_record_says_what_was_compared(runs):
    records = {r["name"]: r for r in read_report(runs[0][0] / ".arrowquant")["records"]}
    down, norm = records[f"{DOWN}.weight"], records["model.norm.weight"]
    assert down["quantizer"]["name"] == "compressed-tensors"
    assert down["quantizer"]["options"]["num_bits"] == 4
    assert down["scheme"] == {"bits": 4, "group_size": 32, "symmetric": False, "zero": "integer"}
    assert down["subject"]["kind"] == "checkpoint"
    assert down["subject"]["source"] == "model.safetensors"
    assert down["subject"]["dtype"] == "bfloat16"
    held = {target["metric"] for target in down["targets"]}
    assert held >= {"cosine", "complete", "row_sqnr_db", "gain", "finite_scales", "code_range"}
    # 4 bits a code; for 5 groups a row a bfloat16 scale and 4 bits of zero point, packed by 32
    # rows; the shape, two int64
    stored = 12 * 80 + 12 * 5 * 2 + 2 * 4 * 5 + 16
    assert down["metrics"]["stored_bytes"] == stored
    assert down["metrics"]["bits_per_weight"] == stored * 8 / (12 * 160)
    assert norm["quantizer"]["name"] == "plain"
    assert [target["metric"] for target in norm["targets"]] == ["unequal"]
    assert norm["metrics"]["cosine"] is None


def test_a_tensor_is_chosen_by_its_name(project):
    lay(project.path)
    result = project.runpytest(*ARGUMENTS, "-k", "up_proj")
    result.assert_outcomes(passed=1, deselected=3)


def test_nothing_else_is_run(project):
    lay(project.path)
    project.makepyfile("def test_other(): raise AssertionError")
    project.runpytest(*ARGUMENTS).assert_outcomes(passed=4, deselected=1)


SCALE = f"{DOWN}.weight_scale"


def scales(value: float) -> np.ndarray:
    with safe_open(
        GOLDEN / "compressed_tensors/pack-int4-g32-asym/model.safetensors", "numpy"
    ) as f:
        array = f.get_tensor(SCALE).copy()
    array[3, 2] = value
    return array


DAMAGE = {
    "scale NaN": (
        {SCALE: scales(np.nan)},
        {},
        {f"{DOWN}.weight": "restored has nan at index (3, 64)"},
    ),
    "scale infinite": (
        {SCALE: scales(np.inf)},
        {},
        {f"{DOWN}.weight": "at index (3, "},
    ),
    "scale x 8": ({SCALE: scales(0.25)}, {}, {f"{DOWN}.weight": "row_sqnr_db"}),
    "scale of another shape": (
        {SCALE: np.ones((12, 4), np.float16)},
        {},
        {f"{DOWN}.weight": "is F16 (12, 4); expected F32 or BF16 or F16 (12, 5)"},
    ),
    "a part is absent": ({SCALE: None}, {}, {f"{DOWN}.weight": "has no 'weight_scale'"}),
    "a tensor is absent": (
        {"model.norm.weight": None},
        {},
        {"model.norm.weight": "missing in the quantized checkpoint"},
    ),
    "a tensor too many": (
        {"model.extra.weight": np.ones((3, 3), np.float32)},
        {},
        {"model.extra.weight": "only in the quantized checkpoint"},
    ),
    "a plain value off": (
        {"model.norm.weight": np.float16([1, 1, 1, 2, 1, 1, 1, 1])},
        {},
        {"model.norm.weight": "unequal"},
    ),
    "words of another width": (
        {f"{UP}.weight_packed": np.zeros((20, 16), np.int32)},
        {},
        {f"{UP}.weight": "has 16 words a row; the config says 4 bits, which take 8"},
    ),
    "a config of another width": (
        {},
        {"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8}}}},
        {
            f"{DOWN}.weight": "has 20 words a row; the config says 8 bits, which take 40",
            f"{UP}.weight": "has 8 words a row; the config says 8 bits, which take 16",
        },
    ),
    "an ignore that names nothing": (
        {},
        {"ignore": ["re:.*vision.*"]},
        {"test_checkpoint": "ignore 're:.*vision.*' matches no module"},
    ),
    "an ignored module is quantized": (
        {},
        {"ignore": [UP]},
        {f"{UP}.weight": "quantized, though the config exempts it"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_fails_the_tests_of_its_tensors_alone(project, damage):
    arrays, said, expected = DAMAGE[damage]
    lay(project.path)
    change(project.path, **arrays)
    configure(project.path, **said)
    result, found = audit(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(
        failed=len(expected),
        passed=4 + (damage == "a tensor too many") - len(expected),
    )
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in found[name] or words in result.stdout.str()


def truncated(folder: Path) -> None:
    path = folder / "int4" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


UNREADABLE = {
    "truncated": (truncated, "the file is truncated or its header wrong"),
    "no such folder": (lambda f: shutil.rmtree(f / "int4"), "does not exist; expected a .safe"),
    "an empty folder": (
        lambda f: (f / "int4" / "model.safetensors").unlink(),
        "is a folder without a .safetensors",
    ),
    "a config that is no JSON": (
        lambda f: (f / "int4" / "config.json").write_text("{"),
        "config.json is not JSON",
    ),
    "another method": (
        lambda f: configure(f, quant_method="mystery"),
        "says quant_method 'mystery', and no tensor of it is stored in a way that is known of it",
    ),
    "no original": (lambda f: (f / "original.safetensors").unlink(), "original.safetensors does"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_at_all_is_a_usage_error(project, case):
    damage, words = UNREADABLE[case]
    damage(lay(project.path))
    result = project.runpytest(*ARGUMENTS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_it_needs_the_accuracy_option(project):
    lay(project.path)
    result = project.runpytest(QUANTIZED)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--arrowquant-quantized needs --arrowquant-accuracy" in result.stderr.str()


def test_two_models_that_have_nothing_in_common(project):
    lay(project.path)
    save_file({"other": np.ones((4, 4), np.float32)}, project.path / "original.safetensors")
    result, found = audit(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "are they of the same model?" in found["test_checkpoint"]


ALONE = ("--arrowquant-accuracy", QUANTIZED)


def test_without_the_original_integrity_alone_is_judged(project):
    lay(project.path)
    result = project.runpytest(*ALONE)
    result.assert_outcomes(passed=4)
    records = {r["name"]: r for r in read_report(project.path / ".arrowquant")["records"]}
    held = {target["metric"] for target in records[f"{DOWN}.weight"]["targets"]}
    assert held == {"complete", "finite_scales", "code_range", "saturated"}
    assert records[f"{DOWN}.weight"]["metrics"]["cosine"] is None
    assert records[f"{DOWN}.weight"]["metrics"]["bits_per_weight"] > 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_needs_no_original(project, value):
    lay(project.path)
    change(project.path, **{SCALE: scales(value)})
    result = project.runpytest(*ALONE)
    result.assert_outcomes(passed=3, failed=1)
    assert "finite_scales 1 (scale" in result.stdout.str()
    assert "at row 3, group 2)" in result.stdout.str()
