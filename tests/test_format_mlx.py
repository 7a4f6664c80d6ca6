"""MLX checkpoints: what mlx restores, bit for bit, and damaged ones."""

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
from pytest_arrowquant.checkpoints.formats import mlx

LAYER = "model.layers.0"
Q = f"{LAYER}.self_attn.q_proj"
MIXED = GOLDEN / "mlx" / "affine-2-3-4-5-6-8bit-g32"
PLAIN = GOLDEN / "mlx" / "affine-4bit-g64"
FLOATING = GOLDEN / "mlx" / "mxfp4-mxfp8-nvfp4"
HALVES = ("float16", "bfloat16")


def in_halves(weight, dtype) -> np.ndarray:
    """scale * code + bias as mx.dequantize has it in a type of 16 bits: each step rounded to it."""
    codes = weight.codes(0, weight.shape[0])
    scale, bias = (
        np.repeat(p, codes.group_size, 1).astype(dtype) for p in (codes.scale, codes.minimum)
    )
    product = (scale.astype(np.float32) * codes.values).astype(dtype)
    return (product.astype(np.float32) + bias.astype(np.float32)).astype(dtype)


@pytest.mark.parametrize("folder", cases("mlx"), ids=lambda folder: folder.name)
def test_values_are_those_of_mlx(folder):
    """Bit for bit; affine ones of 16 bits in mlx's arithmetic, which rounds the product.

    Ours does not, as mlx's kernels for products do not: it differs by half a step of that product
    and half of the sum, so by no more than a unit of the larger term.
    """
    checkpoint = opened(folder)
    assert mlx.claims(checkpoint)
    contents = mlx.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        restored, value = weight.dequantize(), wanted[name]
        assert in_blocks(weight, 1).tobytes() == restored.tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        if weight.grid.zero == "float" and value.dtype.name in HALVES:
            assert same_bits(in_halves(weight, value.dtype).astype(np.float32), value)
            codes = weight.codes(0, weight.shape[0])
            largest = np.maximum(
                np.abs(restored - np.repeat(codes.minimum, codes.group_size, 1)),
                np.abs(np.repeat(codes.minimum, codes.group_size, 1)),
            )
            unit = np.spacing(largest.astype(value.dtype)).astype(np.float32)
            error = np.abs(restored - value.reshape(restored.shape).astype(np.float32))
            assert (error <= unit).all()
        else:
            assert same_bits(restored, value)


def test_widths_and_modes_are_those_of_the_config():
    grids = {name: weight.grid for name, weight in loaded(mlx.read(opened(MIXED)))}
    widths = {
        name.split(".")[-2]: (grid.bits, grid.group_size, grid.zero) for name, grid in grids.items()
    }
    assert widths == {
        "embed_tokens": (4, 32, "float"),
        "q_proj": (2, 32, "float"),
        "k_proj": (3, 32, "float"),
        "v_proj": (5, 32, "float"),
        "gate_proj": (6, 32, "float"),
        "up_proj": (8, 32, "float"),
    }
    grids = {name: weight.grid for name, weight in loaded(mlx.read(opened(FLOATING)))}
    q, gate = grids[f"{Q}.weight"], grids[f"{LAYER}.mlp.gate_proj.weight"]
    assert (q.bits, q.group_size, len(q.table), max(q.table[:127])) == (8, 32, 256, 448)
    assert (gate.bits, gate.group_size, gate.table[:8]) == (4, 16, (0, 0.5, 1, 1.5, 2, 3, 4, 6))


def test_what_is_no_multiple_of_the_group_stays_plain():
    contents = mlx.read(opened(PLAIN))
    left = [name for name, e in contents.entries.items() if e.plain and len(e.plain.shape) == 2]
    assert left == [f"{LAYER}.mlp.down_proj.weight", f"{LAYER}.self_attn.o_proj.weight"]
    assert contents.companions == ()
    assert contents.exempt is None
    assert contents.settings == {"bits": 4, "group_size": 64, "mode": "affine"}


def test_stacked_experts_are_rows_one_after_the_other():
    folder = GOLDEN / "mlx" / "switch-nvfp4-global-scale"
    weights = dict(loaded(mlx.read(opened(folder))))
    before = original(folder)
    for kind, letter in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
        stack = weights[f"{LAYER}.block_sparse_moe.switch_mlp.{kind}.weight"]
        for expert in range(2):
            own = before[f"{LAYER}.block_sparse_moe.experts.{expert}.{letter}.weight"]
            rows = slice(expert * len(own), (expert + 1) * len(own))
            assert cosine(stack.restore(rows.start, rows.stop), own) > 0.99


