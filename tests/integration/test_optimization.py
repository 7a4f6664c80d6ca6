"""The comparison of recipes as a user runs it, and quantizers that need a layer's inputs."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from .helpers import read_report, run_pytest

TEST = "pytest_arrowquant/suite/test_optimization.py::test_recipes[wavegrad]"
ARGUMENTS = ("--arrowquant-accuracy", "--arrowquant-modalities=audio", "--arrowquant-bits=8")
RECIPES = ["baseline", "time_aware", "spatial", "all", "recommended", "q_dit"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(the folder, the finished run) of the recipes of one family at one width."""
    folder = tmp_path_factory.mktemp("recipes")
    return folder, run_pytest(folder, *ARGUMENTS, "-k", "test_recipes")


def test_one_test_writes_a_record_a_recipe(compared):
    folder, run = compared
    assert run.returncode == 0, run.stdout
    report = read_report(folder / ".arrowquant")
    records = report["records"]
    assert [record["nodeid"] for record in records] == [TEST] * len(RECIPES)
    assert [record["name"] for record in records] == [f"wavegrad-w8a8-{name}" for name in RECIPES]
    assert [record["recipe"] for record in records] == RECIPES
    assert [record["asserted"] for record in records] == [False, False, False, True, True, False]
    assert report["summary"]["tests"] == 1
    for record in records[1:]:
        gain = record["metrics"]["output_sqnr_db"] - records[0]["metrics"]["output_sqnr_db"]
        assert record["improvement"]["over"] == "wavegrad-w8a8-baseline"
        assert record["improvement"]["sqnr_db"] == pytest.approx(gain)
    assert records[3]["optimizations"] == ["spatial", "time_aware"]
    assert records[4]["quantizer"]["name"] == "gptq"
    assert records[4]["quantizer"]["options"]["grid"]["super_blocks"]["groups"] == 64


def test_smoothing_and_time_aware_ranges_gain_what_they_must(compared):
    """Inputs 1 % of whose channels are larger, over ranges that shrink by an order of magnitude."""
    records = read_report(compared[0] / ".arrowquant")["records"]
    gains = {r["recipe"]: r["improvement"]["sqnr_db"] for r in records[1:]}
    assert gains["time_aware"] > 2
    assert gains["spatial"] > 8
    assert gains["all"] > gains["spatial"]


def test_the_summary_and_the_chart_show_the_gains(compared):
    folder, run = compared
    assert "recipes: output SQNR in dB and its gain over the baseline" in run.stdout
    assert (folder / ".arrowquant" / "optimization_gain.png").stat().st_size > 10_000
    text = (folder / ".arrowquant" / "accuracy.txt").read_text(encoding="utf-8")
    assert "recommended is " in text


def test_two_workers_find_the_same(compared, tmp_path):
    run = run_pytest(tmp_path, *ARGUMENTS, "-k", "test_recipes", "-n2")
    assert run.returncode == 0, run.stdout
    ours, theirs = (
        read_report(folder / ".arrowquant")["records"] for folder in (compared[0], tmp_path)
    )
    assert ours == theirs


def test_gptq_is_judged_by_outputs_where_it_is_named(tmp_path):
    arguments = (*ARGUMENTS[:2], "--arrowquant-bits=2", "--arrowquant-quantizers=rtn,gptq")
    run = run_pytest(tmp_path, *arguments)
    assert run.returncode == 0, run.stdout
    report = read_report(tmp_path / ".arrowquant")
    rtn, gptq = (
        next(r for r in report["records"] if r["name"] == f"audio-int2-{name}")
        for name in ("rtn", "gptq")
    )
    assert len(report["records"]) == 2
    assert any(note.startswith("judged by outputs") for note in gptq["notes"])
    assert gptq["metrics"]["output_cosine"] > 0.95
    assert gptq["metrics"]["cosine"] < rtn["metrics"]["cosine"]


def test_gptq_on_a_checkpoint_says_what_is_missing(tmp_path):
    weight = np.random.default_rng(0).standard_normal((64, 96), np.float32)
    save_file({"head": weight}, tmp_path / "model.safetensors")
    run = run_pytest(
        tmp_path,
        "--arrowquant-accuracy",
        "--arrowquant-original=model.safetensors",
        "--arrowquant-quantizers=gptq",
        "--arrowquant-bits=4",
    )
    assert run.returncode == 1
    assert (
        "gptq needs calibration, and tensor 'head' comes without the inputs of its layer"
        in run.stdout
    )
