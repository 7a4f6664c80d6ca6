"""Records are plain values, whole or refused."""

import json

import numpy as np
import pytest

from pytest_arrowquant import AccuracyFailure, AccuracyRecord, Rtn, synthetic_model
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.plain import require_plain

W = np.random.default_rng(0).standard_normal((32, 128), np.float32)


def record_of(restored, **keywords) -> AccuracyRecord:
    records: list[AccuracyRecord] = []
    Accuracy(records).measure(W, restored, **keywords)
    return records[0]


def test_a_record_survives_json():
    record = record_of(Rtn().quantize(W, 4), name="w")
    plain = record.to_json()
    assert AccuracyRecord.from_json(json.loads(json.dumps(plain, allow_nan=False))) == record
    assert plain["scheme"] == {"bits": 4, "group_size": 64, "symmetric": True, "zero": "none"}
    assert plain["metrics"]["stored_bytes"] == 32 * 64 + 32 * 2 * 4
    assert plain["metrics"]["compression_ratio"] == 32 * 128 * 4 / (32 * 64 + 32 * 2 * 4)


def test_a_record_of_an_older_report_takes_defaults():
    plain = record_of(Rtn().quantize(W, 4), name="w").to_json()
    assert list(plain)[7:14] == ["stored_as", "optimizations", "recipe", "activations", "asserted",
                                 "metrics", "energies"]  # fmt: skip
    assert list(plain)[-5:] == ["passed", "explanation", "selfcheck", "notes", "timing"]
    newer = ("recipe", "activations", "asserted", "stored_as", "energies", "explanation")
    older = {key: value for key, value in plain.items() if key not in newer}
    record = AccuracyRecord.from_json(older)
    assert (record.recipe, record.activations, record.asserted) == (None, None, True)
    assert (record.stored_as, record.energies, record.explanation) == (None, None, None)
    assert record.to_json() == plain | {"asserted": True, "energies": None}


def test_energies_are_the_sums_of_squares_of_all_tensors():
    restored = Rtn().quantize(W, 4).dequantize()
    record = record_of(restored, bits=4)
    wide, error = W.astype(np.float64), W.astype(np.float64) - restored
    assert record.energies == {
        "reference": pytest.approx((wide**2).sum(), rel=1e-12),
        "restored": pytest.approx((restored.astype(np.float64) ** 2).sum(), rel=1e-12),
        "error": pytest.approx((error**2).sum(), rel=1e-6),
    }
    assert record_of(W[:16], bits=4).energies is None  # of another shape: nothing was measured
    records: list[AccuracyRecord] = []
    Accuracy(records).check_model(synthetic_model("audio"), Rtn(), bits=4)
    energies = records[0].energies
    ratio = 10 * np.log10(energies["reference"] / energies["error"])
    assert ratio == pytest.approx(records[0].metrics["sqnr_db"], rel=1e-12)


def test_a_target_says_where_it_was_missed_or_nearly():
    restored = Rtn().quantize(W, 4).dequantize()
    restored[7] *= -1
    targets = {target["metric"]: target for target in record_of(restored, bits=4).targets}
    assert (targets["row_sqnr_db"]["where"], targets["row_sqnr_db"]["passed"]) == ("row 7", False)
    assert targets["cosine"]["where"] == ""
    shape = record_of(W[:16], bits=4).targets[0]
    assert shape["where"] == "restored has shape (16, 128), the reference (32, 128)"


def test_what_is_sent_is_not_copied():
    """Of 50,000 tensors each copy would cost seconds."""
    record = record_of(Rtn().quantize(W, 4))
    assert record.to_json()["targets"] is record.targets


def test_what_is_measured_is_not_asserted_and_what_is_checked_is():
    records: list[AccuracyRecord] = []
    accuracy = Accuracy(records)
    restored = Rtn().quantize(W, 4)
    accuracy.check(W, restored)
    accuracy.measure(W, restored)
    accuracy.check_model(synthetic_model("audio"), Rtn(), bits=8)
    with pytest.raises(AccuracyFailure):
        accuracy.check(W, restored, cosine=0.9999)
    assert [record.asserted for record in records] == [True, False, True, True]


