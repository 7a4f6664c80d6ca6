"""The guards bite: every fault fails, on synthetic and on trained weights; nothing honest does."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from pytest_arrowquant import AccuracyFailure, Gptq, Mse, Rtn, TensorError, quantize
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.case import Finding
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.examine import examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.faults import FAULTS
from pytest_arrowquant.metrics import deviation
from pytest_arrowquant.models.draw import KINDS, draw
from pytest_arrowquant.scheme import Scheme
from pytest_arrowquant.specimen import Specimen
from pytest_arrowquant.tensor import QuantizedTensor

DATA = Path(__file__).parent / "data"
QUANTIZERS = [Rtn(), Mse(), Rtn(zero="integer"), Rtn(group_size="channel"), Mse(32, "none")]
REQUIRED = {
    "scales x2", "scales x1.5", "scales x1.25", "row zeroed", "row sign flipped",
    "two rows swapped", "zero point +1", "zero point -1", "nibbles swapped",
    "outlier column zeroed", "one NaN",
}  # fmt: skip

ABSENT = {  # faults that befall no codes of this width, or not without a method that packs so
    *((fault, bits) for fault in ("high bits first", "transposed") for bits in (4, 8)),
    ("AWQ order not undone", 8),
    ("AWQ order undone twice", 8),
}


@cache
def weights() -> dict[str, np.ndarray]:
    """Five kinds of synthetic weights, and slices of trained ones."""
    rng = np.random.default_rng(3)
    shape = (128, 384)
    gauss = rng.standard_normal(shape, np.float32) * np.float32(0.02)
    rows = np.where(np.arange(128) % 50 == 1, np.float32(20), np.float32(1))[:, None]
    known = {
        "gauss": gauss,
        "student-t5": (rng.standard_t(5, shape) * 0.02).astype(np.float32),
        "laplace": (rng.laplace(size=shape) * 0.02).astype(np.float32),
        "outlier rows": gauss * rows,
        "dit": draw(shape, KINDS["dit"], rng),
        "convolution": draw((128, 48, 3, 3), KINDS["convolution"], rng),
    }
    for path in sorted(DATA.glob("*.safetensors")):
        for tensor in open_checkpoint(path).quantizable:
            if tensor.shape[0] >= 16 and np.prod(tensor.shape) >= 4096:
                known[f"{path.stem}:{tensor.name}"] = tensor.weight
    return known


def passes(reference, restored, bits: int) -> bool:
    try:
        Accuracy([]).check(reference, restored, bits=bits)
    except AccuracyFailure:
        return False
    return True


class Declared:
    """Restored values of a quantizer that says what its groups are."""

    def __init__(self, restored: np.ndarray, honest: QuantizedTensor) -> None:
        self.restored, self.scheme, self.nbytes = restored, honest.scheme, honest.nbytes

    def dequantize(self) -> np.ndarray:
        return self.restored


def broken_by(fault: str, q: QuantizedTensor) -> np.ndarray | None:
    """The restored values once the fault has struck; None where it cannot strike."""
    broken = FAULTS[fault].inject(Specimen.of(q))
    return None if broken is None else broken.dequantize()


def int8_as_int2(w: np.ndarray) -> np.ndarray:
    """256 levels: what an INT2 that is only a label restores."""
    return quantize(w, Scheme(8)).dequantize()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("fault", sorted(REQUIRED))
def test_a_fault_fails_on_bare_arrays(fault, bits):
    struck = 0
    for name, w in weights().items():
        for quantizer in QUANTIZERS:
            broken = broken_by(fault, quantizer.quantize(w, bits))
            if broken is not None:
                struck += 1
                assert not passes(w, broken, bits), (name, quantizer)
    assert struck >= len(QUANTIZERS) * (len(weights()) - 1), "one weight has a single input channel"


@pytest.mark.parametrize(
    ("fault", "bits"),
    sorted({(name, bits) for name in FAULTS for bits in (4, 8)} - ABSENT),
)
def test_a_fault_fails_where_the_groups_are_known(fault, bits):
    struck = 0
    for name, w in weights().items():
        for quantizer in (Rtn(), Mse()):
            q = quantizer.quantize(w, bits)
            if q.layout.groups > 1 and (broken := broken_by(fault, q)) is not None:
                struck += 1
                assert not passes(w, Declared(broken, q), bits), (name, quantizer)
    assert struck


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("fault", "guard"),
    [
        ("row zeroed", "row_sqnr_db"),
        ("scales x1.25", "gain"),
        ("row doubled", "row_gain"),
        ("zero point +1", "bias"),
        ("outlier column zeroed", "dead_columns"),
        ("two groups swapped", "order"),
        ("last group dropped", "floor"),
        ("one NaN", "complete"),
    ],
)
def test_each_guard_sees_its_own_fault(fault, guard, bits):
    w = weights()["gauss"]
    q = Rtn().quantize(w, bits)
    Accuracy(records := []).measure(w, Declared(broken_by(fault, q), q), bits=bits)
    assert guard in [target["metric"] for target in records[0].targets if not target["passed"]]


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("fault", "guard"),
    [
        ("last group dropped", "strays"),
        ("outlier column zeroed", "strays"),
        ("two groups swapped", "strays"),
        ("scales x1.25", "rounding"),
        ("scales of the next group", "rounding"),
    ],
)
def test_codes_that_are_not_the_nearest(fault, guard, bits):
    """Of sampled rows: as many as there are, of weights so few."""
    w = np.ascontiguousarray(weights()["gauss"][:32])
    q = Rtn().quantize(w, bits)
    Accuracy(records := []).measure(w, Declared(broken_by(fault, q), q), bits=bits)
    assert guard in [target["metric"] for target in records[0].targets if not target["passed"]]


@pytest.mark.parametrize("fault", ["zero point +1", "zero point -1"])
def test_odd_weights_excuse_nobody_who_errs_by_more(fault):
    """Of weights that are nearly all zero, round-to-nearest itself has a bias."""
    (name,) = [name for name in weights() if name.endswith("conv4.weight")]
    w = weights()[name]
    honest = Rtn(64, "float").quantize(w, 4)
    assert passes(w, honest.dequantize(), 4)
    assert not passes(w, broken_by(fault, honest), 4)


def test_the_cosine_alone_would_have_passed():
    """Why guards exist: the default cosine target of 4 bits sees few of these faults."""
    w = weights()["gauss"]
    q = Rtn().quantize(w, 4)
    for fault in ("scales x2", "row zeroed", "row sign flipped", "two rows swapped"):
        Accuracy([]).check(w, broken_by(fault, q), bits=4, guards=False)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_no_false_alarm(quantizer, bits):
    for name, w in weights().items():
        q = quantizer.quantize(w, bits)
        for restored in (q, q.dequantize()):
            records = []
            Accuracy(records).measure(w, restored, bits=bits)
            missed = [t for t in records[0].targets if not t["passed"] and t["metric"] != "cosine"]
            assert missed == [], name


@pytest.mark.parametrize("name", ["gauss", "student-t5", "laplace", "outlier rows", "dit"])
def test_256_levels_are_no_int2(name):
    w = weights()[name]
    assert not passes(w, int8_as_int2(w), 2)
    eight = quantize(w, Scheme(8))
    assert not passes(w, eight, 2)


def test_five_levels_are_no_int2():
    """Where the groups are known, one level too many is seen, by its own guard."""
    w = weights()["gauss"]
    honest = Rtn().quantize(w, 2)
    five = honest.dequantize()
    five[0, 0] *= np.float32(1.0001) if five[0, 0] else np.float32(0)
    five[0, 0] += np.float32(1e-6)
    with pytest.raises(AccuracyFailure, match=r"levels 5 \(row 0, group 0\), expected <= 4"):
        Accuracy([]).check(w, Declared(five, honest), bits=2)


def test_weights_that_have_few_values_may_be_stored_exactly():
    w = np.random.default_rng(0).choice(np.float32([-0.5, 0, 0.5]), (64, 256))
    assert passes(w, w.copy(), 2)


def test_identity_is_no_int4():
    w = weights()["gauss"]
    with pytest.raises(AccuracyFailure, match=r"ceiling inf, expected <= 36\.1236"):
        Accuracy([]).check(w, w.copy(), bits=4)


@pytest.mark.parametrize("quantizer", [Rtn(), Mse()], ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("tokens", "mean"), [(1, 0), (16, 0), (256, 0), (256, 2)])
def test_no_false_alarm_by_outputs(quantizer, bits, tokens, mean):
    """Whatever the inputs: few of them, or with a mean, which moves all errors of a row alike."""
    w = weights()["gauss"]
    x = np.random.default_rng(2).normal(mean, 1, (tokens, w.shape[1])).astype(np.float32)
    q = quantizer.quantize(w, bits)
    for restored in (q, q.dequantize()):
        Accuracy([]).check(w, restored, bits=bits, inputs=x, judge="outputs")


BY_OUTPUTS = {  # what the outputs of all rows together do not show
    "two groups swapped": "floor",
    "row doubled": "floor",
    "zero point +1": "bias",
    "zero point -1": "bias",
    "scales x1.05": "gain",
}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("fault", BY_OUTPUTS)
def test_a_fault_fails_by_outputs(fault, bits):
    """Of GPTQ, whose outputs are far better than those of round-to-nearest."""
    generator = np.random.default_rng(0)
    w = (generator.standard_t(4, (96, 256)) * 0.02).astype(np.float32)
    spread = np.arange(1, 257) ** -1.0
    x = generator.standard_normal((1024, 256)) * spread
    x = (x @ np.linalg.qr(generator.standard_normal((256, 256)))[0]).astype(np.float32)
    for grid in (Rtn(64, "integer"), Mse(64, "none")):
        q = Gptq(grid).quantize(w, bits, x[:512])
        held = expect({"bits": bits, "judge": "outputs"}, {}, {}, None, "test")
        assert examine("w", w, q, held, x[512:], None).passed
        broken = FAULTS[fault].inject(Specimen.of(q))
        missed = [
            outcome.finding.metric
            for outcome in examine("w", w, broken, held, x[512:], None).outcomes
            if not outcome.passed
        ]
        assert BY_OUTPUTS[fault] in missed, grid


@pytest.mark.parametrize("bits", [4, 8])
def test_columns_scaled_before_rounding_are_honest_by_outputs(bits):
    """As of AWQ: channels with large inputs are rounded finely, at the expense of the others."""
    generator = np.random.default_rng(0)
    w = (generator.standard_t(4, (96, 256)) * 0.02).astype(np.float32)
    scale = np.exp(generator.standard_normal(256) / 2).astype(np.float32)
    x = (generator.standard_normal((512, 256)) * scale).astype(np.float32)
    for quantizer in (Rtn(), Rtn(zero="float"), Mse(32)):
        restored = quantizer.quantize(w * scale, bits).dequantize() / scale
        Accuracy([]).check(w, restored, bits=bits, inputs=x, judge="outputs")


def gain_of_outputs(rows: int, directions: int, bits: int, scale: float, seed: int) -> Finding:
    """Of inputs in a few directions; as where they are rounded too, and nothing is excused."""
    generator = np.random.default_rng(seed)
    w = generator.standard_normal((rows, 256)).astype(np.float32)
    x = generator.standard_normal((500, directions)) @ generator.standard_normal((directions, 256))
    restored = Rtn().quantize(w, bits).dequantize()
    outputs = deviation(w.astype(np.float64) @ x.T, scale * restored.astype(np.float64) @ x.T)
    held = expect({"bits": bits, "judge": "outputs"}, {}, {}, None, "test")
    result = examine("w", w, restored, held, None, None, outputs)
    return next(o.finding for o in result.outcomes if o.finding.metric == "gain")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gain_of_alike_outputs_accuses_nobody(bits):
    """Along one direction the errors of a row move its outputs together."""
    assert all(gain_of_outputs(32, 1, bits, 1.0, seed).passed for seed in range(20))


@pytest.mark.parametrize("bits", [4, 8])
def test_the_gain_of_alike_outputs_shows_a_wrong_scale(bits):
    assert not any(gain_of_outputs(256, 3, bits, 1.05, seed).passed for seed in range(20))


def test_gptq_may_give_up_rows_of_weights_at_two_bits():
    generator = np.random.default_rng(0)
    w = generator.standard_t(5, (64, 128)).astype(np.float32)
    x = (generator.standard_normal((512, 128)) * np.geomspace(1, 1e-2, 128)).astype(np.float32)
    x = x @ np.linalg.qr(generator.standard_normal((128, 128)))[0].astype(np.float32)
    q = Gptq(Rtn("channel")).quantize(w, 2, x)
    metrics = Accuracy([]).measure(w, q, bits=2, inputs=x, judge="outputs")
    assert metrics.row_sqnr_db_min < 0
    assert metrics.output_cosine > 0.96
    Accuracy([]).check(w, q, bits=2, inputs=x, judge="outputs")
    Accuracy([]).check(w, q, bits=2)  # which says that its codes are fed back
    with pytest.raises(AccuracyFailure, match="row_sqnr_db -"):
        Accuracy([]).check(w, q.dequantize(), bits=2)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("name", ["gauss", "student-t5"])
def test_scales_minima_and_results_in_bfloat16_are_honest(name, group_size):
    """An affine format that computes in bfloat16 shares rounding errors within a group."""
    w = weights()[name].astype(ml_dtypes.bfloat16)
    for bits in (4, 8):
        q = Rtn(group_size, "float").quantize(w, bits)
        narrow = [
            part.astype(ml_dtypes.bfloat16).astype(np.float32)
            for part in (q.decoding.scale, q.decoding.minimum)
        ]
        decoding = replace(q.decoding, scale=narrow[0], minimum=narrow[1])
        restored = replace(q, decoding=decoding).dequantize().astype(ml_dtypes.bfloat16)
        Accuracy([]).check(w, restored, bits=bits)


def test_weights_far_from_zero_are_honest():
    w = (1 + 0.01 * np.random.default_rng(4).standard_normal((64, 512))).astype(np.float32)
    for bits in (4, 8):
        for zero in ("none", "integer", "float"):
            Accuracy([]).check(w, Rtn(zero=zero).quantize(w, bits))


def test_an_empty_tensor_shows_nothing():
    empty = np.empty((0, 64), np.float32)
    with pytest.raises(TensorError, match=r"has shape \(0, 64\): no weight to judge"):
        Accuracy([]).check(empty, empty, bits=4)


@pytest.mark.parametrize("nbytes", [0, -5, 1.5, "x", True])
def test_stored_bytes_are_a_whole_number(nbytes):
    w = weights()["gauss"]
    with pytest.raises(TensorError, match="is not a whole number from 1"):
        Accuracy([]).check(w, w, bits=4, nbytes=nbytes)


def test_guards_by_outputs():
    """Column scales folded away and back keep the outputs; the weights' gain and order do not."""
    rng = np.random.default_rng(1)
    w = weights()["gauss"]
    x = rng.standard_normal((256, w.shape[1])).astype(np.float32)
    restored = Rtn().quantize(w, 4).dequantize()
    accuracy = Accuracy(records := [])
    metrics = accuracy.check(w, restored, bits=4, inputs=x, judge="outputs")
    named = [target["metric"] for target in records[0].targets]
    assert "output_cosine" in named
    assert "order" not in named
    y, back = x.astype(np.float64) @ w.T, x.astype(np.float64) @ restored.T
    cosine = (y * back).sum() / np.sqrt((y * y).sum() * (back * back).sum())
    assert metrics.output_cosine == pytest.approx(cosine, rel=1e-12)
    with pytest.raises(AccuracyFailure, match="gain"):
        accuracy.check(w, restored * 2, bits=4, inputs=x, judge="outputs")
