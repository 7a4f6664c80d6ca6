"""compressed-tensors checkpoints: what its own decompress gives, bit for bit, and damaged ones."""

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
from pytest_arrowquant.checkpoints.formats import compressed_tensors

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
PACKED = GOLDEN / "compressed_tensors" / "pack-int4-g32-asym"
GRIDS = {  # bits, zero and groups
    "fp8-block": (8, "none", None),
    "fp8-channel": (8, "none", "channel"),
    "fp8-tensor": (8, "none", "tensor"),
    "int8-channel": (8, "none", "channel"),
    "int8-channel-asym": (8, "integer", "channel"),
    "int8-tensor": (8, "none", "tensor"),
    "mxfp4": (4, "none", 32),
    "nvfp4": (4, "none", 16),
    "old-pack-int3-g32-asym": (3, "integer", 32),
    "old-pack-int4-g32-asym": (4, "integer", 32),
    "old-pack-int6-channel-asym": (6, "integer", "channel"),
    "pack-int2-g32": (2, "none", 32),
    "pack-int3-g32-asym": (3, "integer", 32),
    "pack-int4-g32-asym": (4, "integer", 32),
    "pack-int4-g32-sym": (4, "none", 32),
    "pack-int6-channel-asym": (6, "integer", "channel"),
    "pack-int8-channel": (8, "none", "channel"),
}
WITHOUT_CONFIG = [  # the words of a row leave no doubt, or the bytes none
    name for name in GRIDS if not name.startswith(("old-pack-int3", "old-pack-int6", "fp8"))
]


@pytest.mark.parametrize("folder", cases("compressed_tensors"), ids=lambda folder: folder.name)
def test_values_are_those_of_compressed_tensors(folder):
    """Bit for bit in the type of its scales; NVFP4's in float32."""
    checkpoint = opened(folder)
    assert compressed_tensors.claims(checkpoint)
    contents = compressed_tensors.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        grid = weight.grid
        assert (grid.bits, grid.zero, grid.group_size) == GRIDS[folder.name]
    assert [name for name, entry in contents.entries.items() if entry.plain] == [
        "model.norm.weight"
    ]
    assert [exemption.text for exemption in contents.exempt] == ["lm_head"]


def test_every_case_has_its_grid():
    assert {folder.name for folder in cases("compressed_tensors")} == GRIDS.keys()


@pytest.mark.parametrize("name", WITHOUT_CONFIG)
def test_without_a_config_the_tensors_tell(name):
    checkpoint = replace(opened(GOLDEN / "compressed_tensors" / name), quantization={})
    assert compressed_tensors.claims(checkpoint)
    contents = compressed_tensors.read(checkpoint)
    assert contents.exempt is None
    wanted = expected(GOLDEN / "compressed_tensors" / name)
    for weight_name, weight in loaded(contents):
        assert same_bits(weight.dequantize(), wanted[weight_name])


def test_another_method_is_not_claimed():
    checkpoint = replace(opened(PACKED), quantization={"quant_method": "modelopt"})
    assert not compressed_tensors.claims(checkpoint)


def test_groups_in_another_order():
    """weight_g_idx names the group of each column; -1 throughout that there is no order."""
    checkpoint = opened(PACKED)
    weight = only(compressed_tensors.read(checkpoint), f"{DOWN}.weight")
    plain = weight.codes(0, 12)
    order = np.random.default_rng(0).permutation(np.arange(160) // 32).astype(np.int32)
    ordered = only(
        compressed_tensors.read(changed(checkpoint, **{f"{DOWN}.weight_g_idx": order})),
        f"{DOWN}.weight",
    )
    values = plain.values.astype(np.float32)
    assert np.array_equal(
        ordered.dequantize(), (values - plain.zero[:, order]) * plain.scale[:, order]
    )
    none = changed(checkpoint, **{f"{DOWN}.weight_g_idx": np.full(160, -1, np.int32)})
    unordered = only(compressed_tensors.read(none), f"{DOWN}.weight").dequantize()
    assert np.array_equal(unordered, weight.dequantize())


def test_groups_are_told_by_name_before_class():
    checkpoint = opened(PACKED)
    groups = {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 8}},
        "group_1": {
            "targets": [r"re:.*\.mlp\..*"],
            "weights": {"num_bits": 4, "strategy": "group", "group_size": 32},
        },
    }
    said = {**checkpoint.quantization, "config_groups": groups}
    weights = dict(loaded(compressed_tensors.read(replace(checkpoint, quantization=said))))
    assert {weight.grid.bits for weight in weights.values()} == {4}


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = compressed_tensors.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


