"""The audit's own judgement: equality, integrity, folds; and every golden checkpoint as a whole."""

import json
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from format_cases import GOLDEN
from pytest_arrowquant import Mse, Rtn, Scheme, quantize, save_checkpoint
from pytest_arrowquant.audit import Audit
from pytest_arrowquant.audit.equality import unequal
from pytest_arrowquant.audit.folding import fold_of
from pytest_arrowquant.audit.integrity import Inspected
from pytest_arrowquant.checkpoints.pairing import Pair
from pytest_arrowquant.checkpoints.stored_tensor import StoredTensor
from pytest_arrowquant.checkpoints.weight import CodedWeight
from pytest_arrowquant.codes import Codes, Grid

FORMATS = sorted(
    path for path in GOLDEN.iterdir() if path.name not in ("make", "gguf-models") and path.is_dir()
)
CASES = [case for folder in FORMATS for case in sorted(folder.iterdir()) if case.is_dir()]


def failures(audit: Audit) -> dict[str, str]:
    judged = {pair.name: audit.judge(pair, {}, {}) for pair in audit.pairing.pairs}
    return {name: failure for name, (_, failure) in judged.items() if failure}


ONE_BIT = GOLDEN / "hqq" / "int1-f32"  # two levels a group: some rows come out worse than zero


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_what_producers_made_passes(case):
    """No false alarm: 13 producers' own outputs against what they were made from."""
    ggufs = sorted(case.glob("*.gguf"))
    audit = Audit(ggufs[0] if ggufs else case, case / "original.safetensors")
    assert audit.problems == ()
    found = failures(audit)
    if case == ONE_BIT:
        assert all("row_sqnr_db -" in said for said in found.values())
    else:
        assert found == {}
    assert len(audit.pairing.pairs) >= 2


def stored(array: np.ndarray, dtype: str, name: str = "w") -> StoredTensor:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return StoredTensor("x.safetensors", name, array.shape, dtype, raw)


@dataclass
class Plain:
    plain: StoredTensor


def difference(original: StoredTensor, other: StoredTensor, **more):
    return unequal(Pair("w", original, Plain(other), **more), other)


WEIGHT = np.random.default_rng(0).standard_normal((33, 65), np.float32)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.float32, "F32"), (np.float16, "F16"), (ml_dtypes.bfloat16, "BF16")]
)
def test_a_tensor_cast_to_another_type_is_equal(dtype, kind):
    original = stored(WEIGHT, "F32")
    cast = WEIGHT.astype(dtype)
    assert difference(original, stored(cast, kind)).passed
    off = cast.copy()
    off[7, 5] = np.nextafter(off[7, 5], off.dtype.type(9)) if kind != "BF16" else off[7, 5] * 2
    found = difference(original, stored(off, kind))
    assert not found.passed
    assert found.value == 1
    assert found.where == f"index (7, 5): {off[7, 5]}, the original {WEIGHT[7, 5]}"


def test_nan_is_equal_to_nan_and_to_nothing_else():
    a, b = np.float32([np.nan, 1, 2]), np.float32([np.nan, 1, np.nan])
    assert difference(stored(a, "F32"), stored(a.copy(), "F32")).passed
    assert difference(stored(a, "F32"), stored(b, "F32")).value == 1


def test_a_value_beyond_the_narrower_type_is_infinite_there_and_equal():
    a = np.float32([1e30, 1])
    with np.errstate(over="ignore"):
        assert difference(stored(a, "F32"), stored(a.astype(np.float16), "F16")).passed


def test_shapes_may_differ_in_axes_of_one_alone():
    assert difference(stored(np.ones((4, 1)), "F64"), stored(np.ones(4), "F64")).passed
    found = difference(stored(np.ones((4, 2)), "F64"), stored(np.ones((2, 4)), "F64"))
    assert (found.passed, found.value) == (False, 8)
    assert found.where == "shape (2, 4), the original (4, 2)"


