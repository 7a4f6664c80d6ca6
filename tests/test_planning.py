"""plan(): each tensor gets the smallest width that meets that width's own targets."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pytest_arrowquant import AccuracyFailure, Gptq, Mse, Rtn, plan, synthetic_model
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.arrays import Array
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.errors import CheckpointError, TargetError, TensorError
from pytest_arrowquant.metrics import measure
from pytest_arrowquant.planning import plan_of_records

DATA = Path(__file__).parent / "data"


@dataclass
class Tensor:
    name: str
    weight: Array


def gauss(rows: int = 64, columns: int = 256, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def test_the_default_targets_are_met_at_two_bits():
    found = plan([Tensor("a", gauss())])
    assert [choice.bits for choice in found.choices] == [2]
    assert found.choices[0].cosine == measure(gauss(), Mse().quantize(gauss(), 2)).cosine
    assert found.bits_per_weight == Mse().quantize(gauss(), 2).bits_per_weight
    assert not found.unmet


@pytest.mark.parametrize(
    ("targets", "bits"),
    [
        ({2: {"cosine": 0.96}}, 4),
        ({2: {"cosine": 0.96}, 4: {"cosine": 0.9975}}, 8),
        ({4: {"cosine": 0.9999999}}, 2),
        ({2: {"sqnr_db": 20}, 4: {"sqnr_db": 20}}, 4),
    ],
)
def test_each_width_is_held_to_its_own_targets(targets, bits: int):
    assert plan([Tensor("a", gauss())], targets=targets).choices[0].bits == bits


def test_widths_are_tried_from_the_smallest():
    assert plan([Tensor("a", gauss())], widths=(8, 4)).choices[0].bits == 4
    assert plan([Tensor("a", gauss())], widths=[8]).choices[0].bits == 8


def test_a_guard_counts_as_much_as_a_target():
    """One row has a scale of its own: per tensor it is lost, though the cosine is high."""
    w = gauss()
    w[3] *= 1e-3
    choice = plan([Tensor("a", w)], quantizer=Rtn(group_size="tensor")).choices[0]
    assert choice.bits is None
    assert "8 bits: row_sqnr_db" in choice.reason


def test_what_meets_no_target_stays_and_says_why():
    hard = {bits: {"cosine": 1.0} for bits in (2, 4, 8)}
    found = plan(
        [Tensor("easy", np.zeros((4, 64), np.float32)), Tensor("a", gauss())], (2, 4), None, hard
    )
    assert [choice.name for choice in found.unmet] == ["a"]
    stays = found.choices[1]
    assert stays.bits is None
    assert stays.stored_bytes == gauss().nbytes
    assert stays.reason.startswith("2 bits: cosine 0.94")
    assert "; 4 bits: cosine 0.99" in stays.reason
    assert "not >= 1" in stays.reason
    lines = str(found).splitlines()
    assert lines[0].startswith("easy  2 bits, cosine 1.000000, ")
    assert lines[1].startswith("a     stays float32 (2 bits: cosine")
    assert lines[2].endswith("bits per weight by mse; 1 of 2 tensors meet no target")


def test_bits_per_weight_counts_all_that_is_stored(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file(
        {
            "a.weight": gauss(),
            "b.weight": gauss(8, 32).astype(np.float16),
            "a.bias": np.ones(64, np.float32),
            "steps": np.arange(6),
        },
        path,
    )
    found = plan(path, (4,))
    assert [choice.name for choice in found.choices] == ["a.weight", "b.weight"]
    assert [(choice.name, choice.reason) for choice in found.left] == [
        ("a.bias", "1 dimension, fewer than 2"),
        ("steps", "dtype I64 is not a floating type of 16 bits or more"),
    ]
    quantized = Mse().quantize(gauss(), 4).nbytes + Mse().quantize(gauss(8, 32), 4).nbytes
    weights = 64 * 256 + 8 * 32 + 64 + 6
    assert found.bits_per_weight == pytest.approx((quantized + 64 * 4 + 6 * 8) * 8 / weights)
    assert plan(str(path), (4,)) == found
    json.dumps(found.to_json(), allow_nan=False)
    assert found.to_json()["choices"][0]["shape"] == [64, 256]


def test_misuse_is_refused(tmp_path: Path):
    with pytest.raises(TargetError, match=r"widths=\(3, 4\) of mse; expected some of 2, 4, 8"):
        plan([], (3, 4))
    with pytest.raises(TargetError, match=r"widths=\(\) of rtn; expected some of 2, 4, 8"):
        plan([], (), Rtn())
    with pytest.raises(
        CheckpointError, match=r"does not exist; expected a \.safetensors or \.gguf"
    ):
        plan(tmp_path / "none.safetensors")

    with pytest.raises(
        TargetError, match="gptq needs calibration; a plan is made of weights alone"
    ):
        plan([], quantizer=Gptq())
    with pytest.raises(TargetError, match=r"unknown keyword 'cosin' \(did you mean 'cosine'\?\)"):
        plan([Tensor("a", gauss())], targets={4: {"cosin": 0.9}})
    nan = gauss()
    nan[1, 2] = np.nan
    with pytest.raises(TensorError, match=r"tensor 'a' has nan at index \(1, 2\)"):
        plan([Tensor("a", nan)])

    class Sizeless:
        name, bits = "sizeless", (8,)

        def quantize(self, weight, bits, calibration=None):
            class Values:
                def dequantize(self):
                    return Rtn().quantize(weight, bits).dequantize()

            return Values()

    with pytest.raises(TargetError, match="sizeless says no nbytes: a plan needs true sizes"):
        plan([Tensor("a", gauss())], (8,), Sizeless())


@pytest.mark.parametrize("name", ["silero_slice", "taef2_slice"])
def test_the_records_of_a_run_come_to_the_same_plan(name):
    """With the targets raised so far that some tensors stay."""
    path, targets = DATA / f"{name}.safetensors", {2: {"cosine": 0.93}, 8: {"cosine": 0.99999}}
    checkpoint, records = open_checkpoint(path), []
    accuracy = Accuracy(records, project=targets)
    for tensor in checkpoint.quantizable:
        for quantizer in (Mse(), Rtn()):
            for bits in (8, 2):
                with suppress(AccuracyFailure):
                    accuracy.check_model(tensor, quantizer, bits=bits)
    left = [
        {"name": t.name, "shape": t.shape, "dtype": t.stored_dtype, "reason": t.reason_left}
        for t in checkpoint.left
    ]
    made = plan_of_records([record.to_json() for record in records], left)
    wanted = plan(path, (2, 8), targets=targets)
    assert {choice.bits for choice in wanted.choices} >= {2}
    assert [replace(c, reason="") for c in made.choices] == [
        replace(c, reason="") for c in wanted.choices
    ]
    for ours, theirs in zip(made.choices, wanted.choices, strict=True):
        assert bool(ours.reason) == bool(theirs.reason)
        assert all(f"{bits} bits: " in ours.reason for bits in (2, 8) if theirs.reason)
    assert made.left == wanted.left
    assert made.bits_per_weight == wanted.bits_per_weight


def test_records_of_something_else_come_to_no_plan():
    accuracy = Accuracy(records := [])
    accuracy.check_model(synthetic_model("audio"), Rtn(), bits=8)
    assert plan_of_records([record.to_json() for record in records], []) is None
    assert plan_of_records([], []) is None
