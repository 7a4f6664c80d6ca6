"""This project's own checkpoints: what the quantizers make, codes and all, bit for bit."""

import json
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from format_cases import in_blocks
from pytest_arrowquant import (
    COMPACT,
    CheckpointError,
    Gptq,
    Hqq,
    Mse,
    QuantizedTensor,
    R2q,
    Rtn,
    Scheme,
    load_checkpoint,
    quantize,
    save_checkpoint,
)
from pytest_arrowquant.checkpoints import open_checkpoint, saving
from pytest_arrowquant.checkpoints.formats import read_contents
from pytest_arrowquant.checkpoints.stored_tensor import DTYPES
from pytest_arrowquant.stored_form import taken_apart

MADE_BY = {
    "rtn": lambda w, bits: Rtn().quantize(w, bits),
    "mse": lambda w, bits: Mse().quantize(w, bits),
    "compact": lambda w, bits: COMPACT[bits].quantize(w, bits),
    "hqq": lambda w, bits: Hqq().quantize(w, bits),
    "integer zero": lambda w, bits: quantize(w, Scheme(bits, "integer", 32)),
    "channel": lambda w, bits: quantize(w, Scheme(bits, "none", "channel")),
    "tensor": lambda w, bits: quantize(w, Scheme(bits, "float", "tensor")),
    "r2q": lambda w, bits: R2q().quantize(w, 2),
    "r2q without mean": lambda w, bits: R2q(mean=False).quantize(w, 2),
}
SHAPES = [(8, 64), (5, 100), (3, 7, 3, 3), (1, 1), (33,), (2, 300), (0, 8), (4, 0)]
DATA = Path(__file__).parent / "data"


