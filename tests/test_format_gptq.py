"""GPTQ checkpoints: what GPTQModel and AutoGPTQ restore themselves, bit for bit; damaged ones."""

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
from pytest_arrowquant.checkpoints.formats import awq, gptq

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
V1, ORDERED = GOLDEN / "gptq" / "v1-int4-g32-asym", GOLDEN / "gptq" / "v2-int4-g32-asym-actorder"
BROKEN = sorted((GOLDEN.parent / "broken" / "gptq").iterdir())
GRIDS = {  # bits, zero and groups
    "auto-int2-g32-sym": (2, "none", 32),
    "auto-int3-g32-sym": (3, "none", 32),
    "auto-int4-g32-asym": (4, "integer", 32),
    "auto-int4-g32-asym-actorder-bfloat16": (4, "integer", "channel"),
    "auto-int4-g32-sym": (4, "none", 32),
    "auto-int8-channel-asym": (8, "integer", "channel"),
    "v1-int2-g32-asym-zero-of-0": (2, "integer", 32),
    "v1-int3-g32-asym-zero-of-0": (3, "integer", 32),
    "v1-int4-g32-asym": (4, "integer", 32),
    "v1-int4-g32-asym-ragged": (4, "integer", 32),
    "v1-int4-g32-asym-zero-of-0": (4, "integer", 32),
    "v1-int4-g32-sym": (4, "none", 32),
    "v1-int8-channel-sym": (8, "none", "channel"),
    "v2-int2-g32-sym-actorder": (2, "none", "channel"),
    "v2-int3-g32-sym": (3, "none", 32),
    "v2-int4-g32-asym-actorder": (4, "integer", "channel"),
}


@pytest.mark.parametrize("folder", cases("gptq"), ids=lambda folder: folder.name)
def test_values_are_those_of_the_producer(folder):
    """Bit for bit in its type, whatever its zero points, order and version."""
    checkpoint = opened(folder)
    assert gptq.claims(checkpoint)
    assert not awq.claims(checkpoint)
    contents = gptq.read(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        grid = weight.grid
        assert (grid.bits, grid.zero, grid.group_size, grid.feedback) == (
            *GRIDS[folder.name],
            True,
        )
    plain = [name for name, entry in contents.entries.items() if entry.plain]
    assert plain == [f"{DOWN}.bias", f"{UP}.bias"]


def test_every_case_has_its_grid():
    assert {folder.name for folder in cases("gptq")} == GRIDS.keys()


@pytest.mark.parametrize("folder", BROKEN, ids=lambda folder: folder.name)
def test_what_autogptq_broke_is_read_as_autogptq_reads_it(folder):
    """Its zero points of 0 run over their neighbours; 15 comes back as 16, and of 3 bits 7 as 8."""
    weights = dict(loaded(gptq.read(opened(folder))))
    for name, weight in weights.items():
        restored = weight.dequantize()
        assert same_bits(restored, expected(folder)[name])
        assert weight.codes(0, 32).zero.max() == 2**weight.grid.bits
        assert cosine(restored, original(folder)[name]) < 0.2


@pytest.mark.parametrize("quantizer", ["auto_gptq:0.7.1", "gptqmodel:2.0.0"])
def test_what_optimum_says_of_the_quantizer_counts(quantizer):
    """It calls one or the other, and names it in `meta`."""
    checkpoint = opened(BROKEN[1])
    more = {"checkpoint_format": "gptq", "meta": {"quantizer": ["optimum:1.24.0", quantizer]}}
    contents = gptq.read(replace(checkpoint, quantization={**checkpoint.quantization, **more}))
    restored = only(contents, f"{DOWN}.weight").dequantize()
    by_field = same_bits(restored, expected(BROKEN[1])[f"{DOWN}.weight"])
    assert by_field == quantizer.startswith("auto_gptq")


@pytest.mark.parametrize("folder", cases("gptq"), ids=lambda folder: folder.name)
def test_without_a_config_symmetric_zero_points_tell_the_version(folder):
    """All but asymmetric files of the second version, which are read as the first."""
    checkpoint = replace(opened(folder), quantization={})
    assert gptq.claims(checkpoint)
    assert not awq.claims(checkpoint)
    as_first = "v2" in folder.name and "asym" in folder.name
    for name, weight in loaded(gptq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(folder)[name]) != as_first


def test_the_order_of_groups_is_that_of_g_idx():
    checkpoint = opened(ORDERED)
    codes = only(gptq.read(checkpoint), f"{DOWN}.weight").codes(0, 4)
    assert np.array_equal(codes.order, checkpoint.tensors[f"{DOWN}.g_idx"].array)
    assert not np.array_equal(codes.order, np.sort(codes.order))
    unordered = only(gptq.read(opened(V1)), f"{DOWN}.weight").codes(0, 4)
    assert unordered.order.size == 0


def said(checkpoint, **more):
    return replace(checkpoint, quantization={**checkpoint.quantization, **more})


def test_a_module_may_have_a_width_of_its_own():
    """dynamic: the first pattern that matches changes what is said; `-:` skips a module."""
    dynamic = {"+:.*up_proj": {"bits": 4}, "-:lm_head|.*_proj": {}, ".*": {"bits": 2}}
    contents = gptq.read(said(opened(V1), bits=8, dynamic=dynamic))
    assert only(contents, f"{UP}.weight").grid.bits == 4
    (exemption,) = contents.exempt
    assert exemption.text == "-:lm_head|.*_proj"
    assert exemption.covers("lm_head")
    assert exemption.covers(DOWN)
    assert not exemption.covers(UP)
    assert not exemption.covers("model.lm_head")


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ([1], r"dynamic is \[1\]; expected patterns of modules, and what each changes"),
        ({"-:(": {}}, r"dynamic has '-:\(', which is no regular expression: missing \)"),
    ],
)
def test_rules_that_cannot_be_read(dynamic, message):
    with pytest.raises(CheckpointError, match=rf"v1-int4-g32-asym: the config's {message}"):
        gptq.read(said(opened(V1), dynamic=dynamic))


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = gptq.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


