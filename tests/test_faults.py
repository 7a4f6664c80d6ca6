"""The table of faults: each does what it says, and what mends it gives back every bit."""

from dataclasses import replace

import numpy as np
import pytest

from pytest_arrowquant import Mse, R2q, Rtn
from pytest_arrowquant.checkpoints.weight import CodedWeight, RestoredWeight
from pytest_arrowquant.codes import Codes, Grid, codes_of
from pytest_arrowquant.faults import FAULTS, HEAD_SIZES, TABLE
from pytest_arrowquant.models.draw import KINDS, draw
from pytest_arrowquant.quantizers import COMPACT
from pytest_arrowquant.specimen import Specimen

INEXACT = {"scales x1.5", "scales x1.25", "scales x1.05"}  # 1 / 1.5 is no float32
SCHEMES = [Rtn(32, "integer"), Rtn(32), Rtn(32, "float"), Rtn("channel"), Rtn("tensor")]


def weight(shape=(128, 128), seed=0):
    return draw(shape, KINDS["attention_qk"], np.random.default_rng(seed))


def specimens(bits: int) -> dict[str, Specimen]:
    """A square matrix under each scheme, its values alone, and a convolution."""
    w = weight()
    known = {str(scheme): Specimen.of(scheme.quantize(w, bits)) for scheme in SCHEMES}
    known["bare"] = Specimen.of(Rtn(32).quantize(w, bits).dequantize(), bits)
    window = weight((64, 12, 3, 3), seed=1)
    known["convolution"] = Specimen.of(Rtn(36, "integer").quantize(window, bits))
    return known


def arrays(specimen: Specimen) -> list[np.ndarray]:
    coded = specimen.coded
    if coded is None:
        return [specimen.values]
    return [coded.values, coded.scale, coded.zero, coded.minimum]


def test_names_are_distinct_and_said_in_words():
    assert len(FAULTS) == len(TABLE)
    assert all(len(fault.sentence.split()) > 3 for fault in TABLE)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_injecting_leaves_the_original_alone(fault, bits):
    for specimen in specimens(bits).values():
        before = [part.copy() for part in arrays(specimen)]
        broken = fault.inject(specimen)
        if broken is not None:
            assert broken.shape == specimen.shape
            assert not np.array_equal(broken.restore(), specimen.restore())
        assert all(map(np.array_equal, arrays(specimen), before))


def test_every_fault_befalls_something():
    """Each at the widths at which there is such a thing."""
    befallen = {
        bits: {f.name for s in specimens(bits).values() for f in TABLE if f.inject(s) is not None}
        for bits in (2, 4, 8)
    }
    of_four_bits = {"AWQ order not undone", "AWQ order undone twice"}
    assert befallen[4] == {*FAULTS} - {"high bits first"}
    assert befallen[2] == {*FAULTS} - of_four_bits
    assert befallen[8] == {*FAULTS} - of_four_bits - {"high bits first"}


@pytest.mark.parametrize("bits", [2, 4])
def test_no_two_faults_are_the_same(bits):
    """Where a weight has all that can go wrong."""
    specimen = specimens(bits)[str(SCHEMES[0])]
    broken = {f.name: b.restore().tobytes() for f in TABLE if (b := f.inject(specimen))}
    assert len(set(broken.values())) == len(broken)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    "fault", [f for f in TABLE if f.mends and not f.in_rows], ids=lambda f: f.name
)
def test_a_mend_gives_back_every_bit(fault, bits):
    tried = 0
    for name, specimen in specimens(bits).items():
        broken = fault.inject(specimen)
        of_minima = fault.name.startswith("zero point ") and "float" in name
        if broken is None:
            continue
        tried += 1
        mends = (fault.mend(broken, detail) for detail in fault.mends)
        mended = next(m for m in mends if m is not None)  # of heads, the first size that fits
        if fault.name in INEXACT or of_minima:
            ulps = 4 * 2**-23 * np.abs(specimen.restore()).max()
            assert np.abs(mended.restore() - specimen.restore()).max() <= ulps
            continue
        assert mended.restore().tobytes() == specimen.restore().tobytes(), name
        if fault.name != "transposed":  # whose codes are not kept
            assert all(map(np.array_equal, arrays(mended), arrays(specimen))), name
    assert tried or fault.name in {
        "high bits first", "AWQ order not undone", "AWQ order undone twice"
    }  # fmt: skip


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scaled_values_are_so_many_times_their_own(bits):
    for specimen in specimens(bits).values():
        for factor in (2, 0.5, 1.5, 1.25, 1.05):
            broken = FAULTS[f"scales x{factor:g}"].inject(specimen).restore()
            ulps = 4 * 2**-23 * np.abs(broken).max()
            assert np.abs(broken - factor * specimen.restore()).max() <= ulps
        assert np.array_equal(
            FAULTS["sign flipped"].inject(specimen).restore(), -specimen.restore()
        )


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["row sign flipped", "row doubled"])
def test_a_fault_of_a_row_is_mended_in_it_alone(name, bits):
    for specimen in specimens(bits).values():
        broken = FAULTS[name].inject(specimen)
        (row,) = np.flatnonzero((broken.restore() != specimen.restore()).any(axis=1))
        rows = np.array([row])
        mended = broken.patched(rows, FAULTS[name].mends[""](broken, rows))
        assert np.array_equal(mended.restore(), specimen.restore())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_mend_of_some_rows_is_that_of_all(bits):
    """Explanations look at a sample of rows first."""
    rows = np.array([5, 0, 77])
    for specimen in (s for s in specimens(bits).values() if s.layout[0] == 128):
        for fault in TABLE:
            for change in fault.mends.values():
                whole = change(specimen, np.arange(128))
                if whole is not None:
                    some = change(specimen, rows)
                    assert np.array_equal(some.restore(), whole.restore()[rows]), fault.name


