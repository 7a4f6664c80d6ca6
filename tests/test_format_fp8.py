"""FP8 checkpoints: what transformers restores from them, bit for bit, and damaged ones."""

from dataclasses import replace

import numpy as np
import pytest

from format_cases import (
    GOLDEN,
    cases,
    changed,
    expected,
    in_blocks,
    loaded,
    only,
    opened,
    same_bits,
    without,
)
from pytest_arrowquant import CheckpointError
from pytest_arrowquant.checkpoints import StoredTensor
from pytest_arrowquant.checkpoints.formats import fp8, read_contents

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
QUERY = "model.layers.0.self_attn.q_proj"
CUT = GOLDEN / "fp8" / "blocks-cut-off"
GRAINS = {
    "blocks-cut-off": {None},
    "blocks-powers-of-two": {None},
    "channel": {"channel"},
    "deepseek-v4": {None, 32},
    "llama-blocks": {None},
    "llama-tensor-static": {"tensor"},
    "mxfp8-as-bytes": {32},
    "stacked-experts": {None},
    "tensor": {"tensor"},
}


def values_are_those_of_transformers(checkpoint, folder):
    contents = read_contents(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert contents.format == "fp8"
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        assert weight.grid.bits == (4 if ".experts.0." in name else 8)
    assert {weight.grid.group_size for weight in weights.values()} == GRAINS[folder.name]


@pytest.mark.parametrize("folder", cases("fp8"), ids=lambda folder: folder.name)
def test_values_are_those_of_transformers(folder):
    values_are_those_of_transformers(opened(folder), folder)


@pytest.mark.parametrize("name", sorted(GRAINS.keys() - {"blocks-cut-off"}))
def test_without_a_config_the_scales_tell(name):
    folder = GOLDEN / "fp8" / name
    checkpoint = replace(opened(folder), quantization={})
    assert fp8.read(checkpoint).exempt is None
    values_are_those_of_transformers(checkpoint, folder)


def test_every_case_has_its_grain():
    assert {folder.name for folder in cases("fp8")} == GRAINS.keys()


def test_what_is_left_is_plain_or_a_scale_of_inputs():
    contents = fp8.read(opened(GOLDEN / "fp8" / "llama-tensor-static"))
    assert f"{DOWN}.weight" in [name for name, entry in contents.entries.items() if entry.plain]
    assert len(contents.companions) == 6
    assert {tensor.name.rpartition(".")[2] for tensor in contents.companions} == {
        "activation_scale"
    }
    head, down = contents.exempt
    assert (head.text, down.text) == ("lm_head", "down_proj")
    assert down.covers(DOWN)
    contents = fp8.read(opened(GOLDEN / "fp8" / "tensor"))
    assert {tensor.name for tensor in contents.companions} == {
        f"{UP}.input_scale", f"{DOWN}.input_scale",
    }  # fmt: skip
    assert [exemption.text for exemption in contents.exempt] == ["lm_head"]  # ignored_layers


def test_a_scale_of_a_norm_is_plain():
    contents = fp8.read(opened(GOLDEN / "fp8" / "deepseek-v4"))
    assert contents.entries["layers.0.attn.q_norm.scale"].plain is not None


def renamed(checkpoint, ending: str, other: str):
    tensors = {
        name.removesuffix(ending) + other if name.endswith(ending) else name: tensor
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)


@pytest.mark.parametrize("other", [".scale", ".qscale_weight", ".weight_scale"])
def test_scales_of_other_names(other):
    checkpoint = renamed(opened(CUT), ".weight_scale_inv", other)
    values_are_those_of_transformers(checkpoint, CUT)


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scales_of_rows(shape, dtype):
    scale = np.linspace(0.5, 2, 12).astype(dtype)
    checkpoint = opened(GOLDEN / "fp8" / "channel")
    codes = checkpoint.tensors[f"{DOWN}.weight"].array.astype(np.float32)
    given = changed(checkpoint, **{f"{DOWN}.weight_scale": scale.reshape(shape)})
    weight = only(fp8.read(given), f"{DOWN}.weight")
    assert np.array_equal(weight.dequantize(), codes * scale.astype(np.float32)[:, None])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scale_of_a_tensor(shape):
    checkpoint = opened(GOLDEN / "fp8" / "tensor")
    scale = checkpoint.tensors[f"{DOWN}.weight_scale"].array.reshape(shape)
    given = changed(checkpoint, **{f"{DOWN}.weight_scale": scale})
    weight = only(fp8.read(given), f"{DOWN}.weight")
    assert same_bits(weight.dequantize(), expected(GOLDEN / "fp8" / "tensor")[f"{DOWN}.weight"])


@pytest.mark.parametrize("rows", [192, 320])
def test_blocks_of_128_are_guessed_where_they_are_cut_off(rows):
    """As DeepSeek's 576 rows of kv_a_proj, in 5 blocks; even where equal blocks would do."""
    codes = np.random.default_rng(0).integers(0, 120, (rows, 130), dtype=np.uint8)
    scale = np.float32([[1, 2], [4, 8], [16, 32]])[: -(-rows // 128)]
    weight = StoredTensor("x", "w.weight", codes.shape, "F8_E4M3", codes.reshape(-1))
    checkpoint = replace(opened(CUT), quantization={}, tensors={"w.weight": weight})
    found = only(fp8.read(changed(checkpoint, w__weight_scale_inv=scale)), "w.weight")
    by_hand = np.repeat(np.repeat(scale, 128, axis=0), 128, axis=1)[:rows, :130]
    assert np.array_equal(found.dequantize(), weight.array.astype(np.float32) * by_hand)


def test_other_methods_are_not_claimed():
    for folder in ("modelopt/fp8-channel", "compressed_tensors/fp8-channel"):
        assert not fp8.claims(opened(GOLDEN / folder))


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = fp8.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


def test_a_part_that_is_missing():
    said = refused(without(opened(CUT), f"{DOWN}.weight_scale_inv"))
    assert said == f"model.safetensors: '{DOWN}.weight' has no 'scale', only weight"
    said = refused(without(opened(CUT), f"{DOWN}.weight"))
    assert said == f"model.safetensors: '{DOWN}.weight' has no 'weight', only scale"
    other = renamed(opened(CUT), ".weight_scale_inv", ".qscale_weight")
    said = refused(without(other, f"{DOWN}.weight"))
    assert said == f"model.safetensors: '{DOWN}.weight' has no 'weight', only scale"


def test_one_bad_tensor_fails_alone():
    contents = fp8.read(without(opened(CUT), f"{DOWN}.weight_scale_inv"))
    assert only(contents, f"{UP}.weight").shape == (20, 64)


def saying(checkpoint, **said):
    return replace(checkpoint, quantization={**checkpoint.quantization, **said})


def test_a_config_that_contradicts_the_scales():
    assert refused(saying(opened(CUT), weight_block_size=[128, 128])) == (
        f"model.safetensors: tensor '{DOWN}.weight_scale_inv' is of shape (2, 2); expected (1, 2) "
        "for blocks of 128 x 128, as (12, 160) is"
    )
    assert refused(saying(opened(CUT), weight_block_size=None), f"{UP}.weight") == (
        f"model.safetensors: tensor '{UP}.weight_scale_inv' is of shape (3, 1); expected one of "
        "all, of a row or of a block of 128 x 128, as (20, 64) is"
    )
    for size in (128, [128], [0, 128], ["a", 1]):
        assert refused(saying(opened(CUT), weight_block_size=size)) == (
            f"model.safetensors: tensor '{DOWN}.weight_scale_inv': the config says "
            f"weight_block_size {size!r}; expected two whole numbers from 1, or null"
        )


def test_packed_floats_are_in_groups_of_32():
    name = "layers.0.ffn.experts.0.w2"
    checkpoint = opened(GOLDEN / "fp8" / "deepseek-v4")
    scale = np.full((12, 10), 127, np.uint8)
    assert refused(changed(checkpoint, **{f"{name}.scale": scale}), f"{name}.weight") == (
        f"changed: tensor '{name}.scale' is of shape (12, 10); expected (12, 5) for blocks of "
        "1 x 32, as (12, 160) is"
    )


def test_a_weight_that_is_empty():
    empty = StoredTensor("x", f"{DOWN}.weight", (0, 160), "F8_E4M3", np.empty(0, np.uint8))
    checkpoint = opened(CUT)
    tensors = {**checkpoint.tensors, f"{DOWN}.weight": empty}
    assert refused(replace(checkpoint, tensors=tensors)).startswith(
        f"x: tensor '{DOWN}.weight' is F8_E4M3 (0, 160), though it has a scale; expected "
    )


def test_a_weight_that_is_left_unquantized_beside_a_scale():
    whole = changed(opened(CUT), **{f"{DOWN}.weight": np.zeros((12, 160), np.float32)})
    assert refused(whole) == (
        f"changed: tensor '{DOWN}.weight' is F32 (12, 160), though it has a scale; expected "
        "F8_E4M3, F8_E5M2 or I8 of 2 dimensions, or of 3 where experts are stacked"
    )


def test_a_scale_of_a_type_that_no_scale_has():
    scale = changed(opened(CUT), **{f"{DOWN}.weight_scale_inv": np.ones((2, 2), np.int32)})
    assert refused(scale) == (
        f"changed: tensor '{DOWN}.weight_scale_inv' is I32 (2, 2); expected F32 or BF16 or F16 or "
        "F8_E8M0 or U8 (2, 2)"
    )
