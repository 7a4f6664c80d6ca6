"""torchao checkpoints: what its tensors' own dequantize gives, bit for bit, and damaged ones."""

import json
from dataclasses import replace

import numpy as np
import pytest

from format_cases import (
    GOLDEN,
    cases,
    changed,
    cosine,
    expected,
    in_blocks,
    loaded,
    only,
    opened,
    original,
    same_bits,
    without,
)
from pytest_arrowquant import CheckpointError
from pytest_arrowquant.checkpoints.formats import torchao

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
INTX = GOLDEN / "torchao" / "intx-int4-g32-asym-f32"
INT4 = GOLDEN / "torchao" / "int4-plain-g32"
NVFP4 = GOLDEN / "torchao" / "nvfp4-swizzled"
MX = GOLDEN / "torchao" / "mxfp8-mxfp4"
FLOAT8 = GOLDEN / "torchao" / "float8-tensor-block"

GRIDS = {  # bits, zero and groups of the query, then of the down projection
    "float8-row-e5m2-row": [(8, "none", "channel"), (8, "none", "channel")],
    "float8-tensor-block": [(8, "none", "tensor"), (8, "none", None)],
    "int4-plain-g32": [(4, "float", 32), (4, "float", 32)],
    "int8-g32-tensor": [(8, "none", 32), (8, "none", "tensor")],
    "int8-row": [(8, "none", "channel"), (8, "none", "channel")],
    "intx-int2-g32-asym-int6-channel-f16": [(2, "integer", 32), (6, "none", "channel")],
    "intx-int4-g32-asym-f32": [(4, "integer", 32), (4, "integer", 32)],
    "intx-int4-g32-sym": [(4, "none", 32), (4, "none", 32)],
    "mxfp4-swizzled": [(4, "none", "channel"), (4, "none", 32)],
    "mxfp8-mxfp4": [(8, "none", 32), (4, "none", 32)],
    "nvfp4-swizzled": [(4, "none", "channel"), (4, "none", 16)],
}


def said(checkpoint, name: str, **attributes):
    """The checkpoint after its metadata says otherwise of one tensor; `_type` as `kind`."""
    described = json.loads(checkpoint.metadata[name])
    described["_type"] = attributes.pop("kind", described["_type"])
    described["_data"] |= attributes
    return replace(checkpoint, metadata={**checkpoint.metadata, name: json.dumps(described)})


@pytest.mark.parametrize("folder", cases("torchao"), ids=lambda folder: folder.name)
def test_values_are_those_of_torchao(folder):
    """Bit for bit in the original's type; Int4Tensor too, whose reference adds in another order."""
    checkpoint = opened(folder)
    assert torchao.claims(checkpoint)
    contents = torchao.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
    plain = [name for name, entry in contents.entries.items() if entry.plain]
    assert plain == ["model.layers.0.self_attn.q_proj.bias", "model.norm.weight"]
    assert contents.companions == ()
    grids = [weights[f"{module}.weight"].grid for module in (Q, DOWN)]
    assert [(grid.bits, grid.zero, grid.group_size) for grid in grids] == GRIDS[folder.name]


def test_every_case_has_its_grid():
    assert {folder.name for folder in cases("torchao")} == GRIDS.keys()


def test_settings_count_the_types():
    assert torchao.read(opened(MX)).settings == {"types": {"MXTensor": 2}}


def test_claims_by_metadata():
    checkpoint = opened(INTX)
    assert not torchao.claims(replace(checkpoint, metadata={"format": "pt"}))
    plain = {"tensor_names": "[]", "w": '{"_type": "Tensor"}'}
    assert not torchao.claims(replace(checkpoint, metadata=plain))


def test_codes_are_counted_from_zero_within_their_width():
    codes = only(torchao.read(opened(INTX)), f"{Q}.weight").codes(0, 8)
    assert (codes.values.min(), codes.values.max()) == (0, 15)
    codes = only(torchao.read(opened(INT4)), f"{Q}.weight").codes(0, 8)
    assert (codes.values.min(), codes.values.max()) == (0, 15)
    assert (codes.zero == 8).all()


def test_codes_beyond_the_width_that_is_said_show():
    checkpoint = said(opened(INTX), f"{Q}.weight", target_dtype={"_data": "int2"})
    weight = only(torchao.read(checkpoint), f"{Q}.weight")
    assert weight.grid.bits == 2
    assert weight.codes(0, 8).values.max() > 3


