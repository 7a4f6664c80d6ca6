"""ModelOpt checkpoints: what its tensors' own dequantize gives, bit for bit, and damaged ones."""

import json
from dataclasses import replace

import ml_dtypes
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
from pytest_arrowquant.checkpoints.formats import modelopt

LAYER = "model.layers.0"
Q, OUT, DOWN = f"{LAYER}.self_attn.q_proj", f"{LAYER}.self_attn.o_proj", f"{LAYER}.mlp.down_proj"
FP8 = GOLDEN / "modelopt" / "fp8-kv-cache"
CHANNEL = GOLDEN / "modelopt" / "fp8-channel"
NVFP4 = GOLDEN / "modelopt" / "nvfp4"
AWQ = GOLDEN / "modelopt" / "nvfp4-awq"
MIXED = GOLDEN / "modelopt" / "fp8-attention-nvfp4-mlp"


@pytest.mark.parametrize("folder", cases("modelopt"), ids=lambda folder: folder.name)
def test_values_are_those_of_modelopt(folder):
    checkpoint = opened(folder)
    assert modelopt.claims(checkpoint)
    contents = modelopt.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 3).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
    left = {name for name, entry in contents.entries.items() if entry.plain}
    assert left == original(folder).keys() - wanted.keys()


def test_grids():
    def grids(folder):
        return {name: weight.grid for name, weight in loaded(modelopt.read(opened(folder)))}

    fp8, fp4 = grids(MIXED)[f"{Q}.weight"], grids(MIXED)[f"{DOWN}.weight"]
    assert (fp8.bits, fp8.group_size, len(fp8.table)) == (8, "tensor", 256)
    assert (fp4.bits, fp4.group_size, fp4.table[:8]) == (4, 16, (0, 0.5, 1, 1.5, 2, 3, 4, 6))
    assert grids(CHANNEL)[f"{Q}.weight"].group_size == "channel"
    folded = grids(AWQ)[f"{OUT}.weight"]
    assert (folded.bits, folded.group_size, folded.feedback) == (4, None, True)


def test_what_is_neither_weight_nor_scale_is_a_companion():
    names = {tensor.name for tensor in modelopt.read(opened(FP8)).companions}
    modules = [f"{LAYER}.self_attn.{kind}_proj" for kind in "qkvo"]
    modules += [f"{LAYER}.mlp.{kind}_proj" for kind in ("gate", "up", "down")]
    attention = {f"{LAYER}.self_attn.k_proj.k_scale", f"{LAYER}.self_attn.v_proj.v_scale"}
    assert names == {f"{module}.input_scale" for module in modules} | attention


def test_a_scale_of_the_inputs_is_multiplied_into_the_columns():
    """AWQ divides them by it: only so does the output projection resemble the original."""
    checkpoint, before = opened(AWQ), original(AWQ)[f"{OUT}.weight"]
    scale = checkpoint.tensors[f"{OUT}.pre_quant_scale"].array.astype(np.float32)
    assert scale.max() > 1.2 * scale.min()
    unscaled = modelopt.read(without(checkpoint, f"{OUT}.pre_quant_scale"))
    restored = only(modelopt.read(checkpoint), f"{OUT}.weight").dequantize()
    assert cosine(restored, before) > 0.99
    assert cosine(restored, before) > cosine(only(unscaled, f"{OUT}.weight").dequantize(), before)


@pytest.mark.parametrize("folder", [FP8, CHANNEL, NVFP4, MIXED], ids=lambda folder: folder.name)
def test_what_was_restored_resembles_the_original(folder):
    before = original(folder)
    for name, weight in loaded(modelopt.read(opened(folder))):
        least = {4: 0.99, 8: 0.999}[weight.grid.bits]
        assert cosine(weight.dequantize(), before[name]) > least


def test_what_stays_as_it_is():
    contents = modelopt.read(opened(NVFP4))
    assert [exemption.text for exemption in contents.exempt] == ["lm_head", "model.embed_tokens"]
    assert contents.settings == {"quant_algo": "NVFP4"}
    said = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["model.layers.*.mlp*"]}
    (exemption,) = modelopt.read(replace(opened(NVFP4), quantization=said)).exempt
    assert exemption.covers("model.layers.3.mlp.up_proj")
    assert not exemption.covers("model.layers.3.self_attn.q_proj")
    assert modelopt.read(opened(MIXED)).exempt is None


@pytest.mark.parametrize("folder", cases("modelopt"), ids=lambda folder: folder.name)
def test_hf_quant_config_says_the_same(folder):
    """As if config.json had lost its part: the other file has the same one level down."""
    said = json.loads((folder / "hf_quant_config.json").read_text())
    checkpoint = replace(opened(folder), quantization=said)
    assert modelopt.claims(checkpoint)
    here, there = modelopt.read(checkpoint), modelopt.read(opened(folder))
    assert here.settings == there.settings
    assert {name for name, _ in loaded(here)} == {name for name, _ in loaded(there)}
    texts = [None if c.exempt is None else [e.text for e in c.exempt] for c in (here, there)]
    assert texts[0] == texts[1]


