"""--arrowquant-original: the built-in quantizers on the weights of a file."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from .helpers import names, read_report, run_pytest

TEST = "pytest_arrowquant/suite/test_checkpoint.py::test_tensor"
ARGUMENTS = ("--arrowquant-accuracy", "--arrowquant-original=model.safetensors")
DTYPES = {
    "block.conv": "float16",
    "block.linear": "bfloat16",
    "block.tiny": "float64",
    "head": "float32",
}
LEFT = {
    "bias": ([64], "F32", "1 dimension, fewer than 2"),
    "empty": ([0, 64], "F32", "it is empty"),
    "ids": ([64, 2], "I64", "dtype I64 is not a floating type of 16 bits or more"),
    "scalar": ([], "F32", "0 dimensions, fewer than 2"),
}


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "head": rng.standard_normal((64, 96), np.float32),
        "block.conv": rng.standard_normal((32, 16, 3, 3), np.float32).astype(np.float16),
        "block.linear": rng.standard_normal((48, 64), np.float32).astype(ml_dtypes.bfloat16),
        "block.tiny": rng.standard_normal((2, 3)),
        "bias": np.ones(64, np.float32),
        "empty": np.empty((0, 64), np.float32),
        "ids": np.arange(128).reshape(64, 2),
        "scalar": np.full((), 1.5, np.float32),
    }


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """(the folder, the finished run) of an audit of these tensors by two workers."""
    folder = tmp_path_factory.mktemp("original")
    save_file(tensors(), folder / "model.safetensors")
    return folder, run_pytest(folder, *ARGUMENTS, "-n2", "-v")


@pytest.fixture(scope="module")
def report(audited):
    return read_report(audited[0] / ".arrowquant")


def test_every_eligible_tensor_has_a_record_a_width_and_quantizer(audited, report):
    assert audited[1].returncode == 0, audited[1].stdout
    expected = [
        f"{name}-int{bits}-{quantizer}"
        for name in DTYPES
        for bits in (2, 4, 8)
        for quantizer in ("rtn", "mse", "hqq", *(["r2q"] if bits == 2 else []))
    ]
    assert sorted(names(report)) == sorted(expected)
    assert [record["nodeid"] for record in report["records"]] == sorted(
        f"{TEST}[{name}]" for name in expected
    )


def test_each_is_measured_at_its_own_dtype(report):
    sizes = {name: tensor.nbytes for name, tensor in tensors().items()}
    for record in report["records"]:
        tensor = record["name"].rpartition("-int")[0]
        subject, layers = record["subject"], record["layers"]
        assert (subject["dtype"], subject["tensors"]) == (DTYPES[tensor], 1)
        assert (subject["kind"], subject["source"]) == ("checkpoint", "model.safetensors")
        assert (subject["modality"], subject["family"]) == (None, None)
        assert record["metrics"]["original_bytes"] == sizes[tensor]
        assert [layer["name"] for layer in layers["worst"]] == [tensor]


def test_the_rows_of_a_convolution_are_its_output_channels(report):
    (record,) = (r for r in report["records"] if r["name"] == "block.conv-int4-rtn")
    groups = -(-16 * 3 * 3 // 64)
    assert record["metrics"]["stored_bytes"] == 32 * (16 * 3 * 3 // 2 + groups * 4)


def test_mse_is_closer_than_rtn(report):
    sqnr = {record["name"]: record["metrics"]["sqnr_db"] for record in report["records"]}
    for name in ("head", "block.linear", "block.conv"):
        for bits in (2, 4):
            assert sqnr[f"{name}-int{bits}-mse"] > sqnr[f"{name}-int{bits}-rtn"]


def test_what_is_left_in_full_precision_is_listed_with_the_reason(audited, report):
    left = {
        entry["name"]: (entry["shape"], entry["dtype"], entry["reason"])
        for entry in report["left_in_full_precision"]
    }
    assert left == LEFT
    text = (audited[0] / ".arrowquant/accuracy.txt").read_text(encoding="utf-8")
    listed = text.partition("Left in full precision\n")[2]
    for name, (shape, dtype, reason) in LEFT.items():
        assert f"  {name} {tuple(shape)} {dtype}: {reason}\n" in listed


def test_the_plan_of_the_tensors_is_in_both_reports(audited, report):
    assert [choice["name"] for choice in report["plan"]["choices"]] == sorted(DTYPES)
    assert {choice["bits"] for choice in report["plan"]["choices"]} <= {2, 4, 8}
    text = (audited[0] / ".arrowquant/accuracy.txt").read_text(encoding="utf-8")
    assert "Plan for the original\n" in text


def test_the_synthetic_models_are_replaced(audited):
    assert "test_model" not in audited[1].stdout


def test_options_narrow_an_audit_too(project):
    save_file(tensors(), project.path / "model.safetensors")
    narrow = ("--arrowquant-bits=8", "--arrowquant-quantizers=mse", "--collect-only", "-q")
    result = project.runpytest(*ARGUMENTS, *narrow)
    ids = [line for line in result.outlines if "::" in line]
    assert ids == [f"{TEST}[{name}-int8-mse]" for name in sorted(DTYPES)]


def test_a_nan_fails_the_tests_of_its_tensor_alone(project):
    broken = tensors()
    broken["head"][3, 7] = np.nan
    save_file(broken, project.path / "model.safetensors")
    result = project.runpytest(*ARGUMENTS, "--arrowquant-bits=4,8")
    result.assert_outcomes(passed=18, failed=6)
    said = [line for line in result.outlines if line.startswith("tensor ")]
    assert said == ["tensor 'head' has nan at index (3, 7); every value must be finite"] * 6
    result.stdout.no_fnmatch_line("*traceback*")
    result.stdout.no_fnmatch_line("*.py:[0-9]*")
    report = read_report(project.path / ".arrowquant")
    assert report["summary"]["tests_failed"] == 6
    assert not [name for name in names(report) if name.startswith("head")]
    assert {error["nodeid"].partition("[")[2][:4] for error in report["errors"]} == {"head"}
    for error in report["errors"]:
        assert "'head' has nan at index (3, 7)" in error["message"]


def test_a_serial_audit_writes_the_same(project, report):
    save_file(tensors(), project.path / "model.safetensors")
    assert project.runpytest(*ARGUMENTS).ret == pytest.ExitCode.OK
    serial = read_report(project.path / ".arrowquant")
    assert all(record["timing"]["quantize_s"] > 0 for record in serial["records"])
    for key in ("summary", "errors", "left_in_full_precision"):
        assert serial[key] == report[key]
    assert [{**record, "timing": None} for record in serial["records"]] == report["records"]