def drawn(shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    """Every array, and all that is said of them."""
    assert (a.scheme, a.shape, a.notes) == (b.scheme, b.shape, b.notes)
    assert a.feedback is b.feedback
    assert type(a.decoding) is type(b.decoding)
    for field in fields(a.decoding):
        one, other = getattr(a.decoding, field.name), getattr(b.decoding, field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other
    return a.codes.tobytes() == b.codes.tobytes() and a.codes.shape == b.codes.shape


def there_and_back(made: QuantizedTensor, path: Path) -> None:
    """Saved and loaded: the same codes and parameters; as an audit reads it: the same values."""
    save_checkpoint(path, {"w": made})
    (back,) = load_checkpoint(path).values()
    assert same(made, back)
    entry = read_contents(open_checkpoint(path)).entries["w"]
    weight = entry.load()
    whole = made.dequantize()
    assert weight.shape == made.shape
    assert weight.dequantize().tobytes() == whole.tobytes()
    assert weight.nbytes == made.nbytes == entry.nbytes
    assert (weight.grid.bits, weight.grid.zero) == (made.scheme.bits, made.scheme.zero)
    rows = made.layout.rows
    halves = [weight.restore(0, rows // 2), weight.restore(rows // 2, rows)]
    assert np.concatenate(halves).tobytes() == whole.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", MADE_BY)
def test_codes_come_back_bit_for_bit(tmp_path, kind, bits, shape):
    there_and_back(MADE_BY[kind](drawn(shape), bits), tmp_path / "x.safetensors")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", MADE_BY)
@pytest.mark.parametrize("file", sorted(DATA.glob("*.safetensors")), ids=lambda file: file.stem)
def test_codes_of_trained_weights_come_back_bit_for_bit(tmp_path, file, kind, bits):
    for tensor in open_checkpoint(file).quantizable[:2]:
        there_and_back(MADE_BY[kind](tensor.array, bits), tmp_path / "x.safetensors")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["none", "integer", "float"])
def test_the_file_is_as_documented(tmp_path, zero, bits):
    """Read by the safetensors library and restored by the formula, a row and a group each."""
    made = quantize(drawn((5, 36)), Scheme(bits, zero, 16))
    save_checkpoint(tmp_path / "x.safetensors", {"w": made})
    arrays = load_file(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["arrowquant"] == "1"
    assert json.loads(metadata["arrowquant.w"]) == {
        "decoding": "affine",
        "options": {},
        "scheme": {"bits": bits, "zero": zero, "group_size": 16},
        "shape": [5, 36],
        "notes": [],
        "feedback": False,
    }
    ones = np.unpackbits(arrays["w.codes"], axis=1, bitorder="little", count=36 * bits)
    codes = ones.reshape(5, 36, bits) @ (1 << np.arange(bits))
    group = np.arange(36) // 16
    scale = arrays["w.scale"][:, group]
    if zero == "float":
        restored = codes * scale.astype(np.float64) + arrays["w.minimum"][:, group]
        assert np.abs(restored - made.dequantize()).max() <= 2e-7 * np.abs(restored).max()
    else:
        point = 2 ** (bits - 1) if zero == "none" else arrays["w.zero_point"][:, group]
        restored = (codes - point).astype(np.float32) * scale
        assert np.array_equal(restored, made.dequantize())  # a negative scale times 0 is -0


def test_gptq_and_its_notes(tmp_path):
    w = drawn((8, 64))
    hessian = np.eye(64) + 0.5
    made = replace(Gptq().quantize(w, 4, hessian), notes=("a note",))
    save_checkpoint(tmp_path / "x.safetensors", {"w": made})
    assert same(made, load_checkpoint(tmp_path / "x.safetensors")["w"])


def test_the_audit_knows_whose_codes_are_fed_back(tmp_path):
    """Error feedback keeps neither the nearest code nor the order of weights."""
    tensors = {
        "nearest": Rtn().quantize(drawn((4, 8)), 4),
        "fed back": Gptq(Rtn()).quantize(drawn((4, 8)), 4, np.eye(8) + 0.5),
        "terms": R2q().quantize(drawn((4, 8)), 2),
    }
    save_checkpoint(tmp_path / "x.safetensors", tensors)
    entries = read_contents(open_checkpoint(tmp_path / "x.safetensors")).entries
    found = {name: entry.load().grid.feedback for name, entry in entries.items()}
    assert found == {"nearest": False, "fed back": True, "terms": False}


def test_arrays_stay_as_they_are_beside_it(tmp_path):
    arrays = {
        "bias": drawn(4).astype(ml_dtypes.bfloat16),
        "by column": np.asfortranarray(drawn((3, 5))),
        "every second": drawn((6, 4))[::2, ::2],
        "none": np.ones((0, 3), np.float64),
        "norm": np.ones(4, np.float16),
        "scalar": np.array(7, np.int64),
        **{f"of {dtype}": np.ones(3, dtype) for dtype in ("i1", "i2", "i4", "u1", "u8", "?")},
    }
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": Rtn().quantize(drawn((4, 8)), 4), **arrays}, {"made by": "me"})
    back = load_checkpoint(path)
    assert list(back) == [*sorted(arrays), "w"]
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()
        assert not back[name].flags.writeable
    assert open_checkpoint(path).metadata["made by"] == "me"
    contents = read_contents(open_checkpoint(path))
    assert contents.format == "arrowquant"
    assert [name for name, entry in contents.entries.items() if entry.plain] == sorted(arrays)


@pytest.mark.parametrize("name", DTYPES)
def test_an_array_of_every_type_that_is_read_is_written(tmp_path, name):
    array = np.arange(1, 7).astype(DTYPES[name])
    save_checkpoint(tmp_path / "x.safetensors", {"a": array})
    assert load_checkpoint(tmp_path / "x.safetensors")["a"].tobytes() == array.tobytes()
    assert open_checkpoint(tmp_path / "x.safetensors").tensors["a"].stored_dtype == name


MADE = Rtn().quantize(drawn((4, 8)), 4)
REFUSED = [
    ({"w": [1.0]}, {}, "tensor 'w' is of type list; expected a QuantizedTensor or a numpy array"),
    ({"w": None}, {}, "tensor 'w' is of type NoneType; expected a QuantizedTensor"),
    ({"w": np.array(["a"])}, {}, "tensor 'w' is of type ndarray of <U1; expected a QuantizedTens"),
    ({"w": np.ones(3, ">f4")}, {}, "tensor 'w' is of type ndarray of >f4; expected"),
    ({"w": np.ones(3, np.longdouble)}, {}, "tensor 'w' is of type ndarray of "),
    ({5: MADE}, {}, "a tensor is called 5; expected a text"),
    ({"__metadata__": MADE}, {}, "a tensor is called '__metadata__'; expected a text, not "),
    (
        {"w": MADE, "w.codes": np.ones(3)},
        {},
        "tensors 'w' and 'w.codes' would both be stored as 'w.codes'",
    ),
    (
        {"w.scale": np.ones(3), "w": MADE},
        {},
        "tensors 'w.scale' and 'w' would both be stored as 'w.scale'",
    ),
    ({"w": MADE}, {"arrowquant": ""}, "metadata has the key 'arrowquant', which this format keeps"),
    ({"w": MADE}, {"arrowquant.w": ""}, "metadata has the key 'arrowquant.w', which this format"),
    ({"w": MADE}, {"n": 5}, "metadata has 'n': 5; expected texts"),
    ({"w": MADE}, {5: "n"}, "metadata has 5: 'n'; expected texts"),
    (
        {"w": replace(MADE, decoding=5)},
        {},
        "tensor 'w' cannot be stored: it decodes by int; can be stored: affine, super_blocks, bi",
    ),
    (
        {"w": replace(MADE, codes=MADE.codes[:3])},
        {},
        "tensor 'w' cannot be stored: its codes is uint8 (3, 4); expected uint8 (4, 4) for Scheme(",
    ),
    (
        {"w": replace(MADE, decoding=replace(MADE.decoding, scale=np.ones((4, 1))))},
        {},
        "tensor 'w' cannot be stored: its scale is float64 (4, 1); expected float32 (4, 1) for Sch",
    ),
    (
        {"w": replace(MADE, scheme=Scheme(4, "integer"))},
        {},
        "tensor 'w' cannot be stored: its zero_point is uint8 (0, 0); expected uint8 (4, 1) for",
    ),
]


@pytest.mark.parametrize(("tensors", "metadata", "said"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_what_cannot_be_stored(tmp_path, tensors, metadata, said):
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(tmp_path / "x.safetensors", tensors, metadata)
    assert str(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": np.ones(3)})
    before = path.read_bytes()

    def full(arrays, file, header):
        Path(file).write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(path, {"w": np.zeros(3)})
    assert str(error.value) == f"checkpoint {path} cannot be written: No space left on device"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_where_nothing_can_be_written(tmp_path):
    path = tmp_path / "no" / "x.safetensors"
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(path, {"w": np.ones(3)})
    assert str(error.value) == f"checkpoint {path} cannot be written: No such file or directory"
    with pytest.raises(CheckpointError, match="cannot be written: Is a directory"):
        save_checkpoint(tmp_path, {"w": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


def test_who_may_read_other_new_files_may_read_it(tmp_path):
    """The library makes files that only their owner can read."""
    (tmp_path / "other").touch()
    save_checkpoint(tmp_path / "x.safetensors", {"w": np.ones(3)})
    modes = {(tmp_path / name).stat().st_mode for name in ("other", "x.safetensors")}
    assert len(modes) == 1


def test_a_folder_of_several_files_is_one_checkpoint(tmp_path):
    first, second = Rtn().quantize(drawn((4, 8)), 4), R2q().quantize(drawn((4, 8)), 2)
    save_checkpoint(tmp_path / "model-00001-of-00002.safetensors", {"v": first})
    save_checkpoint(tmp_path / "model-00002-of-00002.safetensors", {"w": second, "b": np.ones(3)})
    back = load_checkpoint(tmp_path)
    assert list(back) == ["b", "v", "w"]
    assert same(back["v"], first)
    assert same(back["w"], second)


def rewritten(tmp_path, made, metadata, arrays):
    """A saved checkpoint after its header's texts or arrays were changed; None takes one away."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": made, "other": MADE})
    with safe_open(path, "numpy") as file:
        header = {**file.metadata(), **metadata}
    arrays = {**load_file(path), **arrays}
    save_file(
        {name: array for name, array in arrays.items() if array is not None},
        path,
        {key: text for key, text in header.items() if text is not None},
    )
    return path


def described(made=MADE, without=(), **values):
    """The description of a tensor, changed."""
    said = {**taken_apart(made)[0], **values}
    return {"arrowquant.w": json.dumps({k: v for k, v in said.items() if k not in without})}


SCHEME = {"bits": 4, "zero": "none", "group_size": 64}
TERMS = R2q().quantize(drawn((4, 8)), 2)
BLOCKS = COMPACT[4].quantize(drawn((4, 8)), 4)
DAMAGED = [
    (MADE, {"arrowquant.w": "{"}, {}, "tensor 'w': Expecting property name"),
    (MADE, {"arrowquant.w": "[" * 100_000}, {}, "tensor 'w': maximum recursion depth"),
    (MADE, {"arrowquant.w": "5"}, {}, "tensor 'w': it is described as 5"),
    (MADE, described(without=["shape"]), {}, "tensor 'w': it is described without 'shape'"),
    (
        MADE,
        described(decoding="x"),
        {},
        "tensor 'w': it is described wrongly: decoding is 'x'; known are affine, super_blocks, bin",
    ),
    (MADE, described(decoding=[]), {}, "tensor 'w': it is described wrongly: unhashable type"),
    (MADE, described(shape="48"), {}, "tensor 'w': it is described wrongly: shape is '48' and no"),
    (MADE, described(shape=[4.0, 8]), {}, "tensor 'w': it is described wrongly: shape is [4.0, 8]"),
    (MADE, described(shape=[-4, -8]), {}, "tensor 'w': it is described wrongly: shape is [-4, -8]"),
    (MADE, described(notes=[1]), {}, "tensor 'w': it is described wrongly: shape is [4, 8] and "),
    (MADE, described(without=["feedback"]), {}, "tensor 'w': it is described without 'feedback'"),
    (MADE, described(feedback=1), {}, "tensor 'w': it is described wrongly: feedback is 1; expect"),
    (MADE, described(scheme=4), {}, "tensor 'w': it is described wrongly: "),
    (
        MADE,
        described(scheme={**SCHEME, "bits": 3}),
        {},
        "tensor 'w': it is described wrongly: bits=3 is not one of 2, 4, 8",
    ),
    (
        MADE,
        described(scheme={**SCHEME, "bits": 8}),
        {},
        "tensor 'w.codes' is U8 (4, 4); expected U8 (4, 8) as 'w' is described",
    ),
    (
        MADE,
        described(shape=[2**50, 8]),
        {},
        "tensor 'w.codes' is U8 (4, 4); expected U8 (1125899906842624, 4) as 'w' is described",
    ),
    (
        MADE,
        described(scheme={**SCHEME, "zero": "float"}),
        {},
        "tensor 'w': 'w.minimum' is not there",
    ),
    (MADE, {}, {"w.scale": None}, "tensor 'w': 'w.scale' is not there"),
    (
        MADE,
        {},
        {"w.scale": np.ones((4, 2), np.float32)},
        "tensor 'w.scale' is F32 (4, 2); expected F32 (4, 1) as 'w' is described",
    ),
    (
        MADE,
        {},
        {"w.scale": np.ones((4, 1), np.float16)},
        "tensor 'w.scale' is F16 (4, 1); expected F32 (4, 1) as 'w' is described",
    ),
    (
        TERMS,
        described(TERMS, scheme={**SCHEME, "zero": "float"}, shape=[4, 4]),
        {},
        "tensor 'w': it is described wrongly: binary terms have 2 bits and no integer zero point, ",
    ),
    (
        BLOCKS,
        described(BLOCKS, scheme=SCHEME),
        {},
        "tensor 'w': it is described wrongly: zero='none' in super-blocks; expected 'float'",
    ),
    (BLOCKS, described(BLOCKS, options={}), {}, "tensor 'w': it is described without 'scale_bits'"),
    (
        BLOCKS,
        described(BLOCKS, options={"scale_bits": 5, "groups": 8}),
        {},
        "tensor 'w': it is described wrongly: scale_bits=5 is not one of 4, 6, 8",
    ),
    (
        BLOCKS,
        {},
        {"w.offsets": np.ones(7, np.int16)},
        "tensor 'w.offsets' is I16 (7,); expected I16 (1,) as 'w' is described",
    ),
]


@pytest.mark.parametrize(
    ("made", "metadata", "arrays", "said"), DAMAGED, ids=[case[3][:60] for case in DAMAGED]
)
def test_a_damaged_tensor_is_named_and_fails_alone(tmp_path, made, metadata, arrays, said):
    path = rewritten(tmp_path, made, metadata, arrays)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert said in str(error.value)
    assert "x.safetensors" in str(error.value)
    contents = read_contents(open_checkpoint(path))
    assert list(contents.entries) == ["other", "w"]
    with pytest.raises(CheckpointError) as failed:
        contents.entries["w"].load()
    assert str(failed.value) == str(error.value)
    assert contents.entries["other"].load().dequantize().tobytes() == MADE.dequantize().tobytes()


def test_a_tensor_of_which_nothing_is_there(tmp_path):
    path = rewritten(tmp_path, MADE, {}, {"w.codes": None, "w.scale": None})
    with pytest.raises(CheckpointError, match=r"tensor 'w': 'w\.codes' is not there"):
        read_contents(open_checkpoint(path))


def test_another_file_and_another_version_are_refused(tmp_path):
    save_file({"w": np.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"was it written by save_checkpoint\(\)\?"):
        load_checkpoint(tmp_path / "x.safetensors")
    save_file({"w": np.ones(3)}, tmp_path / "x.safetensors", {"arrowquant": "2"})
    for refuse in (load_checkpoint, lambda path: read_contents(open_checkpoint(path))):
        with pytest.raises(CheckpointError, match="is of version '2' of this format; read is '1'"):
            refuse(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", ["mse", "compact", "r2q", "tensor"])
def test_rows_are_restored_alone(tmp_path, kind):
    """The first of many rows takes memory for a few, not for all."""
    made = MADE_BY[kind](drawn((2048, 512)), 2)
    save_checkpoint(tmp_path / "x.safetensors", {"w": made})
    weight = read_contents(open_checkpoint(tmp_path / "x.safetensors")).entries["w"].load()
    assert in_blocks(weight, 17).tobytes() == made.dequantize().tobytes()
    tracemalloc.start()
    try:
        found = weight.restore(1000, 1004)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.tobytes() == made.dequantize()[1000:1004].tobytes()
    assert peak < 10 * found.nbytes