def test_a_scale_of_the_inputs_multiplies_the_columns():
    scale = np.linspace(0.5, 2, 64, dtype=np.float32)
    key = f"{Q}._weight_act_pre_scale"
    checkpoint = changed(opened(INT4), **{key: scale})
    described = json.loads(checkpoint.metadata[f"{Q}.weight"])
    described["_tensor_data_names"].append("act_pre_scale")
    metadata = {**checkpoint.metadata, f"{Q}.weight": json.dumps(described)}
    checkpoint = replace(checkpoint, metadata=metadata)
    weight = only(torchao.read(checkpoint), f"{Q}.weight")
    plain = only(torchao.read(opened(INT4)), f"{Q}.weight")
    assert np.allclose(weight.dequantize(), plain.dequantize() * scale, rtol=2e-7, atol=1e-8)
    assert (weight.grid.group_size, weight.grid.feedback) == (None, True)
    checkpoint = changed(checkpoint, **{key: scale[1:]})
    with pytest.raises(CheckpointError, match=r"act_pre_scale' is of shape \(63,\); expected 64"):
        only(torchao.read(checkpoint), f"{Q}.weight")


def test_scales_of_activations_are_companions():
    key = f"{Q}._weight_act_quant_scale"
    checkpoint = changed(opened(INT4), **{key: np.ones(1, np.float32)})
    described = json.loads(checkpoint.metadata[f"{Q}.weight"])
    described["_tensor_data_names"].insert(0, "act_quant_scale")
    metadata = {**checkpoint.metadata, f"{Q}.weight": json.dumps(described)}
    contents = torchao.read(replace(checkpoint, metadata=metadata))
    assert [tensor.name for tensor in contents.companions] == [key]
    assert same_bits(only(contents, f"{Q}.weight").dequantize(), expected(INT4)[f"{Q}.weight"])


def test_stacked_experts_are_rows_one_after_the_other():
    """Two experts of the down projection's rows, as Int8Tensor and Int4Tensor keep them in 3-D."""
    folder = GOLDEN / "torchao" / "int8-g32-tensor"
    checkpoint = opened(folder)
    parts = {
        f"{Q}._weight_{role}": checkpoint.tensors[f"{Q}._weight_{role}"].array
        for role in ("qdata", "scale", "zero_point")
    }
    stacked = {key: array.reshape(2, 4, -1) for key, array in parts.items()}
    checkpoint = said(changed(checkpoint, **stacked), f"{Q}.weight", block_size=[1, 1, 32])
    weight = only(torchao.read(checkpoint), f"{Q}.weight")
    assert weight.shape == (8, 64)
    assert same_bits(weight.dequantize(), expected(folder)[f"{Q}.weight"])

    checkpoint = opened(INT4)
    stacked = {
        f"{Q}._weight_qdata": checkpoint.tensors[f"{Q}._weight_qdata"].array.reshape(2, 4, 32)
    }
    for role in ("scale", "zero_point"):  # [groups, 8] -> [2, groups, 4]
        array = checkpoint.tensors[f"{Q}._weight_{role}"].array
        stacked[f"{Q}._weight_{role}"] = array.reshape(2, 2, 4).swapaxes(0, 1)
    checkpoint = changed(checkpoint, **stacked)
    checkpoint = said(checkpoint, f"{Q}.weight", shape=[2, 4, 64], block_size=[1, 1, 32])
    weight = only(torchao.read(checkpoint), f"{Q}.weight")
    assert same_bits(weight.dequantize(), expected(INT4)[f"{Q}.weight"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "Int4TilePackedTo4dTensor",
            "which is in the order of a CUDA kernel's tiles; read are Intx",
        ),
        (
            "Int4PlainInt32Tensor",
            "which is in the order of an XPU's or NPU's kernel; read are Intx",
        ),
        ("UintxTensor", "which is not known; read are IntxUnpackedToInt8Tensor, Int8Tensor"),
    ],
)
def test_layouts_of_kernels_are_refused_by_name(kind, message):
    contents = torchao.read(said(opened(INT4), f"{Q}.weight", kind=kind))
    with pytest.raises(CheckpointError, match=message) as error:
        only(contents, f"{Q}.weight")
    assert f"model.safetensors: tensor '{Q}._weight_qdata' is of a {kind}" in str(error.value)
    assert only(contents, f"{DOWN}.weight").shape == (6, 96)


