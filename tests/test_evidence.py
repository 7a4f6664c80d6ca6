"""One pass over a tensor: whatever the block, the type and the layout, the same bits."""

import tracemalloc
from dataclasses import fields

import ml_dtypes
import numpy as np
import pytest

import float_formats as formats
import reference
from pytest_arrowquant import Rtn, TensorError
from pytest_arrowquant.arrays import Array
from pytest_arrowquant.case import grid_of
from pytest_arrowquant.checkpoints.weight import CodedWeight, RestoredWeight
from pytest_arrowquant.codes import Codes, Grid, codes_of
from pytest_arrowquant.evidence import Evidence, Wanted, gather
from pytest_arrowquant.examine import TensorResult, examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.metrics import deviation
from pytest_arrowquant.nearest import Nearest
from pytest_arrowquant.row_blocks import RowBlocks
from pytest_arrowquant.scheme import rows_and_columns

SHAPES = [(96, 64), (70, 33), (40, 200), (33, 3, 3, 3), (1, 5), (1000,), (7, 1)]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ALL = Wanted(True, True, 8, 4, Nearest(4, table=formats.NF4), True)


def drawn(shape, seed=0) -> tuple[Array, Array]:
    """Weights, and what a coarse and careless quantizer made of them; some columns lost."""
    generator = np.random.default_rng(seed)
    w = generator.standard_t(4, shape).astype(np.float32)
    r = np.rint(w + generator.normal(0, 0.7, shape)).astype(np.float32)
    if len(shape) > 1:
        r[:, ::5] = 0
    return w, r


def stored(restored: Array, coded: bool = False):
    """The values as a checkpoint would hand them over."""
    rows, grid = restored.reshape(rows_and_columns(restored.shape)), Grid(4)

    def codes(start: int, stop: int) -> Codes:
        low = rows.min()
        values = (rows[start:stop] - low).astype(np.uint8)
        minimum = np.full((len(values), 1), low, np.float32)
        return Codes(values, np.ones_like(minimum), max(rows.shape[1], 1), minimum=minimum)

    if coded:
        return CodedWeight(restored.shape, grid, restored.size, codes)
    return RestoredWeight(restored.shape, grid, restored.size, lambda a, b: rows[a:b].copy())