@pytest.mark.parametrize("version", ["marlin", "gptq_p", "bitblas"])
def test_a_layout_of_kernels_is_refused_by_name(version):
    with pytest.raises(CheckpointError, match=rf"GPTQ layout '{version}', which only its own kern"):
        gptq.read(said(opened(V1), checkpoint_format=version))


def test_marlin_is_refused_as_autogptq_names_it():
    with pytest.raises(CheckpointError, match=r"in the GPTQ layout 'marlin', which only its own"):
        gptq.read(said(opened(GOLDEN / "gptq" / "auto-int4-g32-sym"), is_marlin_format=True))


def test_a_config_that_contradicts_the_tensors():
    assert refused(said(opened(V1), bits=8)) == (
        f"model.safetensors: tensor '{DOWN}.qweight': the config says 8 bits, and '{DOWN}.qzeros' "
        "of 4 words for 32 rows is of 4 bits"
    )
    assert refused(said(opened(V1), bits=5)).endswith("said to be of 5 bits; read are 2, 3, 4, 8")


@pytest.mark.parametrize("lost", [(), (f"{DOWN}.g_idx",)], ids=["g_idx", "no g_idx"])
@pytest.mark.parametrize(("size", "groups"), [(16, 8), (64, 2), (-1, 1), (48, 3)])
def test_a_group_size_that_contradicts_the_scales(size, groups, lost):
    assert refused(without(said(opened(V1), group_size=size), *lost)) == (
        f"model.safetensors: tensor '{DOWN}.qweight': the config says group_size {size}, of which "
        f"128 input channels are {groups} groups, and scales are there for 4"
    )


@pytest.mark.parametrize("size", ["32", 0, -2, True, 32.0])
def test_a_group_size_that_is_none(size):
    assert refused(said(opened(V1), group_size=size)).endswith(
        f"the config says group_size {size!r}; expected a number of input channels, or -1 for all"
    )


def test_groups_of_no_even_size_need_a_config():
    ragged = GOLDEN / "gptq" / "v1-int4-g32-asym-ragged"
    indexed = replace(opened(ragged), quantization={})
    assert same_bits(
        only(gptq.read(indexed), f"{DOWN}.weight").dequantize(), expected(ragged)[f"{DOWN}.weight"]
    )
    three = {
        f"{DOWN}.{role}": part
        for role, part in (
            ("scales", np.ones((3, 30), np.float16)),
            ("qzeros", np.zeros((3, 4), np.int32)),
        )
    }
    assert refused(changed(without(indexed, f"{DOWN}.g_idx"), **three)).endswith(
        "no config says the group_size, and 104 input channels are no multiple of the 3 groups "
        "that scales are there for"
    )


@pytest.mark.parametrize("role", ["qweight", "qzeros", "scales"])
def test_a_part_that_is_missing(role):
    message = refused(without(opened(V1), f"{DOWN}.{role}"))
    assert message.startswith(f"model.safetensors: '{DOWN}' has no '{role}', only ")


def test_parts_of_the_wrong_shape():
    checkpoint = opened(V1)
    words = {f"{DOWN}.qweight": np.zeros((16, 31), np.int32)}
    assert refused(changed(checkpoint, **words)) == (
        f"changed: tensor '{DOWN}.qweight' is I32 (16, 31); expected I32 (16, 32) for 4-bit codes "
        "of 32 x 128 weights in 4 groups"
    )
    order = {f"{DOWN}.g_idx": np.full(128, 4, np.int32)}
    assert refused(changed(checkpoint, **order)) == (
        f"changed: tensor '{DOWN}.g_idx': input channel 0 is of group 4, and scales are there for 4"
    )
    below = {f"{DOWN}.g_idx": np.r_[np.zeros(127, np.int32), np.int32(-1)]}
    assert refused(changed(checkpoint, **below)).endswith(
        "input channel 127 is of group -1, and scales are there for 4"
    )
    short = {f"{DOWN}.g_idx": np.zeros(120, np.int32)}
    assert refused(changed(checkpoint, **short)) == (
        f"changed: tensor '{DOWN}.g_idx' is I32 (120,); expected I32 or I64 (128,) for 128 input "
        "channels"
    )
    flat = {f"{DOWN}.scales": np.zeros(128, np.float16)}
    assert refused(changed(checkpoint, **flat)).endswith(
        f"tensor '{DOWN}.scales' is of shape (128,); expected two dimensions"
    )
    scales = {f"{DOWN}.scales": np.zeros((5, 32), np.float32)}
    assert "is I32 (4, 4); expected I32 (5, 4)" in refused(changed(checkpoint, **scales))


def test_one_bad_tensor_fails_alone():
    contents = gptq.read(without(opened(V1), f"{DOWN}.scales"))
    assert only(contents, f"{UP}.weight").shape == (64, 64)


def test_another_method_is_not_claimed():
    assert not gptq.claims(said(opened(V1), quant_method="awq"))


def test_words_may_lie_at_any_byte():
    checkpoint = opened(V1)
    tensors = {
        name: replace(tensor, raw=np.r_[np.uint8(0), tensor.raw][1:])
        for name, tensor in checkpoint.tensors.items()
    }
    for name, weight in loaded(gptq.read(replace(checkpoint, tensors=tensors))):
        assert same_bits(weight.dequantize(), expected(V1)[name])