def with_weights(checkpoint, **said):
    groups = checkpoint.quantization["config_groups"]
    group = {**groups["group_0"], "weights": {**groups["group_0"]["weights"], **said}}
    quantization = {**checkpoint.quantization, "config_groups": {"group_0": group}}
    return replace(checkpoint, quantization=quantization)


def test_a_config_that_contradicts_the_tensors():
    assert refused(with_weights(opened(PACKED), num_bits=8)) == (
        f"model.safetensors: tensor '{DOWN}.weight_packed' has 20 words a row; the config says 8 "
        "bits, which take 40 for 160 columns"
    )
    assert refused(with_weights(opened(PACKED), group_size=64)) == (
        f"model.safetensors: tensor '{DOWN}.weight_scale' is BF16 (12, 5); expected F32 or BF16 or "
        "F16 (12, 3) for 12 x 160 weights in blocks of 1 x 64"
    )
    assert "is said to be of 12 bits; read are 1 to 8" in refused(
        with_weights(opened(PACKED), num_bits=12)
    )


@pytest.mark.parametrize("role", ["weight_scale", "weight_shape"])
def test_a_part_that_is_missing(role):
    said = refused(without(opened(PACKED), f"{DOWN}.{role}"))
    assert said.startswith(f"model.safetensors: '{DOWN}' has no '{role}', only ")


def test_parts_of_the_wrong_shape():
    checkpoint = opened(PACKED)
    zeros = {f"{DOWN}.weight_zero_point": np.zeros((3, 5), np.int32)}
    assert refused(changed(checkpoint, **zeros)) == (
        f"changed: tensor '{DOWN}.weight_zero_point' is I32 (3, 5); expected I32 (2, 5) for 12 x 5 "
        "zero points"
    )
    order = {f"{DOWN}.weight_g_idx": np.full(160, 5, np.int32)}
    assert refused(changed(checkpoint, **order)).endswith("names group 5; there are 5")


def test_one_bad_tensor_fails_alone():
    contents = compressed_tensors.read(without(opened(PACKED), f"{DOWN}.weight_scale"))
    assert only(contents, f"{UP}.weight").shape == (20, 64)


def test_a_float_that_the_config_says_is_an_integer():
    checkpoint = opened(GOLDEN / "compressed_tensors" / "fp8-channel")
    assert refused(with_weights(checkpoint, type="int")) == (
        f"model.safetensors: tensor '{DOWN}.weight' is F8_E4M3; the config says 8 bits of type "
        "'int'"
    )


def test_a_weight_that_is_left_unquantized_beside_a_scale():
    checkpoint = opened(GOLDEN / "compressed_tensors" / "int8-channel")
    whole = changed(checkpoint, **{f"{DOWN}.weight": np.zeros((12, 160), np.float32)})
    assert refused(whole) == (
        f"changed: tensor '{DOWN}.weight' is F32, though it has a scale; expected I8 or F8_E4M3 or "
        "F8_E5M2"
    )


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([], "config_groups is [1]; expected an object"),
        ({"g": 3}, "g is 3; expected an object"),
        ({"g": {"targets": "Linear"}}, "targets of g is 'Linear'; expected a list of names"),
        ({"g": {"weights": [4]}}, "weights of g is [4]; expected an object"),
        ({"g": {"weights": {"num_bits": "4"}}}, "num_bits of g is '4'; expected a whole number"),
        ({"g": {"weights": {"strategy": 4}}}, "strategy of g is 4; expected a word"),
        (
            {"g": {"weights": {"block_structure": [0, 4]}}},
            "block_structure of g is [0, 4]; expected two whole numbers from 1",
        ),
    ],
)
def test_groups_that_are_none(groups, said):
    checkpoint = replace(opened(PACKED), quantization={"config_groups": groups or [1]})
    with pytest.raises(CheckpointError) as error:
        compressed_tensors.read(checkpoint)
    assert str(error.value) == f"checkpoint {PACKED}: {said}"


def test_what_is_ignored_is_a_name_or_a_pattern():
    said = {"quant_method": "compressed-tensors", "ignore": ["lm_head", r"re:.*\.gate$"]}
    name, pattern = compressed_tensors.read(replace(opened(PACKED), quantization=said)).exempt
    assert name.covers("lm_head")
    assert not name.covers("model.lm_head")
    assert not name.covers("lm_head.proj")
    assert pattern.covers("model.layers.0.mlp.gate")
    assert not pattern.covers("model.layers.0.mlp.gate_proj")
    with pytest.raises(CheckpointError, match=r"has 're:\(', which is no pattern of names"):
        compressed_tensors.read(replace(opened(PACKED), quantization={"ignore": ["re:("]}))