def bits_of(evidence: Evidence) -> list[bytes]:
    """Every figure, to the bit."""
    parts = [getattr(evidence, field.name) for field in fields(evidence)]
    return [
        repr((part.sums, part.exponent)).encode() + part.row_sums.tobytes()
        if hasattr(part, "sums")
        else part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        for part in parts
    ]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_block_size_changes_no_bit(shape, dtype):
    w, r = drawn(shape)
    w = w.astype(dtype)
    whole = bits_of(gather(RowBlocks.of(w, r, 1 << 30), ALL))
    for at_a_time in (1, 100, 1000, 5000):
        assert bits_of(gather(RowBlocks.of(w, r, at_a_time), ALL)) == whole, at_a_time
        assert bits_of(gather(RowBlocks.of(w, stored(r), at_a_time), ALL)) == whole, at_a_time


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layout_and_permission_change_no_bit(shape):
    """Transposed, strided, read-only and unaligned references, and values made of codes."""
    w, r = drawn(shape)
    want = deviation(w, r)
    strided = np.repeat(w, 2, axis=-1)[..., ::2]
    frozen = w.copy()
    frozen.flags.writeable = False
    raw = np.empty(w.nbytes + 1, np.uint8)
    raw[1:] = w.reshape(-1).view(np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(shape)
    for reference_, restored in [
        (np.asfortranarray(w), r), (strided, np.asfortranarray(r)), (frozen, r), (unaligned, r),
        (w, stored(r)), (w, stored(r, coded=True)),
    ]:  # fmt: skip
        found = deviation(reference_, restored)
        assert found.row_sums.tobytes() == want.row_sums.tobytes()
        assert found.sums == want.sums


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_evidence_is_its_twin(shape):
    w, r = drawn(shape)
    found = gather(RowBlocks.of(w, r, 200), ALL)
    rows, back = (array.reshape(rows_and_columns(shape)) for array in (w, r))
    columns = rows.shape[1]
    assert found.order == reference.worst_order(w.reshape(-1), r.reshape(-1), columns, 32, 8)
    np.testing.assert_array_equal(found.dead, reference.column_energies(rows, back)[1] == 0)
    assert found.levels == reference.most_levels(back, 8, 4)
    np.testing.assert_array_equal((found.low, found.high), (rows.min(1), rows.max(1)))
    want = formats.FloatFormat(4, formats.NF4, "channel").restored(rows)
    squares = ((rows.astype(float) - want) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.rounded, squares, rtol=1e-4, atol=1e-12)
    flat_w, flat_r = w.reshape(-1).tolist(), r.reshape(-1).tolist()
    errors, of_means, _ = reference.blocks(flat_w, flat_r, 32)
    assert found.weights.sums.error == pytest.approx(errors, rel=1e-12)
    assert found.weights.sums.block_mean_energy == pytest.approx(of_means, rel=1e-12)


def test_what_is_not_wanted_is_not_gathered():
    w, r = drawn((64, 64))
    found = gather(RowBlocks.of(w, r), Wanted())
    assert (found.order, found.dead, found.levels, found.rounded) == (None,) * 4


def test_the_levels_of_codes_are_bounded_by_construction():
    w, r = drawn((64, 64))
    wanted = Wanted(group_size=8, limit=4)
    assert gather(RowBlocks.of(w, stored(r, coded=True)), wanted).levels is None
    assert gather(RowBlocks.of(w, stored(r)), wanted).levels == reference.most_levels(r, 8, 4)


@pytest.mark.parametrize("at_a_time", [64, 1 << 20])
def test_levels_of_a_tensor_are_counted_over_its_blocks(at_a_time):
    w, _ = drawn((64, 64))
    r = np.repeat(np.arange(16, dtype=np.float32), 256).reshape(64, 64)
    wanted = Wanted(group_size="tensor", limit=15)
    assert gather(RowBlocks.of(w, r, at_a_time), wanted).levels == (16, 0, 0)
    r[0] = -0.0  # the same as 0
    assert gather(RowBlocks.of(w, r, at_a_time), wanted).levels == (16, 0, 0)


def test_a_float64_beyond_float32_is_scaled_in_every_block():
    w, r = (part.astype(np.float64) for part in drawn((96, 64)))
    plain = deviation(w, r).sums
    for factor in (2.0**600, 2.0**-600):
        blocks = RowBlocks.of(w * factor, r * factor, 64)
        found = gather(blocks, Wanted()).weights
        assert abs(found.exponent) > 500
        assert found.sums.cosine == plain.cosine
        assert found.sums.largest_error == plain.largest_error * factor


def examined(w, restored, bits=4, **more) -> TensorResult:
    expectation = expect({"bits": bits, **more}, {}, {}, None, "test")
    return examine("w", w, restored, expectation, None, None)


def test_a_stored_weight_is_examined_like_its_values():
    w = np.random.default_rng(1).normal(0, 0.02, (96, 256)).astype(ml_dtypes.bfloat16)
    q = Rtn(64).quantize(w, 4)
    whole = codes_of(q)

    def read(start: int, stop: int) -> Codes:
        part = slice(start, stop)
        return Codes(whole.values[part], whole.scale[part], 64, whole.zero[part])

    weight = CodedWeight(w.shape, grid_of(q), q.nbytes, read)
    expected, found = examined(w, q), examined(w, weight)
    assert found.passed
    assert (found.sums, found.nbytes) == (expected.sums, q.nbytes)
    kept = [o for o in expected.outcomes if o.finding.metric != "levels"]
    assert list(found.outcomes) == kept


class Endless:
    """The rows of a large weight, made when they are asked for."""

    def __init__(self, w: Array) -> None:
        self.w, self.shape, self.grid, self.nbytes = w, w.shape, Grid(4, "none", 64), w.size // 2

    def codes(self, start: int, stop: int) -> None:
        return None

    def restore(self, start: int, stop: int) -> Array:
        return np.rint(self.w[start:stop].astype(np.float32) * 4) / 4


@pytest.mark.parametrize("transposed", [False, True])
def test_a_pass_takes_a_few_mebibytes(transposed):
    w = np.random.default_rng(0).standard_normal((4096, 4096), np.float32)
    w = w.astype(ml_dtypes.bfloat16)
    w = w.T if transposed else w
    examined(w[:64], Endless(w[:64]))  # compiles
    tracemalloc.start()
    examined(w, Endless(w))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [(0, 0, 0), (69, 1, 15), (40, 2, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_found_in_the_pass_and_named(index, value, dtype):
    w, r = drawn((70, 3, 17))
    broken = r.copy()
    broken[index] = broken[69, 2, 16] = value
    for restored in (broken, stored(broken)):
        result = examined(w.astype(dtype), restored)
        assert result.problem == f"restored has {value} at index {index}"
        assert not result.passed
    w[index] = value
    for restored in (r, broken):
        with pytest.raises(TensorError) as error:
            examined(w.astype(dtype), restored)
        said = f"reference of 'w' has {value} at index {index}; every value must be finite"
        assert str(error.value) == said


def test_a_stored_weight_of_another_shape_is_incomplete():
    w, r = drawn((64, 64))
    result = examined(w, stored(r[:32]))
    assert result.problem == "restored has shape (32, 64), the reference (64, 64)"
