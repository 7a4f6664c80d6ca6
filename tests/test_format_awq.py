"""AWQ checkpoints: what AutoAWQ and GPTQModel restore themselves, bit for bit; damaged ones."""

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
GEMM_SAID = {"bits": 4, "group_size": 32, "version": "gemm"}


@pytest.mark.parametrize("folder", cases("awq"), ids=lambda folder: folder.name)
def test_values_are_those_of_the_producer(folder):
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
        size = int(folder.name.rpartition("-g")[2])
        size = size if size < weight.shape[1] else "channel"
        assert (weight.grid.bits, weight.grid.zero, weight.grid.group_size) == (4, "integer", size)
    plain = [name for name, entry in contents.entries.items() if entry.plain]
    assert plain == [f"{DOWN}.bias", f"{UP}.bias"]


@pytest.mark.parametrize("folder", cases("awq"), ids=lambda folder: folder.name)
def test_the_layout_is_told_without_a_config(folder):
    """And group sizes, by the scales that are there; gemv's are padded with zeros."""
    checkpoint = replace(opened(folder), quantization={})
    assert awq.claims(checkpoint)
    assert not gptq.claims(checkpoint)
    for name, weight in loaded(awq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(folder)[name])


def said(checkpoint, **more):
    return replace(checkpoint, quantization={**checkpoint.quantization, **more})


def test_the_config_of_older_files():
    old = {"w_bit": 4, "q_group_size": 32, "version": "GEMM", "zero_point": True}
    checkpoint = replace(opened(GEMM), quantization={"quant_method": "awq", **old})
    for name, weight in loaded(awq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(GEMM)[name])
    settings = awq.read(checkpoint).settings
    assert (settings["bits"], settings["group_size"]) == (4, 32)
    assert refused(said(checkpoint, w_bit=8)).endswith("is said to be of 8 bits; read are 4")
    assert "in groups of 64" in refused(said(checkpoint, q_group_size=64))


def test_a_module_may_have_rules_of_its_own():
    """dynamic: GPTQModel's way to change what is said, or to skip a module."""
    dynamic = {"+:.*up_proj": {"group_size": 64}, "-:.*lm_head": {}}
    contents = awq.read(said(opened(GEMM), dynamic=dynamic))
    assert only(contents, f"{DOWN}.weight").grid.group_size == 32
    with pytest.raises(CheckpointError, match="in groups of 64"):
        only(contents, f"{UP}.weight")
    (exemption,) = contents.exempt
    assert exemption.covers("model.lm_head")
    assert not exemption.covers(UP)


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


@pytest.mark.parametrize(("size", "groups"), [(16, 8), (64, 2), (-1, 1)])
def test_a_group_size_that_contradicts_the_scales_of_gemv(size, groups):
    """Lines of scales are padded: those that are 0 throughout are no groups."""
    assert refused(said(opened(GEMV), group_size=size)) == (
        f"model.safetensors: tensor '{DOWN}.scales' holds scales of 4 groups a row; expected "
        f"{groups} for 32 x 128 weights in groups of {size if size > 0 else 128}"
    )


@pytest.mark.parametrize("size", ["32", 0, -2, True, 32.0])
@pytest.mark.parametrize("folder", [GEMM, GEMV], ids=["gemm", "gemv"])
def test_a_group_size_that_is_none(folder, size):
    assert refused(said(opened(folder), group_size=size)).endswith(
        f"the config says group_size {size!r}; expected a number of input channels, or -1 for all"
    )


def test_groups_of_no_even_size_need_a_config():
    checkpoint = replace(opened(GEMM), quantization={})
    three = {
        f"{DOWN}.scales": np.ones((3, 32), np.float16),
        f"{DOWN}.qzeros": np.zeros((3, 4), np.int32),
    }
    assert refused(changed(checkpoint, **three)).endswith(
        "no config says the group_size, and 128 input channels are no multiple of the 3 groups "
        "that scales are there for"
    )


# what WQLinear_GEMVFast and WQLinear_Marlin make of 64 x 128 weights in groups of 32
FAST = {"qweight": ((16, 128), np.int16), "qzeros": ((32, 64), np.float16)}
TILED = {"qweight": ((8, 128), np.int32)}


@pytest.mark.parametrize(
    ("layout", "parts"), [("gemv_fast", FAST), ("marlin", TILED)], ids=["gemv_fast", "marlin"]
)
def test_a_layout_of_kernels_is_told_by_its_words(layout, parts):
    parts = {"scales": ((32 if parts is FAST else 4, 64), np.float16), **parts}
    arrays = {f"m.{role}": np.zeros(shape, dtype) for role, (shape, dtype) in parts.items()}
    alone = replace(opened(GEMM), tensors={}, quantization={})
    unsaid = changed(alone, **arrays)
    assert awq.claims(unsaid)
    assert not gptq.claims(unsaid)
    with pytest.raises(CheckpointError, match=rf"AWQ layout '{layout}', which only its own kernel"):
        awq.read(unsaid)
    shape, dtype = parts["qweight"]
    assert refused(replace(unsaid, quantization=GEMM_SAID), "m.weight") == (
        f"changed: tensor 'm.qweight' is {'I16' if dtype is np.int16 else 'I32'} {shape} beside "
        f"scales of {parts['scales'][0]}, which is the layout {layout!r}; expected 'gemm'"
    )


def test_a_layout_that_is_not_the_one_that_is_said():
    assert refused(said(opened(GEMV), version="gemm")) == (
        f"model.safetensors: tensor '{DOWN}.qweight' is I32 (32, 16) beside scales of (32, 32), "
        "which is the layout 'gemv'; expected 'gemm'"
    )
    assert refused(said(opened(GEMM), version="gemv")).endswith(
        "is I32 (128, 4) beside scales of (4, 32), which is the layout 'gemm'; expected 'gemv'"
    )


def test_scales_of_activations_are_companions():
    """AutoAWQ puts them where an activation stands between two layers (falcon, bloom, mpt)."""
    names = ("h.0.mlp.act.scales", "h.0.mlp.gelu_impl.scales")
    scales = {name: np.ones(64, np.float16) for name in names}
    contents = awq.read(changed(opened(GEMM), **scales))
    assert [tensor.name for tensor in contents.companions] == list(scales)
    assert contents.entries.keys() == awq.read(opened(GEMM)).entries.keys()


@pytest.mark.parametrize("listed", ["vision", [1], {"a": 1}])
def test_exempt_modules_that_are_no_list_of_names(listed):
    with pytest.raises(CheckpointError, match=r"modules_to_not_convert is .*; expected a list of"):
        awq.read(said(opened(GEMM), modules_to_not_convert=listed))


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