def test_claims_without_a_config():
    """NVFP4 by its scales of two levels; FP8 looks like that of others, who read it alike."""
    assert modelopt.claims(replace(opened(NVFP4), quantization={}))
    assert not modelopt.claims(replace(opened(FP8), quantization={}))
    other = {"quant_method": "compressed-tensors"}
    assert not modelopt.claims(replace(opened(NVFP4), quantization=other))
    contents = modelopt.read(replace(opened(NVFP4), quantization={}))
    assert contents.exempt is None
    for name, weight in loaded(contents):
        assert same_bits(weight.dequantize(), expected(NVFP4)[name])


@pytest.mark.parametrize(
    ("folder", "lost", "message"),
    [
        (FP8, "weight_scale", f"'{Q}' has no 'weight_scale', only weight"),
        (NVFP4, "weight_scale", f"'{Q}' has no 'weight_scale', only weight, weight_scale_2"),
        (NVFP4, "weight_scale_2", f"'{Q}' has no 'weight_scale_2', only weight, weight_scale"),
        (NVFP4, "weight", f"'{Q}' has no 'weight', only weight_scale, weight_scale_2"),
    ],
)
def test_a_part_is_lost(folder, lost, message):
    contents = modelopt.read(without(opened(folder), f"{Q}.{lost}"))
    with pytest.raises(CheckpointError, match=message):
        only(contents, f"{Q}.weight")
    assert only(contents, f"{OUT}.weight").shape == (16, 16)


E4M3 = ml_dtypes.float8_e4m3fn


@pytest.mark.parametrize(
    ("folder", "part", "array", "message"),
    [
        (FP8, "weight_scale", np.ones(3, np.float32), r"\(3,\); expected \(\) or \(16,\) for"),
        (FP8, "weight_scale", np.ones((), np.float16), r"F16 \(\); expected F32 \(\) for"),
        (CHANNEL, "weight_scale", np.ones(16, np.int8), r"I8 \(16,\); expected F32 \(16,\)"),
        (FP8, "weight", np.ones((16, 16), np.int8), r"I8 \(16, 16\); expected F8_E4M3 of 2 dim"),
        (NVFP4, "weight", np.ones((16, 16), E4M3), r"F8_E4M3 \(16, 16\); expected U8 of 2 dim"),
        (NVFP4, "weight", np.ones((2, 8, 8), np.uint8), r"U8 \(2, 8, 8\); expected U8 of 2 dimen"),
        (NVFP4, "weight_scale", np.ones((16, 2), E4M3), r"\(16, 2\); expected F8_E4M3 \(16, 1\)"),
        (NVFP4, "weight_scale_2", np.ones(16, np.float32), r"F32 \(16,\); expected F32 \(\)"),
        (AWQ, "pre_quant_scale", np.ones(8, np.float32), r"F32 \(8,\); expected F32 or .* \(16,\)"),
    ],
)  # fmt: skip
def test_a_part_is_of_a_wrong_shape_or_type(folder, part, array, message):
    damaged = changed(opened(folder), **{f"{Q}.{part}": array})
    with pytest.raises(CheckpointError, match=message) as error:
        only(modelopt.read(damaged), f"{Q}.weight")
    assert f"changed: tensor '{Q}.{part}'" in str(error.value)


@pytest.mark.parametrize(
    ("folder", "algorithm", "message"),
    [
        (FP8, "NVFP4", "F8_E4M3 (16, 16); expected U8 of 2 dimensions for quant_algo 'NVFP4'"),
        (NVFP4, "FP8", "U8 (16, 8); expected F8_E4M3 of 2 dimensions for quant_algo 'FP8'"),
        (NVFP4, "W4A16_AWQ", "of quant_algo 'W4A16_AWQ'; read are FP8, FP8_PER_CHANNEL_PER_TOKEN"),
        (NVFP4, "NVFP4_SVD", "of quant_algo 'NVFP4_SVD'; read are FP8, FP8_PER_CHANNEL_PER_TOKEN"),
    ],
)
def test_a_config_that_the_tensors_belie(folder, algorithm, message):
    said = {"quant_method": "modelopt", "quant_algo": algorithm}
    with pytest.raises(CheckpointError) as error:
        only(modelopt.read(replace(opened(folder), quantization=said)), f"{Q}.weight")
    assert message in str(error.value)


def test_a_group_size_that_the_scales_belie():
    said = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}
    contents = modelopt.read(replace(opened(NVFP4), quantization=said))
    with pytest.raises(
        CheckpointError, match=r"\(16, 2\); expected F8_E4M3 \(16, 1\) for groups of 32"
    ):
        only(contents, f"{DOWN}.weight")


def test_one_layer_of_a_mixture_may_belie_it():
    said = {**opened(MIXED).quantization}
    said["quantized_layers"] = {**said["quantized_layers"], Q: {"quant_algo": "NVFP4"}}
    contents = modelopt.read(replace(opened(MIXED), quantization=said))
    with pytest.raises(
        CheckpointError, match=r"expected U8 of 2 dimensions for quant_algo 'NVFP4'"
    ):
        only(contents, f"{Q}.weight")
    assert only(contents, f"{OUT}.weight").grid.bits == 8