def test_infinite_values_are_null_with_a_note():
    record = record_of(W.copy(), bits=8)
    assert record.metrics["sqnr_db"] is None
    assert "sqnr_db is null: its value is inf" in record.notes
    assert record.metrics["cosine"] == 1.0


@pytest.mark.parametrize(
    "value", [np.float64(1), np.float32(1), np.int64(1), np.bool_(True), (1,), {1}, b"x"]
)
def test_what_is_not_plain_is_refused_by_its_place(value):
    with pytest.raises(TypeError, match=r"record\['metrics'\]\['cosine'\] is a .* not plain JSON"):
        require_plain({"metrics": {"cosine": value}}, "record")
    with pytest.raises(TypeError, match=r"record\[0\] is nan; JSON has no such number"):
        require_plain([float("nan")], "record")


def test_a_numpy_bound_becomes_plain_or_fails_here():
    """A numpy scalar in a report would break the way between processes."""
    record = record_of(Rtn().quantize(W, 4), cosine=np.float64(0.9))
    require_plain(record.to_json(), "record")


def test_the_passed_of_a_record_is_its_verdict():
    good = record_of(Rtn().quantize(W, 4))
    assert good.passed
    assert all(target["passed"] for target in good.targets)
    bad = record_of(Rtn().quantize(W, 4), cosine=0.9999)
    assert not bad.passed
    missed = [target for target in bad.targets if not target["passed"]]
    assert [target["metric"] for target in missed] == ["cosine"]
    assert missed[0]["margin"] == missed[0]["value"] - 0.9999


def test_what_is_not_whole_has_no_metrics_and_fails():
    for restored, said in {
        "shape": (W[:16], "restored has shape (16, 128), the reference (32, 128)"),
        "nan": (np.where(W[3, 5] == W, np.nan, W), "restored has nan at index (3, 5)"),
    }.values():
        record = record_of(restored, bits=4)
        assert not record.passed
        assert record.metrics["cosine"] is None
        assert record.notes == [f"tensor: {said}"]
        assert [target["metric"] for target in record.targets] == ["complete"]


def test_guards_left_out_keep_their_reason():
    record = record_of(Rtn().quantize(W, 4), guards={"order": "GPTQ"})
    assert "guard order left out: GPTQ" in record.notes
    assert "order" not in {target["metric"] for target in record.targets}


def test_a_model_is_pooled_and_its_worst_tensor_named():
    records: list[AccuracyRecord] = []
    model = synthetic_model("audio")
    metrics = Accuracy(records, "audio").check_model(model, Rtn(), bits=4)
    record = records[0]
    assert record.subject["kind"] == "synthetic"
    assert record.subject["tensors"] == len(model) == record.layers["count"]
    assert record.quantizer == {"name": "rtn", "options": {"group_size": 64, "zero": "none"}}
    layers = [(layer.name, layer.weight) for layer in model]
    signal = sum(float((w.astype(np.float64) ** 2).sum()) for _, w in layers)
    noise = sum(
        float(((w - Rtn().quantize(w, 4).dequantize()).astype(np.float64) ** 2).sum())
        for _, w in layers
    )
    assert metrics.sqnr_db == pytest.approx(10 * np.log10(signal / noise), rel=1e-6)
    cosine = next(target for target in record.targets if target["metric"] == "cosine")
    assert cosine["value"] == record.layers["cosine_min"]
    assert cosine["tensor"] == record.layers["worst"][0]["name"]


def test_a_failing_model_names_the_tensors_and_the_seed():
    accuracy = Accuracy([], seed=11)
    with pytest.raises(AccuracyFailure) as failure:
        accuracy.check_model(synthetic_model("audio", seed=11), Rtn(), bits=2, cosine=0.99)
    lines = str(failure.value).splitlines()
    assert lines[0].startswith("int2: ")
    assert "misses 1 of" in lines[0]
    assert lines[1].startswith("  cosine 0.8")
    assert "expected >= 0.99, margin -0." in lines[1]
    assert lines[2].startswith("  worst rows: ")
    assert lines[3].startswith("  would pass with cosine=0.8")
    assert lines[-2:] == ["and 3 more tensors", "seed 11"]
