"""HQQ checkpoints: what its own dequantize gives, and damaged ones."""

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
    ulps_apart,
    without,
)
from pytest_arrowquant import CheckpointError
from pytest_arrowquant.checkpoints.formats import hqq, read_contents

DOWN, QUERY = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"
UP = "model.layers.0.mlp.up_proj"
FOUR = GOLDEN / "hqq" / "int4-f16"
BITS = {
    "int1-f32": 1,
    "int2-bf16": 2,
    "int3-f32": 3,
    "int3-viewed-as-f16": 3,
    "int4-f16": 4,
    "int4-f32-whole-channels": 4,
    "int4-viewed-as-bf16": 4,
    "int6-f32": 6,
    "int8-f32": 8,
    "ternary-f32": 2,
}


@pytest.mark.parametrize("said", [True, False], ids=["", "without a config"])
@pytest.mark.parametrize("folder", cases("hqq"), ids=lambda folder: folder.name)
def test_values_are_those_of_hqq(folder, said):
    """Bit for bit where it computes in float32; 1 ulp where it rounds code - zero to 16 bits."""
    checkpoint = opened(folder)
    checkpoint = checkpoint if said else replace(checkpoint, quantization={})
    contents = read_contents(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert contents.format == "hqq"
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        if wanted[name].dtype == np.float32:
            assert same_bits(weight.dequantize(), wanted[name])
        else:
            assert ulps_apart(weight.dequantize(), wanted[name]) <= 1
        for cut in (5, 13):
            assert in_blocks(weight, cut).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        assert (weight.grid.bits, weight.grid.zero) == (BITS[folder.name], "float")
    assert [name for name, entry in contents.entries.items() if entry.plain] == [f"{UP}.bias"]


def test_every_case_has_its_width():
    assert {folder.name for folder in cases("hqq")} == BITS.keys()


def test_groups_along_rows_and_across_them():
    def grains(folder):
        weights = dict(loaded(hqq.read(opened(folder))))
        return [weights[f"{module}.weight"].grid.group_size for module in (UP, DOWN, QUERY)]

    assert grains(FOUR) == [16, None, None]  # 40 columns are no multiple of 16; axis 0
    assert grains(GOLDEN / "hqq" / "int4-f32-whole-channels") == ["channel", "channel", None]


def test_modules_are_left_out_by_tags():
    checkpoint = opened(FOUR)
    said = {**checkpoint.quantization, "skip_modules": ["lm_head", "self_attn.k_proj"]}
    head, key = hqq.read(replace(checkpoint, quantization=said)).exempt
    assert head.covers("lm_head")
    assert not head.covers("model.layers.0.lm_head.proj")
    assert key.covers("model.layers.31.self_attn.k_proj")
    assert not key.covers("model.layers.31.self_attn.q_proj")
    assert hqq.read(replace(checkpoint, quantization={})).exempt is None


def test_a_scale_or_shape_of_another_module_is_plain():
    more = changed(opened(FOUR), **{"model.norm.scale": np.ones(8, np.float32)})
    assert hqq.read(more).entries["model.norm.scale"].plain is not None


def test_a_convolution_keeps_its_shape():
    shape = {f"{DOWN}.shape": np.array([16, 10, 2, 2], np.int32)}
    weight = only(hqq.read(changed(opened(FOUR), **shape)), f"{DOWN}.weight")
    assert weight.dequantize().shape == (16, 10, 2, 2)
    plain = only(hqq.read(opened(FOUR)), f"{DOWN}.weight").dequantize()
    assert np.array_equal(weight.dequantize().reshape(16, 40), plain)


def test_another_method_is_not_claimed():
    assert not hqq.claims(replace(opened(FOUR), quantization={"quant_method": "awq"}))


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = hqq.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


@pytest.mark.parametrize(
    "role", ["W_q", "scale", "zero", "shape", "nbits", "group_size", "axis", "packing"]
)
def test_a_part_that_is_missing(role):
    said = refused(without(opened(FOUR), f"{DOWN}.{role}"))
    assert said.startswith(f"model.safetensors: '{DOWN}' has no '{role}', only ")


def test_one_bad_tensor_fails_alone():
    contents = hqq.read(without(opened(FOUR), f"{DOWN}.scale"))
    assert only(contents, f"{UP}.weight").shape == (24, 32)


def test_parts_of_the_wrong_shape():
    checkpoint = opened(FOUR)
    assert refused(changed(checkpoint, **{f"{DOWN}.W_q": np.zeros((20, 8), np.uint8)})) == (
        f"changed: tensor '{DOWN}.W_q' is U8 (20, 8), 160 bytes; expected 320 bytes for 4-bit "
        "codes of (16, 40) weights in groups of 16 along axis 1"
    )
    across = {f"{QUERY}.scale": np.ones((48, 1), np.float32)}
    assert refused(changed(checkpoint, **across), f"{QUERY}.weight") == (
        f"changed: tensor '{QUERY}.scale' is F32 (48, 1); expected F32 or BF16 or F16 (1, 48) for "
        "4-bit codes of (24, 32) weights in groups of 16 along axis 0"
    )


def test_numbers_that_fit_nothing():
    checkpoint = replace(opened(FOUR), quantization={})
    for changes in (
        {"shape": np.array([15, 41], np.int32)},
        {"shape": np.array([640], np.int32)},
        {"axis": np.array(2, np.int32)},
        {"group_size": np.array(0, np.int32)},
    ):
        named = {f"{DOWN}.{role}": array for role, array in changes.items()}
        assert refused(changed(checkpoint, **named)).endswith(
            "; expected two or more dimensions that groups divide, and axis 0 or 1"
        )
    packing = {f"{DOWN}.packing": np.frombuffer(b"2bit_u8", np.uint8)}
    assert refused(changed(checkpoint, **packing)) == (
        f"changed: tensor '{DOWN}.packing' is '2bit_u8'; expected for 4 bits 8bit_u8 or 4bit_u8"
    )
    width = {f"{DOWN}.nbits": np.array(12, np.int32)}
    assert refused(changed(checkpoint, **width)) == (
        f"model.safetensors: tensor '{DOWN}.packing' is '4bit_u8'; expected for 12 bits no such"
    )


@pytest.mark.parametrize(
    ("key", "value", "found"), [("nbits", 3, 4), ("group_size", 64, 16), ("axis", 0, 1)]
)
def test_a_config_that_contradicts_the_tensors(key, value, found):
    checkpoint = opened(FOUR)
    one = {"weight_quant_params": {key: value}}
    for given in (one, {"mlp.down_proj": one}):
        said = {**checkpoint.quantization, "quant_config": given}
        assert refused(replace(checkpoint, quantization=said)) == (
            f"model.safetensors: tensor '{DOWN}.W_q' has {key} {found} beside it; the config says "
            f"{value}"
        )