def test_a_part_is_lost():
    contents = torchao.read(without(opened(INTX), f"{Q}._weight_scale"))
    with pytest.raises(CheckpointError) as error:
        only(contents, f"{Q}.weight")
    assert str(error.value) == (
        f"model.safetensors: tensor '{Q}._weight_qdata' has no 'scale' beside it, which the "
        "metadata names; there are 'qdata', 'zero_point'"
    )
    lost = [f"{Q}._weight_{role}" for role in ("qdata", "scale", "zero_point")]
    assert f"{Q}.weight" not in torchao.read(without(opened(INTX), *lost)).entries


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        (
            "scale",
            np.ones((8, 3), np.float32),
            r"F32 \(8, 3\); expected F32 or BF16 or F16 \(8, 2\) for",
        ),
        (
            "zero_point",
            np.ones((2, 8), np.int8),
            r"I8 \(2, 8\); expected I8 or F32 .* \(8, 2\) for",
        ),
        (
            "scale",
            np.ones((8, 2), np.int8),
            r"I8 \(8, 2\); expected F32 or BF16 or F16 \(8, 2\) for",
        ),
        ("qdata", np.ones((8, 64), np.uint8), r"U8 \(8, 64\); expected I8 \(8, 64\)"),
        (
            "qdata",
            np.ones((8, 60), np.int8),
            r"\(8, 60\), and the metadata says block_size \[1, 32\]",
        ),
        ("qdata", np.ones(64, np.int8), r"\(64,\), and the metadata says block_size \[1, 32\]"),
    ],
)
def test_a_part_is_of_a_wrong_shape_or_type(part, array, message):
    damaged = changed(opened(INTX), **{f"{Q}._weight_{part}": array})
    with pytest.raises(CheckpointError, match=message):
        only(torchao.read(damaged), f"{Q}.weight")


@pytest.mark.parametrize(
    ("folder", "attributes", "message"),
    [
        (INTX, {"block_size": [1, 48]}, r"block_size \[1, 48\]; expected a divisor of each"),
        (INTX, {"block_size": None}, "block_size None; expected a divisor of each"),
        (INTX, {"block_size": [1, 16]}, r"expected F32 or BF16 or F16 \(8, 4\) for \(8, 64\) in"),
        (INTX, {"target_dtype": {"_data": "int9"}}, "said to be of int9; expected int1 to int8"),
        (INT4, {"shape": [2, 8, 64], "block_size": [2, 1, 32]}, "that span experts are not read"),
        (INT4, {"shape": [8, 128]}, r"expected I8 or U8 \(8, 64\) for \(8, 128\) of 4 bits"),
        (INT4, {"shape": "8x64"}, "of shape '8x64'; expected two or more whole numbers"),
        (INT4, {"block_size": [1, 16]}, r"BF16 \(2, 8\); expected .* \(4, 8\) for \(8, 64\) in"),
        (MX, {"elem_dtype": {"_data": "float6_e2m3"}}, "said to be of float6_e2m3; read are"),
        (MX, {"is_swizzled_scales": True}, r"of shape \(8, 2\); expected 512 swizzled scales"),
        (NVFP4, {"is_swizzled_scales": False}, r"F8_E4M3 \(32, 16\); expected F8_E4M3 \(48, 1\)"),
        (NVFP4, {"block_size": 32}, r"of shape \(48, 16\), and the metadata says block_size 32"),
        (FLOAT8, {"block_size": [4, 64]}, r"expected F32 \(2, 1\) for \(8, 64\) in blocks"),
    ],
)  # fmt: skip
def test_metadata_that_the_tensors_belie(folder, attributes, message):
    with pytest.raises(CheckpointError, match=message) as error:
        only(torchao.read(said(opened(folder), f"{Q}.weight", **attributes)), f"{Q}.weight")
    assert str(error.value).startswith(f"model.safetensors: tensor '{Q}._weight_")


def test_a_scale_of_the_whole_tensor_is_one():
    damaged = changed(opened(NVFP4), **{f"{Q}._weight_per_tensor_scale": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"of shape \(3,\); expected one a tensor"):
        only(torchao.read(damaged), f"{Q}.weight")


def test_metadata_that_is_no_description():
    text = '{"_type": "Int4Tensor", "_tensor_data_names": 3'
    checkpoint = opened(INT4)
    checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, f"{Q}.weight": text})
    with pytest.raises(
        CheckpointError, match=r"describes '.*q_proj.weight' as '.*'; expected a JSON"
    ):
        torchao.read(checkpoint)


@pytest.mark.parametrize("folder", cases("torchao"), ids=lambda folder: folder.name)
def test_what_was_restored_resembles_the_original(folder):
    before = original(folder)
    for name, weight in loaded(torchao.read(opened(folder))):
        least = {2: 0.85, 4: 0.98}.get(weight.grid.bits, 0.998)
        assert cosine(weight.dequantize(), before[name]) > least
