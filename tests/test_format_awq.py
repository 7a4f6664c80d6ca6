"""AWQ checkpoints: what AutoAWQ restores itself, bit for bit; damaged ones."""

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
from pytest_arrowquant.checkpoints.formats import awq, gptq

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
GEMM, GEMV = GOLDEN / "awq" / "gemm-g32", GOLDEN / "awq" / "gemv-g32"


@pytest.mark.parametrize("folder", cases("awq"), ids=lambda folder: folder.name)
def test_values_are_those_of_autoawq(folder):
    """Bit for bit in float16."""
    checkpoint = opened(folder)
    assert awq.claims(checkpoint)
    assert not gptq.claims(checkpoint)
    contents = awq.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        size = int(folder.name.partition("-g")[2])
        size = size if size < weight.shape[1] else "channel"
        assert (weight.grid.bits, weight.grid.zero, weight.grid.group_size) == (4, "integer", size)
    plain = [name for name, entry in contents.entries.items() if entry.plain]
    assert plain == [f"{DOWN}.bias", f"{UP}.bias"]


def test_gemm_is_told_without_a_config():
    checkpoint = replace(opened(GEMM), quantization={})
    assert awq.claims(checkpoint)
    assert not gptq.claims(checkpoint)
    for name, weight in loaded(awq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(GEMM)[name])


def said(checkpoint, **more):
    return replace(checkpoint, quantization={**checkpoint.quantization, **more})


def test_the_config_of_older_files():
    old = {"w_bit": 4, "q_group_size": 32, "version": "GEMM", "zero_point": True}
    checkpoint = replace(opened(GEMM), quantization={"quant_method": "awq", **old})
    for name, weight in loaded(awq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(GEMM)[name])


def test_modules_that_are_exempt_are_named_by_parts():
    (exemption,) = awq.read(said(opened(GEMM), modules_to_not_convert=["vision"])).exempt
    assert exemption.covers("model.vision.layers.0.q_proj")
    assert not exemption.covers(UP)


@pytest.mark.parametrize("version", ["gemv_fast", "marlin", "exllama"])
def test_a_layout_of_kernels_is_refused_by_name(version):
    with pytest.raises(CheckpointError, match=rf"AWQ layout '{version}', which only its own kerne"):
        awq.read(said(opened(GEMM), version=version))


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = awq.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


def test_a_config_that_contradicts_the_tensors():
    assert refused(said(opened(GEMM), bits=8)).endswith("is said to be of 8 bits; read are 4")
    assert refused(said(opened(GEMM), group_size=64)) == (
        f"model.safetensors: tensor '{DOWN}.scales' is F16 (4, 32); expected F16 or BF16 or F32 "
        "(2, 32) for 32 x 128 weights in groups of 64"
    )
    assert refused(said(opened(GEMV), group_size=None)).endswith(
        "no config says the group_size, which gemv needs"
    )
    assert f"tensor '{DOWN}.qweight' is I16 (8, 128); expected I32 of two dimensions" in refused(
        changed(opened(GEMM), **{f"{DOWN}.qweight": np.zeros((8, 128), np.int16)})
    )


@pytest.mark.parametrize("role", ["qweight", "qzeros", "scales"])
@pytest.mark.parametrize("folder", [GEMM, GEMV], ids=["gemm", "gemv"])
def test_a_part_that_is_missing(folder, role):
    message = refused(without(opened(folder), f"{DOWN}.{role}"))
    assert message.startswith(f"model.safetensors: '{DOWN}' has no '{role}', only ")


def test_zero_points_of_the_wrong_shape():
    words = {f"{DOWN}.qzeros": np.zeros((4, 3), np.int32)}
    assert "is I32 (4, 3); expected I32 (4, 4)" in refused(changed(opened(GEMM), **words))
    assert "is I32 (4, 3); expected I32 (32, 4)" in refused(changed(opened(GEMV), **words))


def test_one_bad_tensor_fails_alone():
    contents = awq.read(without(opened(GEMM), f"{DOWN}.scales"))
    assert only(contents, f"{UP}.weight").shape == (64, 64)
