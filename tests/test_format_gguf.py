"""GGUF files: what ggml's own code restores, bit for bit; their container, whole and damaged."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from format_cases import (
    GOLDEN,
    cases,
    cosine,
    expected,
    in_blocks,
    loaded,
    only,
    opened,
    original,
    same_bits,
)
from pytest_arrowquant import CheckpointError
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.checkpoints.formats import gguf as format_gguf
from pytest_arrowquant.checkpoints.gguf_file import LONGEST

LLAMA = GOLDEN / "gguf" / "llama-q4_k_m"
SPLIT = GOLDEN / "gguf" / "split"
STORED_AS_THEY_ARE = {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"}
NOT_RESTORED = {"Q8_1", "Q8_K", "Q1_0"}

LEAST = {1: 0.75, 2: 0.9, 3: 0.96, 4: 0.98, 5: 0.99, 6: 0.999, 8: 0.9999}  # cosine, by width


@pytest.mark.parametrize("folder", cases("gguf"), ids=lambda folder: folder.name)
def test_values_are_those_of_ggml(folder):
    checkpoint = opened(folder)
    assert format_gguf.claims(checkpoint)
    contents = format_gguf.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 1).tobytes() == weight.dequantize().tobytes()
        assert weight.restore(1, 1).shape == (0, weight.shape[1])
        assert weight.codes(0, 1) is None
        assert weight.nbytes == contents.entries[name].nbytes


def test_every_type_that_gguf_restores_is_in_a_golden_file():
    restored = {kind.name for kind in gguf.quants._type_traits} - STORED_AS_THEY_ARE
    golden = {
        tensor.stored_dtype
        for folder in cases("gguf")
        for tensor in opened(folder).tensors.values()
    }
    assert restored == format_gguf.GRIDS.keys() == golden - STORED_AS_THEY_ARE
    assert {kind.name for kind in Type} - restored - STORED_AS_THEY_ARE == NOT_RESTORED


@pytest.mark.parametrize("case", ["q4-q5-q8", "k-quants", "i-quants", "mxfp4-nvfp4", "ternary"])
def test_widths_are_those_of_the_types(case):
    """Bits that are stored for a weight: the width, and at most 1.5 more for scales."""
    folder = GOLDEN / "gguf" / case
    checkpoint, before = opened(folder), original(folder)
    for name, weight in loaded(format_gguf.read(checkpoint)):
        kind = checkpoint.tensors[name].stored_dtype
        bits = weight.nbytes * 8 / np.prod(weight.shape)
        assert weight.grid.bits - 0.4 <= bits <= weight.grid.bits + 1.5
        source = before[f"model.layers.{name.split('.')[1]}.mlp.down_proj.weight"]
        least = 0.9999 if kind.startswith("TQ") else LEAST[weight.grid.bits]  # ternary as they were
        assert cosine(weight.dequantize(), source) > least
        if isinstance(size := weight.grid.group_size, int):
            groups = weight.dequantize().reshape(-1, size)
            assert max(len(np.unique(group)) for group in groups) <= 2**weight.grid.bits


def test_iq4_values_are_those_of_the_table():
    folder = GOLDEN / "gguf" / "i-quants"
    checkpoint = opened(folder)
    stored = checkpoint.tensors["blk.7.ffn_down.weight"]
    assert stored.stored_dtype == "IQ4_NL"
    weight = only(format_gguf.read(checkpoint), stored.name)
    blocks = stored.raw.reshape(-1, 18)  # a float16 scale and 32 nibbles
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    values = weight.dequantize().reshape(-1, 32)
    table = np.float32(weight.grid.table)
    assert np.isin(values, table * scales).all()
    assert len(np.unique(np.rint(values / scales))) == len(table) == 16


def test_names_plain_tensors_and_metadata_are_those_of_the_file():
    checkpoint, before = opened(LLAMA), original(LLAMA)
    contents = format_gguf.read(checkpoint)
    assert contents.settings == {"types": {"Q4_K": 2, "Q6_K": 2}}
    assert contents.companions == ()
    assert contents.exempt is None
    norm = checkpoint.tensors["blk.0.attn_norm.weight"]
    assert norm.stored_dtype == "F32"
    assert np.array_equal(norm.array, before["model.layers.0.input_layernorm.weight"])
    value = checkpoint.tensors["blk.0.attn_v.weight"]
    assert (value.stored_dtype, value.shape) == ("F16", (2, 256))
    source = before["model.layers.0.self_attn.v_proj.weight"].astype(np.float16)
    assert np.array_equal(value.array, source)
    said = checkpoint.metadata
    assert said["general.architecture"] == "llama"
    assert said["GGUF.version"] == "3"
    assert json.loads(said["llama.attention.head_count"]) == 2
    assert json.loads(said["tokenizer.ggml.tokens"]) == ["<s>", "</s>", "der", "die"]


def test_queries_come_back_in_the_converters_order():
    restored = only(format_gguf.read(opened(LLAMA)), "blk.0.attn_q.weight").dequantize()
    before = original(LLAMA)["model.layers.0.self_attn.q_proj.weight"].astype(np.float32)
    interleaved = before.reshape(2, 2, 2, 256).swapaxes(1, 2).reshape(8, 256)
    assert cosine(restored, interleaved) > 0.99
    assert cosine(restored, before) < 0.9


def test_stacked_experts_are_rows_one_after_the_other():
    folder = GOLDEN / "gguf" / "mixtral-q4_k-experts"
    before = original(folder)
    stack = only(format_gguf.read(opened(folder)), "blk.0.ffn_down_exps.weight")
    assert stack.shape == (6, 96)
    for expert in range(2):
        own = before[f"model.layers.0.block_sparse_moe.experts.{expert}.w2.weight"]
        assert cosine(stack.restore(3 * expert, 3 * expert + 3), own) > 0.999


def test_a_scale_beside_a_weight_is_part_of_it():
    folder = GOLDEN / "gguf" / "nvfp4-scale"
    contents = format_gguf.read(opened(folder))
    entry = contents.entries["blk.0.ffn_up_exps.weight"]
    assert sorted(part.name for part in entry.parts.values()) == [
        "blk.0.ffn_up_exps.scale",
        "blk.0.ffn_up_exps.weight",
    ]
    assert [tensor.name for tensor in contents.companions] == [
        "blk.0.ffn_down.input_scale",
        "blk.0.ffn_up_exps.input_scale",
    ]
    before = original(folder)
    second = before["model.layers.0.block_sparse_moe.experts.1.w3.weight"].astype(np.float32)
    rows = entry.load().restore(3, 6)
    assert cosine(rows, second) > 0.99
    assert abs(np.abs(rows).max() / np.abs(second).max() - 1) < 0.1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_file_of_a_series_opens_all(number):
    checkpoint = open_checkpoint(SPLIT / f"model-0000{number}-of-00003.gguf")
    assert [t.source for t in checkpoint.tensors.values()] == [
        f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)
    ]
    assert checkpoint.metadata["general.architecture"] == "llama"


# damaged and unusual files


def written(path: Path, tensors=(), version: int = 3, raw_dtype=None, **values) -> Path:
    """A file of gguf's writer: tensors by name, values by key (`__` for a dot)."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in values.items():
        writer.add_key_value(key.replace("__", "."), *value)
    for name, array in dict(tensors).items():
        writer.add_tensor(name, array, raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = path.read_bytes()
    path.write_bytes(content[:4] + version.to_bytes(4, "little") + content[8:])
    return path


PAIR = {"a": np.ones((2, 4), np.float32), "b": np.ones((3, 4), np.float32)}


def test_a_long_array_is_left_out_and_a_short_one_kept(tmp_path):
    kind, of = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32
    path = written(
        tmp_path / "x.gguf",
        PAIR,
        x__long=([1] * (LONGEST + 1), kind, of),
        x__short=([1, -2], kind, of),
        x__truth=(True, gguf.GGUFValueType.BOOL),
        x__half=(0.5, gguf.GGUFValueType.FLOAT64),
    )
    said = open_checkpoint(path).metadata
    assert "x.long" not in said
    assert (said["x.short"], said["x.truth"], said["x.half"]) == ("[1, -2]", "true", "0.5")


def test_version_2_is_read_and_others_are_not(tmp_path):
    assert open_checkpoint(written(tmp_path / "2.gguf", PAIR, 2)).tensors.keys() == PAIR.keys()
    with pytest.raises(CheckpointError, match=r"1\.gguf is of GGUF version 1; read are 2 and 3"):
        open_checkpoint(written(tmp_path / "1.gguf", PAIR, 1))


def test_a_big_endian_file_is_refused(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + bytes(16))
    with pytest.raises(CheckpointError, match="version 50331648; read are 2 and 3, little-endian"):
        open_checkpoint(path)


def test_a_type_that_gguf_does_not_restore_fails_alone(tmp_path):
    blocks = np.zeros((2, 18), np.uint8)
    path = written(tmp_path / "x.gguf", {"w": blocks}, raw_dtype=Type.Q1_0)
    with pytest.raises(CheckpointError) as error:
        only(format_gguf.read(open_checkpoint(path)), "w")
    assert str(error.value).startswith(
        "x.gguf: tensor 'w' is Q1_0, which the gguf package does not restore; it does Q4_0, Q4_1"
    )


@pytest.mark.parametrize("size", range(0, 330, 7))
def test_a_truncated_file_is_one_error_that_names_it(tmp_path, size):
    whole = written(tmp_path / "whole.gguf", PAIR).read_bytes()
    path = tmp_path / "x.gguf"
    path.write_bytes(whole[: min(size, len(whole) - 32)])
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    message = str(error.value)
    assert message.startswith(f"checkpoint {path}")
    assert "truncated" in message or "no GGUF file" in message or "is empty" in message
    assert "\n" not in message


def changed_bytes(tmp_path, old: bytes, new: bytes) -> Path:
    path = written(tmp_path / "x.gguf", PAIR)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


def info(name: str, rows: int, kind: int, offset: int) -> bytes:
    """What a header says of a tensor of 4 columns."""
    numbers = [(1, 8), (ord(name), 1), (2, 4), (4, 8), (rows, 8), (kind, 4), (offset, 8)]
    return b"".join(number.to_bytes(size, "little") for number, size in numbers)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (info("b", 3, 0, 0), "tensor 'b' at byte 0 overlaps tensor 'a', which ends at 32"),
        (info("b", 3, 0, 1 << 40), "tensor 'b' lies at bytes 1099511627776 to 1099511627824 of"),
        (info("b", 3, 0, 2**64 - 1), "tensor 'b' lies at bytes 18446744073709551615 to"),
        (info("b", 2**62, 0, 32), "tensor 'b' lies at bytes 32 to 73786976294838206496 of"),
        (info("b", 3, 99, 32), "tensor 'b' is of type 99, which the gguf package does not know"),
        (info("b", 3, 2, 32), "tensor 'b' of shape (3, 4) is Q4_0, whose rows are whole blocks"),
        (info("a", 3, 0, 32), "tensor 'a' is there twice"),
    ],
)  # fmt: skip
def test_a_header_that_is_wrong_about_a_tensor(tmp_path, new, message):
    path = changed_bytes(tmp_path, info("b", 3, 0, 32), new)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(f"checkpoint {path}")
    assert message in str(error.value)


