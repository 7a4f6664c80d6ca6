"""bitsandbytes checkpoints: what its own dequantize gives, and damaged ones."""

import json
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
from pytest_arrowquant.checkpoints import StoredTensor
from pytest_arrowquant.checkpoints.formats import bitsandbytes, read_contents
from pytest_arrowquant.kernels import bitstream

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
NF4 = GOLDEN / "bitsandbytes" / "nf4"
NESTED = GOLDEN / "bitsandbytes" / "nf4-nested-blocks-of-32"
INT8 = GOLDEN / "bitsandbytes" / "llama-int8"
GROUPS = {  # of the down projection, or of all there is
    "nf4": None,
    "nf4-nested-blocks-of-32": 32,
    "nf4-nested-stored-as-bf16": None,
    "nf4-parameter": "channel",
    "fp4": None,
    "fp4-blocks-of-128-stored-as-f32": None,
    "gptqmodel-int8": "channel",
    "gptqmodel-nf4-nested": 64,
    "llama-int8": "channel",
    "llama-nf4-nested": None,
}


@pytest.mark.parametrize("said", [True, False], ids=["", "without a config"])
@pytest.mark.parametrize("folder", cases("bitsandbytes"), ids=lambda folder: folder.name)
def test_values_are_those_of_bitsandbytes(folder, said):
    """Bit for bit; 1 ulp where bitsandbytes multiplies INT8 by a scale and 1/127 in turn."""
    checkpoint = opened(folder)
    checkpoint = checkpoint if said else replace(checkpoint, quantization={})
    contents = read_contents(checkpoint)
    weights, wanted = dict(loaded(contents)), expected(folder)
    assert contents.format == "bitsandbytes"
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        if folder.name == "llama-int8":
            assert ulps_apart(weight.dequantize(), wanted[name]) <= 1
        else:
            assert same_bits(weight.dequantize(), wanted[name])
        assert in_blocks(weight, 5).tobytes() == weight.dequantize().tobytes()
        assert weight.nbytes == contents.entries[name].nbytes
        assert weight.grid.bits == (8 if "int8" in folder.name else 4)
        assert weight.grid.zero == "none"
    weight = next((w for n, w in weights.items() if n.startswith(DOWN)), weight)
    assert weight.grid.group_size == GROUPS[folder.name]


def test_every_case_has_its_groups():
    assert {folder.name for folder in cases("bitsandbytes")} == GROUPS.keys()


def test_what_is_left_is_plain():
    contents = bitsandbytes.read(opened(GOLDEN / "bitsandbytes" / "llama-nf4-nested"))
    plain = [name for name, entry in contents.entries.items() if entry.plain]
    assert plain == [
        *("lm_head.weight", "model.embed_tokens.weight"),
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.norm.weight",
    ]
    assert contents.companions == ()
    assert [exemption.text for exemption in contents.exempt] == ["lm_head", "self_attn.k_proj"]
    assert contents.exempt[1].covers("model.layers.0.self_attn.k_proj")
    assert contents.settings == {
        "bits": 4, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    }  # fmt: skip


def test_gptqmodel_leaves_out_by_patterns():
    checkpoint = opened(GOLDEN / "bitsandbytes" / "gptqmodel-int8")
    said = {**checkpoint.quantization, "dynamic": {r"-:.*\.gate": {}, r"+:.*": {"bits": 4}}}
    (exemption,) = bitsandbytes.read(replace(checkpoint, quantization=said)).exempt
    assert exemption.text == r"-:.*\.gate"
    assert exemption.covers("mlp.gate_proj")
    assert not exemption.covers("mlp.up_proj")


def test_experts_are_one_below_the_other():
    folder = GOLDEN / "bitsandbytes" / "nf4-parameter"
    weight = only(bitsandbytes.read(opened(folder)), "model.layers.0.mlp.experts.gate_up_proj")
    assert weight.shape == (20, 64)


def test_another_method_is_not_claimed():
    checkpoint = replace(opened(NF4), quantization={"quant_method": "hqq"})
    assert not bitsandbytes.claims(checkpoint)
    assert not bitsandbytes.claims(opened(GOLDEN / "compressed_tensors" / "int8-channel"))


@pytest.mark.parametrize("size", [0, 1, 7, 64])
def test_nibbles_are_unpacked_high_first(size):
    packed = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    by_hand = [nibble for byte in packed.tolist() for nibble in divmod(byte, 16)]
    for kernel in (
        bitstream.unpack_high_first,
        getattr(bitstream.unpack_high_first, "py_func", bitstream.unpack_high_first),
    ):
        codes = np.empty(2 * size, np.uint8)
        kernel(packed, codes)
        assert codes.tolist() == by_hand


def refused(checkpoint, name: str = f"{DOWN}.weight") -> str:
    contents = bitsandbytes.read(checkpoint)
    with pytest.raises(CheckpointError) as error:
        only(contents, name)
    return str(error.value)


@pytest.mark.parametrize(
    "role",
    ["absmax", "quant_map", "quant_state.bitsandbytes__nf4", "nested_absmax", "nested_quant_map"],
)
def test_a_part_that_is_missing(role):
    said = refused(without(opened(NESTED), f"{DOWN}.weight.{role}"))
    role = role.partition(".")[0]
    assert said.startswith(f"model.safetensors: '{DOWN}.weight' has no '{role}', only ")


