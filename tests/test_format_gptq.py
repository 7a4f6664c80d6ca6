"""GPTQ checkpoints: what GPTQModel and AutoGPTQ restore themselves, bit for bit; damaged ones."""

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
V1, ORDERED = GOLDEN / "gptq" / "v1-int4-g32-asym", GOLDEN / "gptq" / "v2-int4-g32-asym-actorder"
GRIDS = {  # bits, zero and groups
    "auto-int2-g32-sym": (2, "none", 32),
    "auto-int3-g32-sym": (3, "none", 32),
    "auto-int4-g32-asym": (4, "integer", 32),
    "auto-int4-g32-sym": (4, "none", 32),
    "auto-int8-channel-asym": (8, "integer", "channel"),
    "v1-int2-g32-asym-zero-of-0": (2, "integer", 32),
    "v1-int3-g32-asym-zero-of-0": (3, "integer", 32),
    "v1-int4-g32-asym": (4, "integer", 32),
    "v1-int4-g32-asym-zero-of-0": (4, "integer", 32),
    "v1-int4-g32-sym": (4, "none", 32),
    "v1-int8-channel-sym": (8, "none", "channel"),
    "v2-int2-g32-sym-actorder": (2, "none", "channel"),
    "v2-int3-g32-sym": (3, "none", 32),
    "v2-int4-g32-asym-actorder": (4, "integer", "channel"),
}


@pytest.mark.parametrize("folder", cases("gptq"), ids=lambda folder: folder.name)
def test_values_are_those_of_the_producer(folder):
    """Bit for bit in float16, whatever its zero points, order and version."""
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


@pytest.mark.parametrize("folder", cases("gptq"), ids=lambda folder: folder.name)
def test_without_a_config_the_first_version_is_read(folder):
    checkpoint = replace(opened(folder), quantization={})
    assert gptq.claims(checkpoint)
    assert not awq.claims(checkpoint)
    if folder.name.startswith("v2"):
        return
    for name, weight in loaded(gptq.read(checkpoint)):
        assert same_bits(weight.dequantize(), expected(folder)[name])


def test_the_order_of_groups_is_that_of_g_idx():
    checkpoint = opened(ORDERED)
    codes = only(gptq.read(checkpoint), f"{DOWN}.weight").codes(0, 4)
    assert np.array_equal(codes.order, checkpoint.tensors[f"{DOWN}.g_idx"].array)
    assert not np.array_equal(codes.order, np.sort(codes.order))
    unordered = only(gptq.read(opened(V1)), f"{DOWN}.weight").codes(0, 4)
    assert unordered.order.size == 0


def test_a_module_may_have_a_width_of_its_own():
    """dynamic: the first pattern that matches changes what is said; `-:` skips a module."""
    checkpoint = opened(V1)
    dynamic = {r"+:.*up_proj": {"bits": 4}, r"-:lm_head": {}}
    said = {**checkpoint.quantization, "bits": 8, "dynamic": dynamic}
    contents = gptq.read(replace(checkpoint, quantization=said))
    assert only(contents, f"{UP}.weight").grid.bits == 4
    (exemption,) = contents.exempt
    assert exemption.text == "-:lm_head"
    assert exemption.covers("lm_head")
    assert not exemption.covers(UP)


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = gptq.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


def said(checkpoint, **more):
    return replace(checkpoint, quantization={**checkpoint.quantization, **more})


@pytest.mark.parametrize("version", ["marlin", "gptq_p", "bitblas"])
def test_a_layout_of_kernels_is_refused_by_name(version):
    with pytest.raises(CheckpointError, match=rf"GPTQ layout '{version}', which only its own kern"):
        gptq.read(said(opened(V1), checkpoint_format=version))


def test_a_config_that_contradicts_the_tensors():
    assert refused(said(opened(V1), bits=8)) == (
        f"model.safetensors: tensor '{DOWN}.qweight': the config says 8 bits, and '{DOWN}.qzeros' "
        "of 4 words for 32 rows is of 4 bits"
    )
    assert refused(said(opened(V1), bits=5)).endswith("said to be of 5 bits; read are 2, 3, 4, 8")
    assert refused(without(said(opened(V1), group_size=16), f"{DOWN}.g_idx")) == (
        f"model.safetensors: tensor '{DOWN}.qweight': a column is of group 7, and scales are there "
        "for 4; the config says group_size 16"
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
    assert "a column is of group 4, and scales are there for 4" in refused(
        changed(checkpoint, **order)
    )
    scales = {f"{DOWN}.scales": np.zeros((5, 32), np.float32)}
    assert "is I32 (4, 4); expected I32 (5, 4)" in refused(changed(checkpoint, **scales))


def test_one_bad_tensor_fails_alone():
    contents = gptq.read(without(opened(V1), f"{DOWN}.scales"))
    assert only(contents, f"{UP}.weight").shape == (64, 64)


def test_another_method_is_not_claimed():
    assert not gptq.claims(said(opened(V1), quant_method="awq"))