@pytest.mark.parametrize("folder", cases("mlx"), ids=lambda folder: folder.name)
def test_claims_by_tensors_alone(folder):
    assert mlx.claims(replace(opened(folder), config={}, quantization={}))


def test_claims_nothing_of_other_methods():
    checkpoint = opened(PLAIN)
    assert not mlx.claims(replace(checkpoint, quantization={"quant_method": "gptq", "bits": 4}))
    assert not mlx.claims(without(checkpoint, *(n for n in checkpoint.tensors if "scales" in n)))


def test_floating_modes_need_no_config():
    checkpoint = replace(opened(FLOATING), quantization={})
    wanted = expected(FLOATING)
    for name, weight in loaded(mlx.read(checkpoint)):
        assert same_bits(weight.dequantize(), wanted[name])


def test_an_affine_width_that_the_shapes_leave_open_needs_a_config():
    checkpoint = replace(opened(PLAIN), quantization={})
    with pytest.raises(CheckpointError) as error:
        only(mlx.read(checkpoint), f"{Q}.weight")
    assert str(error.value) == (
        f"model.safetensors: tensor '{Q}.weight' has 16 words a row and '{Q}.scales' 2 groups: "
        "2 bits in groups of 128 or 4 bits in groups of 64 or 8 bits in groups of 32; the config "
        "says nothing"
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"bits": 8, "group_size": 64}, "the config says mode affine, bits 8, group_size 64"),
        ({"bits": 4, "group_size": 32}, "the config says mode affine, bits 4, group_size 32"),
        ({"mode": "mxfp4"}, "the config says mode mxfp4"),
    ],
)
def test_a_config_that_the_words_belie(said, message):
    with pytest.raises(CheckpointError, match=message) as error:
        only(mlx.read(replace(opened(PLAIN), quantization=said)), f"{Q}.weight")
    assert f"tensor '{Q}.weight' has 16 words a row" in str(error.value)
    assert "4 bits in groups of 64" in str(error.value)


def test_one_layer_may_belie_its_own_config():
    said = {**opened(PLAIN).quantization, Q: {"group_size": 64, "bits": 3}}
    contents = mlx.read(replace(opened(PLAIN), quantization=said))
    with pytest.raises(CheckpointError, match="bits 3, group_size 64"):
        only(contents, f"{Q}.weight")
    assert only(contents, f"{LAYER}.self_attn.k_proj.weight").shape == (4, 128)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("scales", f"'{Q}' has no 'scales', only biases, weight"),
        ("biases", f"'{Q}' has no 'biases', only scales, weight"),
        ("weight", f"'{Q}' has no 'weight', only biases, scales"),
    ],
)
def test_a_part_is_lost(lost, message):
    contents = mlx.read(without(opened(PLAIN), f"{Q}.{lost}"))
    with pytest.raises(CheckpointError, match=message):
        only(contents, f"{Q}.weight")
    assert only(contents, f"{LAYER}.mlp.up_proj.weight").shape == (8, 128)


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        (
            "scales",
            np.ones((3, 2), np.float16),
            r"F16 \(3, 2\); expected F32 or BF16 or F16 \(4, 2\)",
        ),
        (
            "biases",
            np.ones((4, 3), np.float16),
            r"F16 \(4, 3\); expected F32 or BF16 or F16 \(4, 2\)",
        ),
        ("biases", np.ones((4, 2), np.int8), r"I8 \(4, 2\); expected F32 or BF16 or F16 \(4, 2\)"),
        ("weight", np.ones((4, 16), np.int8), r"I8 \(4, 16\); expected U32 of two or more"),
    ],
)
def test_a_part_is_of_a_wrong_shape_or_type(part, array, message):
    damaged = changed(opened(PLAIN), **{f"{Q}.{part}": array})
    with pytest.raises(CheckpointError, match=message) as error:
        only(mlx.read(damaged), f"{Q}.weight")
    assert f"changed: tensor '{Q}.{part}'" in str(error.value)


def test_floating_scales_are_bytes_and_a_global_scale_goes_with_nvfp4():
    damaged = changed(opened(FLOATING), **{f"{Q}.scales": np.ones((4, 2), ml_dtypes.bfloat16)})
    with pytest.raises(
        CheckpointError, match=r"BF16 \(4, 2\); expected U8 \(4, 2\) for groups of 32"
    ):
        only(mlx.read(damaged), f"{Q}.weight")
    damaged = changed(opened(FLOATING), **{f"{Q}.global_scale": np.ones((), np.float32)})
    with pytest.raises(CheckpointError, match=r"goes with mode nvfp4 alone, .* is mxfp8"):
        only(mlx.read(damaged), f"{Q}.weight")
