"""This project's own checkpoints: what the quantizers make, codes and all, bit for bit."""

import json
from dataclasses import fields, replace

import ml_dtypes
import numpy as np
import pytest
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
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.checkpoints.formats import read_contents

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
SHAPES = [(8, 64), (5, 100), (3, 7, 3, 3), (1, 1), (33,), (2, 300)]


def drawn(shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    """Every array, and all that is said of them."""
    assert (a.scheme, a.shape, a.notes) == (b.scheme, b.shape, b.notes)
    assert type(a.decoding) is type(b.decoding)
    for field in fields(a.decoding):
        one, other = getattr(a.decoding, field.name), getattr(b.decoding, field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other
    return a.codes.tobytes() == b.codes.tobytes() and a.codes.shape == b.codes.shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", MADE_BY)
def test_codes_come_back_bit_for_bit(tmp_path, kind, bits, shape):
    made = MADE_BY[kind](drawn(shape), bits)
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": made})
    (back,) = load_checkpoint(path).values()
    assert same(made, back)
    entry = read_contents(open_checkpoint(path)).entries["w"]
    weight = entry.load()
    whole = made.dequantize()
    assert weight.dequantize().tobytes() == whole.tobytes()
    assert weight.nbytes == made.nbytes == entry.nbytes
    assert (weight.grid.bits, weight.grid.zero) == (made.scheme.bits, made.scheme.zero)
    rows = made.layout.rows
    assert np.concatenate(
        [weight.restore(0, rows // 2), weight.restore(rows // 2, rows)]
    ).tobytes() == (whole.tobytes())


def test_gptq_and_its_notes(tmp_path):
    w = drawn((8, 64))
    hessian = np.eye(64) + 0.5
    made = replace(Gptq().quantize(w, 4, hessian), notes=("a note",))
    save_checkpoint(tmp_path / "x.safetensors", {"w": made})
    assert same(made, load_checkpoint(tmp_path / "x.safetensors")["w"])


def test_arrays_stay_as_they_are_beside_it(tmp_path):
    arrays = {
        "norm": np.ones(4, np.float16),
        "bias": drawn(4).astype(ml_dtypes.bfloat16),
        "ids": np.arange(3),
    }
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": Rtn().quantize(drawn((4, 8)), 4), **arrays}, {"made by": "me"})
    back = load_checkpoint(path)
    assert list(back) == ["w", "bias", "ids", "norm"]
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()
    assert open_checkpoint(path).metadata["made by"] == "me"
    contents = read_contents(open_checkpoint(path))
    assert contents.format == "arrowquant"
    assert [name for name, entry in contents.entries.items() if entry.plain] == list(back)[1:]


def test_what_cannot_be_stored(tmp_path):
    path = tmp_path / "x.safetensors"
    made = Rtn().quantize(drawn((4, 8)), 4)
    with pytest.raises(CheckpointError, match=r"tensor 'w' is a <class 'list'>; expected a Quant"):
        save_checkpoint(path, {"w": [1.0]})
    with pytest.raises(CheckpointError, match=r"tensor 'w' is a array of <U1; expected a Quant"):
        save_checkpoint(path, {"w": np.array(["a"])})
    with pytest.raises(CheckpointError, match=r"tensor 'w.codes' .*there are two 'w.codes'"):
        save_checkpoint(path, {"w": made, "w.codes": np.ones(3)})
    with pytest.raises(CheckpointError, match="metadata has the key 'arrowquant'"):
        save_checkpoint(path, {"w": made}, {"arrowquant": ""})
    with pytest.raises(CheckpointError, match=r"it decodes by int; can be stored: affine, super"):
        save_checkpoint(path, {"w": replace(made, decoding=5)})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": np.ones(3)})
    before = path.read_bytes()
    with pytest.raises(CheckpointError):
        save_checkpoint(path, {"w": None})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def rewritten(tmp_path, change, arrays=None):
    """A saved checkpoint after its description or arrays were changed."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": Rtn().quantize(drawn((4, 8)), 4)})
    said = json.loads(open_checkpoint(path).metadata["arrowquant"])
    change(said)
    kept = {**load_file(path), **(arrays or {})}
    save_file(
        {name: array for name, array in kept.items() if array is not None},
        path,
        {"arrowquant": json.dumps(said)},
    )
    return path


def of_w(**values):
    return lambda said: said["tensors"]["w"].update(values)


@pytest.mark.parametrize(
    ("change", "arrays", "message"),
    [
        (of_w(bits=3), {}, r"tensor 'w' cannot be read: .*bits=3 is not one of 2, 4, 8"),
        (of_w(decoding="x"), {}, r"tensor 'w' cannot be read: it decodes by 'x'; known are affine"),
        (of_w(bits=8), {}, r"its codes is uint8 \(4, 4\); expected uint8 \(4, 8\) for Scheme"),
        (of_w(shape=["a"]), {}, r"tensor 'w' cannot be read: it is described as"),
        (of_w(), {"w.scale": np.ones((4, 2), np.float32)}, r"its scale is float32 \(4, 2\)"),
        (of_w(), {"w.scale": None}, r"tensor 'w' has no 'w.scale' beside it"),
        (lambda said: said.update(version=2), {}, "is of version 2 of this format; read is 1"),
        (lambda said: said.pop("tensors"), {}, "was it written by save_checkpoint"),
    ],
)
def test_a_damaged_checkpoint_names_the_tensor(tmp_path, change, arrays, message):
    path = rewritten(tmp_path, change, arrays)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_another_file_is_refused(tmp_path):
    save_file({"w": np.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"was it written by save_checkpoint\(\)\?"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_rows_are_restored_alone(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", {"w": Mse().quantize(drawn((64, 128)), 2)})
    weight = read_contents(open_checkpoint(tmp_path / "x.safetensors")).entries["w"].load()
    assert in_blocks(weight, 17).tobytes() == weight.dequantize().tobytes()