def test_what_a_format_did_before_is_done_to_the_original_too():
    array = np.arange(32, dtype=np.float32).reshape(8, 4)
    by_hand = array.reshape(2, 2, 2, 4).transpose(0, 2, 1, 3).reshape(8, 4)
    assert difference(stored(array, "F32"), stored(by_hand, "F32"), heads=2).passed
    assert difference(stored(array, "F32"), stored(array.T, "F32"), transposed=True).passed
    assert difference(stored(array, "F32"), stored(array + 1, "F32"), shift=1.0).passed
    assert not difference(stored(array, "F32"), stored(array, "F32"), shift=1.0).passed


def coded(values, scale, zero, bits=4, zero_kind="integer") -> Inspected:
    codes = Codes(values, scale, 32, zero)

    def read(start, stop):
        return Codes(codes.values[start:stop], scale[start:stop], 32, zero[start:stop])

    return Inspected(CodedWeight(values.shape, Grid(bits, zero_kind, 32), 1, read))


def seen(weight: Inspected) -> dict[str, tuple[bool, float]]:
    rows = weight.shape[0]
    for start in range(0, rows, 7):
        weight.restore(start, min(start + 7, rows))
    weight.restore(0, rows)  # rows count once, however often they are read
    return {f.metric: (f.passed, f.value) for f in weight.findings(alone=True)}


def parts(high: int = 16):
    rng = np.random.default_rng(0)
    values = rng.integers(0, high, (64, 128)).astype(np.uint8)
    return values, np.ones((64, 4), np.float32), np.full((64, 4), 8, np.float32)


