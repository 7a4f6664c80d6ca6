"""Codes of round-to-nearest are the nearest, whatever their parameters; faults leave few so."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from pytest_arrowquant import Hqq, Mse, R2q, Rtn
from pytest_arrowquant.case import grid_of
from pytest_arrowquant.evidence import SAMPLED, Rounding, Wanted, gather
from pytest_arrowquant.faults import FAULTS
from pytest_arrowquant.kernels import levels
from pytest_arrowquant.quantizers import COMPACT
from pytest_arrowquant.row_blocks import RowBlocks
from pytest_arrowquant.specimen import Specimen

SHAPE = (48, 200)
WEIGHTS = {
    "gauss": lambda rng: rng.standard_normal(SHAPE),
    "t3": lambda rng: rng.standard_t(3, SHAPE),
    "far from zero": lambda rng: 3 + 0.1 * rng.standard_normal(SHAPE),
    "few values": lambda rng: rng.integers(-2, 3, SHAPE).astype(float),
    "short rows": lambda rng: rng.standard_normal((160, 5)),
}


def drawn(kind: str) -> np.ndarray:
    return WEIGHTS[kind](np.random.default_rng(5)).astype(np.float32)


def found(w, restored, size, bits) -> Rounding:
    size = w.shape[1] if size == "channel" else size
    wanted = Wanted(group_size=size, limit=2**bits, rounding=True)
    rounding = gather(RowBlocks.of(w, restored), wanted).rounding
    assert rounding is not None
    return rounding


def slowly(w, restored, size, limit) -> tuple[list[list[int]], list[list[float]]]:
    """The same of every row, in plain Python."""
    rows, lost = [], []
    for weights, values in zip(
        w.astype(float).tolist(), restored.astype(float).tolist(), strict=True
    ):
        away, inward, strays, gone = 0, 0, [], [(0.0, 0.0)]
        for start in range(0, len(weights), size):
            group = list(
                zip(weights[start : start + size], values[start : start + size], strict=True)
            )
            known = sorted({value for _, value in group})
            peak = max(abs(weight) for weight, _ in group)
            if max(map(abs, known)) <= 1e-6 * peak:
                gone.append((peak, -float(start)))
                continue
            if not 1 < len(known) <= limit:
                continue
            step = min(np.diff(known))
            for at, (weight, value) in enumerate(group):
                level = min(known, key=lambda known: abs(weight - known))
                if abs(weight - value) >= abs(weight - level) + step:
                    strays.append(start + at)
                if abs(value) >= 0.75 * step:
                    away += 1
                    closer = abs(weight - level) < 0.9 * abs(weight - value)
                    inward += closer and abs(level) < abs(value)
        rows.append([away, inward, len(strays), strays[0] if strays else -1])
        lost.append([max(gone)[0], -max(gone)[1]])
    return rows, lost


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_kernel_is_its_twin(kind, dtype):
    w = drawn(kind)[:8].astype(dtype)
    q = Rtn(32, "float").quantize(w, 2)
    size = min(32, w.shape[1])
    for factor, shift in ((1, 0), (1.3, 0), (0.7, 0), (1, 1)):
        restored = np.roll(q.dequantize().astype(dtype) * factor, shift, axis=1)
        restored[2] = 0
        restored[3, :size] = w[3, :size] * 1e-8
        restored[:, :3] = restored[:, :1]
        for limit in (2, 4, 16):
            rows, lost = np.full((len(w), 4), -7, np.int64), np.full((len(w), 2), -7.0)
            levels.rounding(w, restored, size, limit, rows, lost)
            assert (rows.tolist(), lost.tolist()) == slowly(w, restored, size, limit)


QUANTIZERS = [
    *(kind(size, zero) for kind in (Rtn, Mse) for size in (16, 64, "channel")
      for zero in ("none", "integer", "float")),
    Hqq(), Hqq("channel"), R2q(), R2q(32, mean=True), COMPACT[2], COMPACT[4],
]  # fmt: skip


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_honest_codes_are_the_nearest(kind, bits):
    """Exactly: not one weight in any of them."""
    w = drawn(kind)
    for quantizer in QUANTIZERS:
        if bits in quantizer.bits and quantizer is not COMPACT[6 - bits]:
            q = quantizer.quantize(w, bits)
            seen = found(w, q.dequantize(), grid_of(q).group_size, bits)
            assert (seen.inward, seen.strays) == (0, 0), quantizer


@pytest.mark.parametrize("zero", ["none", "integer", "float"])
@pytest.mark.parametrize("size", [32, 128])
def test_parameters_and_results_in_bfloat16_move_hardly_any(size, zero):
    w = drawn("gauss")
    q = Rtn(size, zero).quantize(w, 4)
    parts = {
        name: getattr(q.decoding, name).astype(ml_dtypes.bfloat16).astype(np.float32)
        for name in ("scale", "minimum")
    }
    narrow = replace(q, decoding=replace(q.decoding, **parts)).dequantize()
    seen = found(w, narrow.astype(ml_dtypes.bfloat16).astype(np.float32), size, 4)
    assert seen.inward < 0.005 * seen.away
    assert seen.strays == 0


@pytest.mark.parametrize("kind", ["gauss", "t3"])
def test_least_squares_without_rounding_anew_moves_levels_inward(kind):
    """As some producers do: their weights are closer to a level further out, if to any."""
    w = drawn(kind)
    codes = np.rint(w / np.abs(w).max(axis=1, keepdims=True) * 7)
    scale = (w * codes).sum(axis=1, keepdims=True) / (codes * codes).sum(axis=1, keepdims=True)
    seen = found(w, (scale * codes).astype(np.float32), "channel", 4)
    assert seen.inward < 0.005 * seen.away
    assert seen.strays == 0


@pytest.mark.parametrize("kind", ["gauss", "t3"])
def test_scales_five_percent_too_large(kind):
    for quantizer in (Rtn(), Rtn("channel"), Mse(), Hqq(), COMPACT[4]):
        q = quantizer.quantize(w := drawn(kind), 4)
        seen = found(w, q.dequantize() * np.float32(1.05), q.layout.group_size, 4)
        assert seen.inward > 0.02 * seen.away, quantizer


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    "fault", ["row doubled", "outlier column zeroed", "last group dropped", "two groups swapped"]
)
def test_strays_are_found_and_named(fault, bits):
    w = drawn("gauss")
    q = Rtn().quantize(w, bits)
    broken = FAULTS[fault].inject(Specimen.of(q)).dequantize()
    seen = found(w, broken, 64, bits)
    row, column = seen.where
    assert seen.strays > 0
    assert broken[row, column] != q.dequantize()[row, column]


def test_all_short_rows_are_looked_at():
    """A doubled row of five weights, which nothing else is long enough to see."""
    w = drawn("short rows")
    for row in range(0, 160, 13):
        broken = Rtn().quantize(w, 4).dequantize()
        broken[row] *= 2
        assert found(w, broken, "channel", 4).where[0] == row


def test_of_many_rows_a_sample_is_looked_at():
    w = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    q = Rtn().quantize(w, 4)
    honest = found(w, q.dequantize(), 64, 4)
    assert 0.7 * SAMPLED < honest.away <= SAMPLED
    wrong = q.dequantize()
    wrong[:, 7] += 1
    assert found(w, wrong, 64, 4).strays >= SAMPLED // 256 // 2


def test_more_levels_than_the_width_has_are_not_judged_here():
    w = drawn("gauss")[:, :192]
    assert found(w, w * np.float32(1.1), 64, 4) == Rounding(0, 0, 0, (0, -1))


def test_small_groups_beside_large_ones_may_come_back_as_nothing():
    """Where scales have a few bits themselves: a tenth of the largest weight may, not a fifth."""
    w = drawn("gauss")
    for share, strays in ((0.1, 0), (0.2, len(w))):
        w[:, :32] *= np.float32(share) * np.abs(w).max() / np.abs(w[:, :32]).max(axis=1)[:, None]
        restored = Rtn(32).quantize(w, 4).dequantize()
        restored[:, :32] *= np.float32(1e-30)
        assert found(w, restored, 32, 4).strays == strays