def test_metadata_of_an_unknown_type(tmp_path):
    key = b"general.architecture"
    path = changed_bytes(tmp_path, key + bytes([8, 0, 0, 0]), key + bytes([77, 0, 0, 0]))
    with pytest.raises(CheckpointError, match=r"'general.architecture' has a value of type 77;"):
        open_checkpoint(path)


def test_a_scale_of_a_wrong_shape(tmp_path):
    blocks = gguf.quants.quantize(np.ones((2, 32), np.float32), Type.Q8_0)
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w.weight", blocks, raw_dtype=Type.Q8_0)
    writer.add_tensor("w.scale", np.ones(2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError) as error:
        only(format_gguf.read(open_checkpoint(path)), "w.weight")
    assert str(error.value) == (
        "x.gguf: tensor 'w.scale' is F32 (2,); expected F32 (1,) for 'w.weight'"
    )


def test_a_file_of_a_series_is_lost(tmp_path):
    for name in ("model-00001-of-00003.gguf", "model-00003-of-00003.gguf"):
        (tmp_path / name).write_bytes((SPLIT / name).read_bytes())
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "model-00001-of-00003.gguf")
    assert str(error.value) == (
        f"checkpoint {tmp_path / 'model-00001-of-00003.gguf'} is one of 3 files; "
        "model-00002-of-00003.gguf does not exist"
    )


def test_a_tensor_in_two_files_of_a_series(tmp_path):
    for number in (1, 2):
        written(tmp_path / f"x-0000{number}-of-00002.gguf", PAIR)
    with pytest.raises(CheckpointError, match=r"'a' is in both x-00001-of-00002\.gguf and x-00002"):
        open_checkpoint(tmp_path / "x-00002-of-00002.gguf")


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"no\.gguf does not exist; expected a \.gguf file"):
        open_checkpoint(tmp_path / "no.gguf")


def test_without_the_gguf_package_the_error_names_the_extra(monkeypatch):
    for name in ("gguf", "gguf.constants"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(LLAMA / "model.gguf")
    assert str(error.value) == (
        f"checkpoint {LLAMA / 'model.gguf'} is in GGUF, which is read with the gguf package; "
        "install pytest-arrowquant[gguf]"
    )


def test_claims_nothing_else():
    assert not format_gguf.claims(open_checkpoint(LLAMA / "original.safetensors"))