def test_codes_of_full_range_are_sound():
    values, scale, zero = parts()
    assert seen(coded(values, scale, zero)) == {
        "finite_scales": (True, 0),
        "code_range": (True, 15),
        "saturated": (True, float(((values == 0) | (values == 15)).mean())),
        "wrapped_zero_points": (True, 0.0),
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_counted_and_placed(value):
    values, scale, zero = parts()
    scale[40, 3] = scale[50, 0] = value
    weight = coded(values, scale, zero)
    assert seen(weight)["finite_scales"] == (False, 2)
    (finding,) = (f for f in weight.findings(alone=True) if f.metric == "finite_scales")
    assert finding.where == f"scale {value} at row 40, group 3"


def test_codes_beyond_the_declared_width():
    assert seen(coded(*parts(17)))["code_range"] == (False, 16)


def test_a_zero_off_the_middle_of_what_is_said_to_be_symmetric():
    """As where a file of GPTQ's second version is labelled as of the first (vllm#38966)."""
    values, scale, zero = parts()
    assert seen(coded(values, scale, zero, zero_kind="none"))["symmetric_zero"] == (True, 0)
    weight = coded(values, scale, zero + 1, zero_kind="none")
    assert seen(weight)["symmetric_zero"] == (False, 256)
    (finding,) = (f for f in weight.findings(alone=True) if f.metric == "symmetric_zero")
    assert finding.where == "9 at row 0, group 0"


def test_more_than_half_of_the_codes_at_the_ends():
    values, scale, zero = parts()
    values[:, :80] = 15
    passed, share = seen(coded(values, scale, zero))["saturated"]
    assert (passed, share > 0.6) == (False, True)


def test_zero_points_that_wrapped():
    values, scale, zero = parts()
    zero[:20, 0] = 15
    assert seen(coded(values, scale, zero))["wrapped_zero_points"] == (False, 20 / 256)
    zero[12:20, 0] = 8
    assert seen(coded(values, scale, zero))["wrapped_zero_points"] == (True, 12 / 256)


class Restored:
    """A weight of these values."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def restore(self, start, stop):
        return self.values[start:stop]


def noisy(weight, rows, columns, noise=0.1):
    rng = np.random.default_rng(1)
    scaled = rows[:, None] * weight * columns
    return (scaled * (1 + noise * rng.standard_normal(weight.shape))).astype(np.float32)


BIG = np.random.default_rng(2).standard_normal((256, 192), np.float32)


def spread(size: int) -> np.ndarray:
    return np.exp(np.random.default_rng(size).uniform(-1, 1, size))


def test_scales_of_rows_and_columns_are_found():
    rows, columns = spread(256), spread(192)
    fold = fold_of(BIG, Restored(noisy(BIG, rows, columns)))
    assert fold.in_rows
    assert fold.in_columns
    product = fold.rows[:, None] * fold.columns / (rows[:, None] * columns)
    off = np.sqrt(np.mean((product - 1) ** 2))
    assert 0.5 < off / np.hypot(fold.rows_noise, fold.columns_noise) < 3  # weights are no constant
    assert 0 < fold.columns_noise < 0.01


def test_noise_and_a_wrong_scale_of_all_are_no_fold():
    for factor in (1, 2, 0.5):
        fold = fold_of(BIG, Restored(noisy(BIG, np.full(256, factor), np.ones(192))))
        assert not fold.in_rows
        assert not fold.in_columns


def test_a_few_wrong_columns_are_no_fold():
    columns = np.ones(192)
    columns[:20] = 3
    fold = fold_of(BIG, Restored(noisy(BIG, np.ones(256), columns)))
    assert not fold.in_columns


def test_a_fold_carries_its_own_scale_alone():
    columns = spread(192)
    fold = fold_of(BIG, Restored(noisy(BIG, np.ones(256), columns)))
    assert fold.carries(columns)
    assert not fold.carries(columns[::-1])
    assert not fold.carries(columns[:100])
    assert not fold_of(BIG, Restored(noisy(BIG, np.ones(256), np.ones(192)))).carries(columns)


def test_too_small_a_weight_has_no_fold():
    assert fold_of(np.ones((1, 8), np.float32), Restored(np.ones((1, 8), np.float32))) is None


GENERATOR = np.random.default_rng(3)
LAYER = "model.layers.0"
MODEL = {
    f"{LAYER}.input_layernorm.weight": 1 + 0.1 * GENERATOR.standard_normal(128),
    f"{LAYER}.self_attn.q_proj.weight": GENERATOR.standard_normal((96, 128)),
    f"{LAYER}.self_attn.v_proj.weight": GENERATOR.standard_normal((160, 128)),
    f"{LAYER}.self_attn.o_proj.weight": GENERATOR.standard_normal((96, 160)),
}
MODEL = {name: array.astype(np.float32) for name, array in MODEL.items()}
NORM, Q, V, OUT = MODEL


def folded(norm: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    """The model after AWQ's two folds: a norm into its layers, and rows of V into columns of O."""
    model = dict(MODEL)
    model[NORM] = model[NORM] / norm
    model[Q] = model[Q] * norm
    model[V] = model[V] * norm / value[:, None]
    model[OUT] = model[OUT] * value
    return {name: array.astype(np.float32) for name, array in model.items()}


def audit_of(tmp_path, model) -> Audit:
    save_file(MODEL, tmp_path / "original.safetensors")
    tensors = {
        n: quantize(a, Scheme(4, "integer", 32)) if a.ndim == 2 else a for n, a in model.items()
    }
    save_checkpoint(tmp_path / "int4.safetensors", tensors)
    return Audit(tmp_path / "int4.safetensors", tmp_path / "original.safetensors")


def test_folded_scales_are_undone_where_their_inverse_is_there(tmp_path):
    audit = audit_of(tmp_path, folded(spread(128), spread(160)))
    assert failures(audit) == {}
    notes = {p.name: audit.judge(p, {}, {})[0].notes for p in audit.pairing.pairs}
    assert f"divided by the scale that is folded into the columns of {Q}" in notes[NORM]
    assert any(note.startswith("judged after unfolding: columns scaled by") for note in notes[Q])
    assert any("rows scaled by" in note and "columns" in note for note in notes[V])
    metrics = audit.judge(next(p for p in audit.pairing.pairs if p.name == V), {}, {})[0].metrics
    assert metrics["cosine"] > 0.97


def test_a_fold_that_nothing_takes_up_fails(tmp_path):
    model = folded(spread(128), spread(160))
    model[NORM] = MODEL[NORM]
    found = failures(audit_of(tmp_path, model))
    assert found.keys() >= {Q, V}
    assert "its columns carry a scale, and nothing in the layer takes it up" in found[Q]


def test_rows_that_nothing_takes_up_fail(tmp_path):
    model = folded(spread(128), spread(160))
    model[OUT] = MODEL[OUT]
    found = failures(audit_of(tmp_path, model))
    assert found.keys() == {V}
    assert "its rows carry a scale, and nothing in the layer takes it up" in found[V]


@pytest.mark.parametrize("factor", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("name", [Q, V, OUT])
def test_a_fold_hides_no_wrong_scale_of_all(tmp_path, name, factor):
    model = folded(spread(128), spread(160))
    model[name] = model[name] * np.float32(factor)
    assert name in failures(audit_of(tmp_path, model))


def test_a_fold_hides_no_wrong_column_group_or_row(tmp_path):
    for name, index, factor in ((Q, np.s_[:, 5], 4), (Q, np.s_[3, 32:64], 4), (V, np.s_[:15], 4)):
        model = folded(spread(128), spread(160))
        model[name][index] *= factor
        assert name in failures(audit_of(tmp_path, model)), (name, index)


def test_all_that_read_a_folded_norm_must_carry_it(tmp_path):
    model = folded(spread(128), spread(160))
    model[Q] = MODEL[Q]
    found = failures(audit_of(tmp_path, model))
    assert NORM in found


def test_a_norm_is_not_excused_where_nothing_is_folded(tmp_path):
    for index in range(0, 128, 16):
        model = dict(MODEL)
        model[NORM] = MODEL[NORM].copy()
        model[NORM][index] *= np.float32(1.003)
        assert NORM in failures(audit_of(tmp_path, model))


def test_a_zero_of_a_folded_vector_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(MODEL, NORM, MODEL[NORM] * (np.arange(128) != 7))
    assert failures(audit_of(tmp_path, folded(spread(128), spread(160)))) == {}


def test_a_tensor_beside_its_own_codes_is_one_too_many(tmp_path):
    save_file({"w": BIG}, tmp_path / "original.safetensors")
    tensors = {"w": quantize(BIG, Scheme(4)), "v": BIG}
    save_checkpoint(tmp_path / "x.safetensors", tensors)
    path = tmp_path / "x.safetensors"
    with safe_open(path, "numpy") as file:
        header, arrays = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    arrays["w"] = arrays.pop("v")
    save_file(arrays, path, header)
    assert failures(Audit(path, tmp_path / "original.safetensors")).keys() == {
        "w (beside its codes)"
    }


def test_whole_numbers_are_no_cast_of_others():
    floats = stored(np.float32([0.1, 0.2]), "F32")
    assert difference(floats, stored(np.int8([0, 0]), "I8")).value == 2
    assert difference(stored(np.int64([256, 1]), "I64"), stored(np.uint8([0, 1]), "U8")).value == 1
    assert difference(stored(np.int64([2, 1]), "I64"), stored(np.uint8([2, 1]), "U8")).passed


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "has nan at index"), (0, "has a scale of 0.0; scales are above 0")],
)
def test_scales_of_activations_are_looked_at_too(tmp_path, value, words):
    for path in (GOLDEN / "modelopt" / "fp8-kv-cache").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name.endswith("k_scale"))
    start, stop = header[name]["data_offsets"]
    content[8 + length + start : 8 + length + stop] = np.float32(value).tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    (problem,) = Audit(tmp_path, tmp_path / "original.safetensors").problems
    assert name in problem
    assert words in problem


def test_nothing_to_audit_is_a_problem(tmp_path):
    save_file({}, tmp_path / "x.safetensors")
    assert Audit(tmp_path / "x.safetensors").problems == (
        "checkpoint x.safetensors holds no tensor",
    )


def test_a_norm_that_was_divided_by_something_else_fails(tmp_path):
    model = folded(spread(128), spread(160))
    model[NORM] = MODEL[NORM] / spread(128)[::-1].astype(np.float32)
    found = failures(audit_of(tmp_path, model))
    assert NORM in found
    assert "unequal 128 (index (0,)" in found[NORM]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_project_s_own_checkpoints_pass(tmp_path, bits):
    original = load_file(GOLDEN.parent / "data" / "silero_slice.safetensors")
    save_file(original, tmp_path / "original.safetensors")
    for quantizer in (Rtn(), Mse(zero="float")):
        save_checkpoint(
            tmp_path / "x.safetensors",
            {
                name: quantizer.quantize(array, bits) if array.ndim > 1 else array
                for name, array in original.items()
            },
        )
        audit = Audit(tmp_path / "x.safetensors", tmp_path / "original.safetensors")
        assert failures(audit) == {}