def test_codes_or_row_scales_that_are_missing():
    said = refused(without(opened(NF4), f"{DOWN}.weight"))
    assert said.startswith(f"model.safetensors: '{DOWN}.weight' has no 'weight', only absmax, ")
    said = refused(without(opened(INT8), f"{DOWN}.SCB"))
    assert said == f"model.safetensors: '{DOWN}.weight' has no 'SCB', only weight, weight_format"


def test_one_bad_tensor_fails_alone():
    contents = bitsandbytes.read(without(opened(NF4), f"{DOWN}.weight.absmax"))
    assert only(contents, f"{UP}.weight").shape == (20, 64)


def test_parts_of_the_wrong_shape():
    checkpoint = opened(NF4)
    assert refused(changed(checkpoint, **{f"{DOWN}.weight": np.zeros((480, 1), np.uint8)})) == (
        f"changed: tensor '{DOWN}.weight' holds 480 bytes; expected 960 for 4-bit codes of "
        "(12, 160) weights"
    )
    few = {f"{DOWN}.weight.absmax": np.ones(29, np.float32)}
    assert refused(changed(checkpoint, **few)) == (
        f"changed: tensor '{DOWN}.weight.absmax' is F32 (29,); expected F32 or BF16 or F16 (30,) "
        "for 1920 weights in blocks of 64"
    )
    nested = {f"{DOWN}.weight.nested_absmax": np.ones(1, np.float32)}
    assert refused(changed(opened(NESTED), **nested)) == (
        f"changed: tensor '{DOWN}.weight.nested_absmax' is F32 (1,); expected F32 (2,) for 260 "
        "scales in blocks of 256"
    )
    rows = {f"{DOWN}.SCB": np.ones(15, np.float32)}
    assert refused(changed(opened(INT8), **rows)) == (
        f"changed: tensor '{DOWN}.SCB' is F32 (15,); expected F32 (16,) for 16 rows"
    )


STATE = f"{DOWN}.weight.quant_state.bitsandbytes__nf4"


def with_text(checkpoint, text: str):
    """The checkpoint with other words in a state, whose name has `__` in it."""
    raw = np.frombuffer(text.encode(), np.uint8)
    tensor = StoredTensor("changed", STATE, raw.shape, "U8", raw)
    return replace(checkpoint, tensors={**checkpoint.tensors, STATE: tensor})


def with_state(checkpoint, **said):
    state = json.loads(checkpoint.tensors[STATE].raw.tobytes()) | said
    return with_text(checkpoint, json.dumps(state))


def test_a_state_that_says_what_cannot_be():
    for text in ("{nf4", "\u00b5", "[" * 100_000):
        said = refused(with_text(opened(NF4), text))
        assert said.startswith(f"changed: tensor '{STATE}' is not JSON: ")
    for said in ({"quant_type": "int4"}, {"blocksize": 0}, {"shape": [12]}, {"shape": [12, -160]}):
        assert refused(with_state(opened(NF4), **said)).startswith(
            f"changed: tensor '{STATE}' says quant_type "
        )
    assert refused(with_state(opened(NF4), blocksize="64")) == (
        f"changed: tensor '{STATE}' says quant_type 'nf4', blocksize '64' and shape [12, 160]; "
        "expected nf4 or fp4, a whole number from 1 and two or more of them"
    )
    assert refused(with_state(opened(NESTED), nested_blocksize=None)) == (
        f"changed: tensor '{STATE}' says nested_blocksize None and nested_offset "
        f"{0.10858811438083649}; expected a whole number from 1 and a number, as the scales are "
        "nested"
    )


def test_a_config_that_contradicts_the_tensors():
    def saying(folder, **said):
        checkpoint = opened(folder)
        return replace(checkpoint, quantization={**checkpoint.quantization, **said})

    assert refused(saying(NF4, bnb_4bit_quant_type="fp4")) == (
        f"model.safetensors: tensor '{STATE}' says quant_type 'nf4'; the config says 'fp4'"
    )
    assert refused(saying(NF4, load_in_4bit=False, load_in_8bit=True)) == (
        f"model.safetensors: tensor '{DOWN}.weight' is of 4 bits, by what is beside it; the config "
        "says 8"
    )
    assert refused(saying(INT8, load_in_4bit=True, load_in_8bit=False)) == (
        f"model.safetensors: tensor '{DOWN}.weight' is of 8 bits, by what is beside it; the config "
        "says 4"
    )


def test_rows_in_the_order_of_a_kernel_are_refused():
    turned = changed(opened(INT8), **{f"{DOWN}.weight_format": np.array(2, np.uint8)})
    assert refused(turned) == (
        f"changed: tensor '{DOWN}.weight_format' says col_turing, in the order of a kernel; read "
        "is row"
    )


def test_a_weight_that_is_left_unquantized_beside_a_scale():
    whole = changed(opened(INT8), **{f"{DOWN}.weight": np.zeros((16, 24), np.float32)})
    assert refused(whole) == (
        f"changed: tensor '{DOWN}.weight' is F32 (16, 24); expected I8 (16, 24) beside scales of "
        "rows"
    )