# What each fault is, said in another way.


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nibbles_are_those_of_the_packed_bytes(bits):
    q = Rtn(32).quantize(weight(), bits)
    swapped = replace(q, codes=(q.codes << 4) | (q.codes >> 4))
    broken = FAULTS["nibbles swapped"].inject(Specimen.of(q))
    assert np.array_equal(broken.dequantize(), swapped.dequantize())


def test_high_bits_first():
    q = Rtn(32).quantize(weight(), 2)
    packed = np.zeros_like(q.codes)
    for i in range(4):
        packed |= ((q.codes >> (2 * i)) & 3) << (2 * (3 - i))
    broken = FAULTS["high bits first"].inject(Specimen.of(q))
    assert np.array_equal(broken.dequantize(), replace(q, codes=packed).dequantize())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_signed_codes_are_of_twos_complement(bits):
    specimen = Specimen.of(Rtn(32).quantize(weight(), bits))
    half = 2 ** (bits - 1)
    signed = specimen.coded.values.astype(int) - half
    read = signed % 2**bits  # the bits of a negative number, taken for a positive one
    broken = FAULTS["signed codes read as unsigned"].inject(specimen)
    assert np.array_equal(broken.coded.values, read)


def test_awq_packs_eight_outputs_in_an_int32_in_its_order():
    """AutoAWQ's pack: nibble i of a word holds output (0, 2, 4, 6, 1, 3, 5, 7)[i] of eight."""
    specimen = Specimen.of(Rtn(32, "integer").quantize(weight(), 4))

    def packed_and_read(outputs):  # [out, ...]: packed in AWQ's order, unpacked in ours
        read = np.zeros_like(outputs)
        for first in range(0, len(outputs), 8):
            word = np.zeros(outputs.shape[1:], np.uint32)
            for i, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                word |= outputs[first + output].astype(np.uint32) << np.uint32(4 * i)
            for i in range(8):
                read[first + i] = (word >> np.uint32(4 * i)) & np.uint32(15)
        return read

    broken = FAULTS["AWQ order not undone"].inject(specimen)
    assert np.array_equal(broken.coded.values, packed_and_read(specimen.coded.values))
    assert np.array_equal(broken.coded.zero, packed_and_read(specimen.coded.zero))
    assert np.array_equal(broken.coded.scale, specimen.coded.scale)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("name", "stored", "added"), [("-1", 1, 0), ("+1", 0, 1)])
def test_zeros_of_gptq(name, stored, added, bits):
    """Version 1 stores zero - 1, modulo 2^bits, and its readers add 1; version 2 stores zero."""
    w = weight()
    w[:8], w[8:16] = np.abs(w[:8]), -np.abs(w[8:16])  # zero points at both ends of the codes
    specimen = Specimen.of(Rtn(32, "integer").quantize(w, bits))
    assert {0, 2**bits - 1} <= {*specimen.coded.zero.reshape(-1)}
    words = (specimen.coded.zero.astype(int) - stored) % 2**bits
    fault = FAULTS[f"zero point {name}"]
    broken = fault.inject(specimen)
    assert np.array_equal(broken.coded.zero, (words + added) % 2**bits)
    assert "version 1" in fault.says("gptq")
    assert "version" not in fault.says("awq")


def test_a_zero_point_that_left_its_range_comes_back():
    """A reader that adds 1 to a stored 15 has 16, which is above all codes."""
    specimen = Specimen.of(Rtn(32, "integer").quantize(weight(), 4))
    zero = specimen.coded.zero.copy()
    zero[3, 1] = 15
    beyond = specimen.with_codes(replace(specimen.coded, zero=zero + np.float32(1)))
    assert np.array_equal(FAULTS["zero point +1"].mend(beyond).coded.zero, zero)


