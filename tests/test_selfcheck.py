"""The self-check names the faults that a gate misses: those that theory says, and no other."""

import numpy as np
import pytest

from pytest_arrowquant import Mse, R2q, Rtn, TensorError
from pytest_arrowquant.examine import Restored, examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.faults import FAULTS, TABLE
from pytest_arrowquant.selfcheck import SelfCheck, selfcheck
from pytest_arrowquant.specimen import Specimen

NEED_CODES = {
    name
    for name in FAULTS
    if name.startswith(("scales of", "zero points", "scales and", "scales trans", "zero point "))
} | {"scale NaN", "signed codes read as unsigned", "AWQ order not undone", "AWQ order undone twice"}


@pytest.fixture(scope="module")
def gauss() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((128, 256)).astype(np.float32)


def held(bits: int, **keywords):
    return expect({"bits": bits, **keywords}, {}, {}, None, "test")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("quantizer", [Rtn(), Rtn(zero="integer"), Mse()], ids=str)
def test_the_default_gate_misses_nothing(gauss, quantizer, bits):
    checked = selfcheck("w", gauss, quantizer.quantize(gauss, bits), held(bits))
    assert checked.missed == ()
    assert len(checked.injected) >= 30
    assert {"scales x2", "two groups swapped", "last group dropped"} <= {*checked.injected}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_cosine_alone_misses_what_theory_says(gauss, bits):
    """Of n rows alike: no scale is seen at all, and one row lost costs 1 / 2n, far above it."""
    checked = selfcheck("w", gauss, Rtn().quantize(gauss, bits), held(bits, guards=False))
    scales = {name for name in FAULTS if name.startswith("scales x")}
    single = {name for name in FAULTS if FAULTS[name].in_rows} - {"one NaN", "scale NaN"}
    assert {*checked.missed} >= scales | single | {"outlier column zeroed"}
    assert {*checked.missed}.isdisjoint(
        {"sign flipped", "one NaN", "scale NaN", "codes shifted by one", "nibbles swapped"}
    )


def test_a_signal_to_noise_ratio_alone_sees_scales(gauss):
    """scales x2 leave an error as large as the weights: 0 dB."""
    checked = selfcheck("w", gauss, Rtn().quantize(gauss, 8), held(8, sqnr_db=1, guards=False))
    assert "scales x2" not in checked.missed
    assert "scales x1.05" in checked.missed, "20 log10(1 / 0.05) = 26 dB"


def test_faults_come_in_the_order_of_the_table(gauss):
    checked = selfcheck("w", gauss, Rtn().quantize(gauss, 4), held(4, guards=False))
    order = [fault.name for fault in TABLE]
    for names in (checked.injected, checked.missed):
        assert list(names) == sorted(names, key=order.index)
    assert {*checked.missed} <= {*checked.injected}


def test_a_width_of_two_misses_some(gauss):
    checked = selfcheck("w", gauss, Rtn().quantize(gauss, 2), held(2))
    assert "scales x2" not in checked.missed
    assert "scales x1.05" in checked.missed


@pytest.mark.parametrize("quantizer", [Rtn(), Rtn(zero="float")], ids=str)
def test_what_shows_no_codes_has_fewer_faults(gauss, quantizer):
    q = quantizer.quantize(gauss, 4)
    shown = selfcheck("w", gauss, q, held(4))
    bare = selfcheck("w", gauss, q.dequantize(), held(4))
    assert {*bare.injected} < {*shown.injected}
    assert {*shown.injected} - {*bare.injected} >= NEED_CODES & {*shown.injected}
    assert {*bare.injected}.isdisjoint(NEED_CODES)
    assert "scales x2" in bare.injected
    assert bare.missed == ()


def test_groups_known_without_codes(gauss):
    """Two sums of signs have no scale to move, but their groups are known."""
    checked = selfcheck("w", gauss, R2q().quantize(gauss, 2), held(2))
    assert "last group dropped" in checked.injected
    assert NEED_CODES.isdisjoint(checked.injected)


@pytest.mark.parametrize("coded", [True, False])
def test_nothing_is_changed_in_place(gauss, coded):
    q = Mse().quantize(gauss, 4)
    restored = q if coded else Restored.of(q.dequantize(), q)
    before = [part.copy() for part in (gauss, q.codes, q.decoding.scale, restored.dequantize())]
    first = selfcheck("w", gauss, restored, held(4))
    after = (gauss, q.codes, q.decoding.scale, restored.dequantize())
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert selfcheck("w", gauss, restored, held(4)) == first


def test_a_fault_that_changes_no_value_is_none(gauss):
    """One group a row has no next group; all alike have the same parameters."""
    checked = selfcheck("w", gauss, Rtn("channel").quantize(gauss, 4), held(4))
    assert "scales of the next group" not in checked.injected
    alike = np.tile(gauss[:1, :64], (128, 4))
    checked = selfcheck("w", alike, Rtn(64).quantize(alike, 4), held(4, guards=False))
    assert {"scales of the next group", "two rows swapped"}.isdisjoint(checked.injected)


def test_what_leaves_every_row_as_accurate_is_no_fault(gauss):
    """Rows whose scales differ by a thousandth, and by a fifth in turns, which a cosine misses."""
    for spread, injected in ((1e-3, False), (0.2, True)):
        rows = 1 + np.float32(spread) * (np.arange(len(gauss), dtype=np.float32)[:, None] % 2)
        w = gauss / np.abs(gauss).max(axis=1, keepdims=True) * rows
        q = Rtn("channel").quantize(w, 4)
        checked = selfcheck("w", w, q, held(4, guards=False))
        for names in (checked.injected, checked.missed):
            assert ("scales of the row before" in names) is injected


def test_one_row_worse_than_before_is_a_fault():
    """However little it adds to the error of all: one of 1024 rows."""
    w = np.random.default_rng(0).standard_normal((1024, 256)).astype(np.float32)
    checked = selfcheck("w", w, Rtn().quantize(w, 4), held(4, guards=False))
    assert {"two rows swapped", "two groups swapped", "row zeroed"} <= {*checked.missed}


def test_outputs_are_judged_where_they_were(gauss):
    inputs = np.random.default_rng(2).standard_normal((512, 256)).astype(np.float32)
    q = Rtn().quantize(gauss, 4)
    by_outputs = selfcheck("w", gauss, q, held(4, judge="outputs"), inputs)
    assert "scales x1.05" not in by_outputs.missed
    with pytest.raises(TensorError, match="judge='outputs' needs inputs"):
        selfcheck("w", gauss, q, held(4, judge="outputs"))


def test_beyond_float32_nothing_is_injected(gauss):
    huge = gauss.astype(np.float64) * 1e200
    assert selfcheck("w", huge, huge.copy(), held(8)) == SelfCheck((), ())


def test_the_specimen_is_judged_as_the_result_was(gauss):
    """Bytes, groups and width go along: what passes is not accused for being a specimen."""
    q = Rtn().quantize(gauss, 4)
    as_it_is = examine("w", gauss, q, held(4), None, None)
    whole = examine("w", gauss, Specimen.of(q, 4), held(4), None, None)
    assert whole.passed
    values = {o.finding.metric: o.finding.value for o in as_it_is.outcomes}
    seen = {o.finding.metric: o.finding.value for o in whole.outcomes}
    assert seen == {name: value for name, value in values.items() if name != "levels"}
    assert whole.nbytes == as_it_is.nbytes == q.nbytes