def test_heads_are_interleaved_as_ggufs_converter_does():
    """Row 2 j of a head is its row j; row 2 j + 1 is row j of its second half."""
    specimen = Specimen.of(Rtn(32).quantize(weight((192, 64)), 4))
    size = next(size for size in HEAD_SIZES if 192 % size == 0)
    restored = specimen.restore()
    expected = np.empty_like(restored)
    for head in range(0, 192, size):
        for j in range(size // 2):
            expected[head + 2 * j] = restored[head + j]
            expected[head + 2 * j + 1] = restored[head + size // 2 + j]
    assert np.array_equal(FAULTS["Q/K rows interleaved"].inject(specimen).restore(), expected)


def test_transposed_scales_are_read_from_the_memory_of_the_others():
    specimen = Specimen.of(Rtn(32, "integer").quantize(weight((64, 128)), 4))
    scale = specimen.coded.scale
    lying = [scale[row, group] for group in range(4) for row in range(64)]
    broken = FAULTS["scales transposed"].inject(specimen)
    assert broken.coded.scale.reshape(-1).tolist() == lying
    assert np.array_equal(broken.coded.zero, specimen.coded.zero)


@pytest.mark.parametrize(
    ("name", "row", "group"),
    [("of the next group", 0, 1), ("of the group before", 0, -1),
     ("of the next row", 1, 0), ("of the row before", -1, 0)],
)  # fmt: skip
def test_parameters_of_another(name, row, group):
    specimen = Specimen.of(Rtn(32, "integer").quantize(weight(), 4))
    coded = specimen.coded
    rows, groups = coded.scale.shape
    others = [
        [((r + row) % rows, (g + group) % groups) for g in range(groups)] for r in range(rows)
    ]
    scale, zero = ([[p[at] for at in line] for line in others] for p in (coded.scale, coded.zero))
    scales = FAULTS[f"scales {name}"].inject(specimen).coded
    zeros = FAULTS[f"zero points {name}"].inject(specimen).coded
    both = FAULTS[f"scales and zero points {name}"].inject(specimen).coded
    assert scales.scale.tolist() == both.scale.tolist() == scale
    assert zeros.zero.tolist() == both.zero.tolist() == zero
    assert np.array_equal(scales.zero, coded.zero)
    assert np.array_equal(zeros.scale, coded.scale)


def test_what_a_fault_takes_away():
    specimen = Specimen.of(Rtn(32).quantize(weight((64, 120)), 4))
    restored = specimen.restore()
    last = FAULTS["last group dropped"].inject(specimen).restore()
    assert not last[:, 96:].any()
    assert np.array_equal(last[:, :96], restored[:, :96])
    column = FAULTS["outlier column zeroed"].inject(specimen).restore()
    (lost,) = np.flatnonzero((column != restored).any(axis=0))
    assert lost == np.argmax(np.square(restored).sum(axis=0))
    assert np.isnan(FAULTS["one NaN"].inject(specimen).restore()).sum() == 1
    assert np.isnan(FAULTS["scale NaN"].inject(specimen).restore()).sum() in (24, 32)


def test_what_cannot_be_broken_is_left():
    bare = Specimen.of(weight((24, 30)), 4)
    impossible = ("zero point +1", "scales transposed", "AWQ order not undone", "scale NaN",
                  "signed codes read as unsigned", "transposed", "Q/K rows interleaved",
                  "last group dropped")  # fmt: skip
    assert [name for name in impossible if FAULTS[name].inject(bare) is not None] == []
    one_row = Specimen.of(Rtn(32).quantize(weight((1, 64)), 4))
    assert FAULTS["two rows swapped"].inject(one_row) is None
    assert FAULTS["scales of the next row"].inject(one_row) is None


# The common view.


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    "quantizer", [*SCHEMES, Mse(), Mse(32, "integer"), Mse(16, "none")], ids=str
)
@pytest.mark.parametrize("shape", [(24, 100), (5, 7, 3), (33,)])
def test_codes_restore_the_same_bits(quantizer, bits, shape):
    q = quantizer.quantize(np.random.default_rng(2).standard_normal(shape).astype(np.float32), bits)
    restored = codes_of(q).restore()
    assert restored.tobytes() == q.dequantize().tobytes()
    assert Specimen.of(q).dequantize().tobytes() == q.dequantize().tobytes()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_in_super_blocks_restore_the_same_bits(bits):
    q = COMPACT[bits].quantize(weight(), bits)
    assert codes_of(q).restore().tobytes() == q.dequantize().tobytes()


def test_codes_of_binary_terms_are_none():
    q = R2q().quantize(weight(), 2)
    assert codes_of(q) is None
    specimen = Specimen.of(q)
    assert specimen.coded is None
    assert np.array_equal(specimen.dequantize(), q.dequantize())


def test_a_specimen_of_a_stored_weight():
    codes = codes_of(Rtn(32, "integer").quantize(weight((16, 64)), 4))
    grid = Grid(4, "integer", 32)

    def read(start: int, stop: int) -> Codes:
        zero, scale = codes.zero[start:stop], codes.scale[start:stop]
        return Codes(codes.values[start:stop], scale, 32, zero)

    stored = Specimen.of(CodedWeight((16, 64), grid, 640, read))
    assert (stored.grid, stored.nbytes, stored.bits, stored.group_size) == (grid, 640, 4, 32)
    assert np.array_equal(stored.coded.values, codes.values)
    restored = codes.restore()
    bare = Specimen.of(RestoredWeight((16, 64), grid, 640, lambda a, b: restored[a:b]))
    assert bare.coded is None
    assert bare.group_size == 32
    assert np.array_equal(bare.restore(3, 5), restored[3:5])
