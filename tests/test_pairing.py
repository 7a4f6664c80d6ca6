"""Pairing two checkpoints by names and headers, and what is amiss between them."""

import time

import numpy as np
import pytest

from pairing_cases import (
    EMBEDDING,
    HEAD,
    LLAMA,
    UNTIED,
    by_name,
    checkpoint,
    entries_of,
    exempting,
    numbered,
    pairs_of,
    problems_of,
    read,
    values_agree,
)
from pytest_arrowquant.checkpoints.pairing import pair


def test_equal_names_are_paired_quantized_or_not():
    original = checkpoint(LLAMA)
    found = pairs_of(original, checkpoint(LLAMA), chosen=lambda name: "proj" in name)
    assert entries_of(found) == {name: name for name in LLAMA}
    assert problems_of(found) == {}
    assert found.problems == found.notes == ()
    one = by_name(found)["model.layers.1.mlp.up_proj.weight"]
    assert one.original is original.tensors[one.name]
    assert one.entry.plain is None
    assert (one.first_row, one.rows, one.heads, one.transposed, one.shift) == (0, 0, 0, False, 0)
    assert by_name(found)["model.norm.weight"].entry.plain is not None


def test_what_is_missing_names_what_is_most_like_it():
    there = {name: shape for name, shape in LLAMA.items() if "2.mlp.up_proj" not in name}
    there["model.layers.2.mlp.upp_proj.weight"] = (12, 8)
    found = pairs_of(checkpoint(LLAMA), checkpoint(there))
    assert problems_of(found) == {
        "model.layers.2.mlp.up_proj.weight": "missing in the quantized checkpoint; the closest "
        "there: 'model.layers.2.mlp.upp_proj.weight'",
        "model.layers.2.mlp.upp_proj.weight": "only in the quantized checkpoint; the closest in "
        "the original: 'model.layers.2.mlp.up_proj.weight'",
    }
    assert by_name(found)["model.layers.2.mlp.up_proj.weight"].entry is None
    assert by_name(found)["model.layers.2.mlp.upp_proj.weight"].original is None


def test_a_lost_layer_points_to_its_neighbours_kind():
    there = {name: shape for name, shape in LLAMA.items() if "layers.2.self_attn.v" not in name}
    problem = problems_of(pairs_of(checkpoint(LLAMA), checkpoint(there)))
    assert problem["model.layers.2.self_attn.v_proj.weight"].startswith(
        "missing in the quantized checkpoint; the closest there: "
        "'model.layers.0.self_attn.v_proj.weight', "
    )


def test_the_closest_name_is_of_the_same_layer():
    there = {name.replace("up_proj", "upp_proj"): shape for name, shape in LLAMA.items()}
    found = problems_of(pairs_of(checkpoint(LLAMA), checkpoint(there)))
    for layer in range(3):
        problem = found[f"model.layers.{layer}.mlp.up_proj.weight"]
        assert f"there: 'model.layers.{layer}.mlp.upp_proj.weight'" in problem


def test_two_models_that_have_nothing_in_common_are_said_to_be_two():
    found = pairs_of(checkpoint({"a.weight": (2, 2)}), checkpoint({"zzzz": (2, 2)}))
    assert found.problems == (
        (
            "none of the 1 tensors of the original has a counterpart among the 1 quantized ones: "
            "are they of the same model?"
        ),
    )
    assert problems_of(found) == {
        "a.weight": "missing in the quantized checkpoint",
        "zzzz": "only in the quantized checkpoint",
    }


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("model.", ""),
        ("", "model."),
        ("model.", "language_model.model."),
        ("language_model.model.", "model.language_model."),
        ("transformer.", ""),
        ("0.auto_model.", ""),
        ("model.", "_orig_mod.model."),
    ],
)
def test_prefixes_that_one_side_alone_has_are_noted_once(here: str, there: str):
    bare = {n.removeprefix("model."): s for n, s in LLAMA.items() if n != "lm_head.weight"}
    found = pairs_of(
        checkpoint({here + name: shape for name, shape in bare.items()}),
        checkpoint({there + name: shape for name, shape in bare.items()}),
    )
    assert entries_of(found) == {here + name: there + name for name in bare}
    assert problems_of(found) == {}
    assert found.notes == (
        f"{len(bare)} tensors are named '{there}…' where the original has '{here}…'",
    )


def test_a_vision_model_is_renamed_tower_by_tower():
    names = {  # transformers 4.52 moved both
        "language_model.model.layers.0.mlp.weight": "model.language_model.layers.0.mlp.weight",
        "language_model.lm_head.weight": "lm_head.weight",
        "vision_tower.blocks.0.mlp.weight": "model.vision_tower.blocks.0.mlp.weight",
    }
    found = pairs_of(
        checkpoint(dict.fromkeys(names, (2, 2))), checkpoint(dict.fromkeys(names.values(), (2, 2)))
    )
    assert entries_of(found) == names


def test_a_prefix_that_could_be_either_is_not_guessed():
    found = pairs_of(
        checkpoint({"layers.0.w": (2, 2), "x": (2,)}),
        checkpoint({"model.layers.0.w": (2, 2), "transformer.layers.0.w": (2, 2), "x": (2,)}),
    )
    assert problems_of(found).keys() == {
        "layers.0.w",
        "model.layers.0.w",
        "transformer.layers.0.w",
    }
    assert "'model.layers.0.w', 'transformer.layers.0.w'" in problems_of(found)["layers.0.w"]


def test_gamma_and_beta_are_weight_and_bias():
    found = pairs_of(
        checkpoint(
            {"bert.embeddings.LayerNorm.gamma": (4,), "bert.embeddings.LayerNorm.beta": (4,)}
        ),
        checkpoint({"embeddings.LayerNorm.weight": (4,), "embeddings.LayerNorm.bias": (4,)}),
    )
    assert entries_of(found) == {
        "bert.embeddings.LayerNorm.gamma": "embeddings.LayerNorm.weight",
        "bert.embeddings.LayerNorm.beta": "embeddings.LayerNorm.bias",
    }
    same_prefix = pairs_of(checkpoint({"norm.gamma": (4,)}), checkpoint({"norm.weight": (4,)}))
    assert entries_of(same_prefix) == {"norm.gamma": "norm.weight"}
    assert same_prefix.notes == ()


@pytest.mark.parametrize("quantizes", [True, False], ids=["quantized", "plain"])
def test_qkv_and_gate_up_fused_in_the_quantized_checkpoint(quantizes):
    parts = {
        "self_attn.q_proj": (8, 4),
        "self_attn.k_proj": (2, 4),
        "self_attn.v_proj": (2, 4),
        "mlp.gate_proj": (6, 4),
        "mlp.up_proj": (6, 4),
    }
    original = checkpoint(
        {f"model.layers.0.{n}.weight": s for n, s in parts.items()}
        | {f"model.layers.0.{n}.bias": s[:1] for n, s in parts.items()}
    )

    def joined(leaf: str, *names: str) -> np.ndarray:
        return np.concatenate([original.tensors[f"model.layers.0.{n}.{leaf}"].array for n in names])

    there = {
        f"layers.0.{module}.{leaf}": joined(leaf, *(n for n in parts if n.startswith(holder)))
        for module, holder in (("self_attn.qkv_proj", "self_attn"), ("mlp.gate_up_proj", "mlp"))
        for leaf in ("weight", "bias")
    }
    found = pairs_of(original, checkpoint(there), chosen=lambda _: quantizes)
    assert [one.name for one in found.pairs] == sorted(original.tensors)
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)


def test_qkv_and_gate_up_fused_in_the_original():
    shapes = {
        "model.layers.0.self_attn.qkv_proj.weight": (12, 4),
        "model.layers.0.mlp.gate_up_proj.weight": (6, 4),
    }
    original = checkpoint(shapes, config={"num_attention_heads": 4, "num_key_value_heads": 1})
    qkv, gate_up = (original.tensors[name].array for name in shapes)
    there = {
        "self_attn.q_proj": qkv[:8],
        "self_attn.k_proj": qkv[8:10],
        "self_attn.v_proj": qkv[10:],
        "mlp.gate_proj": gate_up[:3],
        "mlp.up_proj": gate_up[3:],
    }
    quantized = checkpoint({f"model.layers.0.{n}.weight": v for n, v in there.items()})
    found = pairs_of(original, quantized)
    assert [one.name for one in found.pairs] == sorted(quantized.tensors)
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)
    unknown = pairs_of(checkpoint(shapes), quantized)
    assert "model.layers.0.self_attn.qkv_proj.weight" in problems_of(unknown)


GPT2 = {
    "transformer.wte.weight": (32, 8),
    "transformer.h.0.attn.c_attn.weight": (8, 24),
    "transformer.h.0.attn.c_attn.bias": (24,),
    "transformer.h.0.attn.c_proj.weight": (8, 8),
    "transformer.h.0.attn.c_proj.bias": (8,),
    "transformer.h.0.mlp.c_fc.weight": (8, 32),
    "transformer.h.0.mlp.c_fc.bias": (32,),
    "transformer.h.0.ln_1.weight": (8,),
}
TURNED = {"attn.c_attn", "attn.c_proj", "mlp.c_fc"}


def test_gpt2_weights_are_transposed_where_they_are_quantized():
    original = checkpoint(GPT2)
    there = {
        name: tensor.array.T.copy() if ".c_" in name else tensor.array
        for name, tensor in original.tensors.items()
    }
    found = pairs_of(original, checkpoint(there), chosen=lambda name: ".c_" in name)
    turned = {one.name for one in found.pairs if one.transposed}
    assert turned == {f"transformer.h.0.{name}.weight" for name in TURNED}
    assert all(values_agree(one) for one in found.pairs)
    as_it_was = pairs_of(original, original, chosen=lambda _: False)
    assert not any(one.transposed for one in as_it_was.pairs)


def test_linear_layers_of_the_same_names_are_not_transposed():
    starcoder = {
        "transformer.h.0.attn.c_attn.weight": (24, 8),
        "transformer.h.0.attn.c_attn.bias": (24,),
        "transformer.h.0.attn.c_proj.weight": (8, 8),
        "transformer.h.0.attn.c_proj.bias": (8,),
    }
    found = pairs_of(checkpoint(starcoder), checkpoint(starcoder))
    assert not any(one.transposed for one in found.pairs)


@pytest.mark.parametrize("where", ["original", "quantized"])
def test_an_output_layer_that_a_config_ties_may_be_absent(where: str):
    said = {"original": {}, "quantized": {}, where: {"tie_word_embeddings": True}}
    found = pairs_of(
        checkpoint(LLAMA, config=said["original"]), checkpoint(UNTIED, config=said["quantized"])
    )
    assert problems_of(found) == {}
    head = by_name(found)[HEAD]
    assert head.entry.name == EMBEDDING
    assert head.original.name == HEAD
    assert head.notes == (f"not stored: tied to '{EMBEDDING}', which stands for it",)


def test_an_output_layer_that_the_quantized_config_does_not_tie_is_missing():
    found = pairs_of(
        checkpoint(LLAMA, config={"tie_word_embeddings": True}),
        checkpoint(UNTIED, config={"tie_word_embeddings": False}),
    )
    assert problems_of(found).keys() == {HEAD}


def test_an_output_layer_of_the_embeddings_bytes_may_be_absent():
    same = {EMBEDDING: numbered((32, 8)), HEAD: numbered((32, 8))}
    found = pairs_of(checkpoint(same), checkpoint({EMBEDDING: (32, 8)}))
    assert entries_of(found) == {EMBEDDING: EMBEDDING, HEAD: EMBEDDING}
    same[HEAD][31, 7] += 1
    found = pairs_of(checkpoint(same), checkpoint({EMBEDDING: (32, 8)}))
    assert problems_of(found).keys() == {HEAD}


def test_tying_excuses_the_output_layer_alone():
    there = {name: shape for name, shape in LLAMA.items() if "layers.0.mlp" not in name}
    found = pairs_of(checkpoint(LLAMA, config={"tie_word_embeddings": True}), checkpoint(there))
    assert len(problems_of(found)) == 3


def test_an_absent_output_layer_that_nothing_ties_is_missing():
    found = pairs_of(checkpoint(LLAMA), checkpoint(UNTIED))
    assert problems_of(found).keys() == {HEAD}


def test_an_embedding_that_is_lost_does_not_stand_for_the_output_layer():
    there = {n: s for n, s in UNTIED.items() if n != EMBEDDING}
    found = pairs_of(checkpoint(LLAMA, config={"tie_word_embeddings": True}), checkpoint(there))
    assert problems_of(found).keys() == {EMBEDDING, HEAD}


@pytest.mark.parametrize(
    "said", [{}, {"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}]
)
def test_a_quantized_output_layer_is_held_against_the_embedding(said):
    found = pairs_of(checkpoint(UNTIED, config=said), checkpoint(LLAMA))
    assert problems_of(found) == {}
    head = by_name(found)[HEAD]
    assert (head.original.name, head.entry.name) == (EMBEDDING, HEAD)
    assert head.notes == (f"held against '{EMBEDDING}', to which it is tied in the original",)


def test_an_output_layer_out_of_nowhere_is_extra():
    found = pairs_of(checkpoint(UNTIED, config={"tie_word_embeddings": False}), checkpoint(LLAMA))
    assert problems_of(found).keys() == {HEAD}


def test_buffers_are_not_required():
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        "embeddings.position_ids": np.arange(4).reshape(1, 4),
        "h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32),
        "h.0.attn.masked_bias": np.array(-1e4, np.float32),
    }
    true_bias = {"h.0.attn.c.weight": numbered((4, 4)), "blocks.1.attn.bias": numbered((4,))}
    original = checkpoint(buffers | true_bias)
    found = pairs_of(original, checkpoint({"h.0.attn.c.weight": (4, 4)}))
    assert problems_of(found).keys() == {"blocks.1.attn.bias"}
    assert found.notes == (
        (
            "not compared, as the original alone has them, and they hold no weights: "
            "'embeddings.position_ids' and 3 more"
        ),
    )
    reverse = pairs_of(
        checkpoint(true_bias), checkpoint(buffers | true_bias), chosen=lambda name: "attn.c" in name
    )
    assert problems_of(reverse) == {}
    assert reverse.notes[0].startswith("not compared, as the quantized checkpoint alone has them")


def test_buffers_on_both_sides_are_compared():
    both = {"model.rotary_emb.inv_freq": (4,)}
    assert entries_of(pairs_of(checkpoint(both), checkpoint(both))) == {n: n for n in both}


def test_biases_of_zeros_change_nothing_and_others_do():
    here = {"a.weight": numbered((4, 4))}
    there = here | {"a.bias": np.zeros(4, np.float32)}
    found = pairs_of(checkpoint(here), checkpoint(there))
    assert problems_of(found) == {}
    assert found.notes == (
        (
            "not compared, as the quantized checkpoint alone has them, and they are biases of "
            "zeros: 'a.bias'"
        ),
    )
    there["a.bias"][3] = 0.5
    assert problems_of(pairs_of(checkpoint(here), checkpoint(there))) == {
        "a.bias": "only in the quantized checkpoint"
    }


def test_layers_for_multi_token_prediction_may_be_left_out():
    extra = {
        "model.layers.3.mlp.up_proj.weight": (12, 8),
        "mtp.fc.weight": (8, 8),
        "vision.layers.7.mlp.weight": (8, 8),
    }
    original = checkpoint(LLAMA | extra, config={"text_config": {"num_hidden_layers": 3}})
    found = pairs_of(original, checkpoint(LLAMA))
    assert problems_of(found).keys() == {"vision.layers.7.mlp.weight"}
    assert found.notes == (
        (
            "not compared, as the original alone has them, for multi-token prediction past the "
            "model's layers: 'model.layers.3.mlp.up_proj.weight' and 1 more"
        ),
    )
    some_of_it = LLAMA | {"model.layers.3.eh_proj.weight": (8, 8), "mtp.norm.weight": (8,)}
    found = pairs_of(original, checkpoint(some_of_it))
    assert problems_of(found).keys() >= {"model.layers.3.mlp.up_proj.weight", "mtp.fc.weight"}
    said_nothing = pairs_of(checkpoint(LLAMA | extra), checkpoint(LLAMA))
    assert "model.layers.3.mlp.up_proj.weight" in problems_of(said_nothing)


def test_a_lost_last_layer_is_missing():
    original = checkpoint(LLAMA, config={"num_hidden_layers": 3})
    there = {name: shape for name, shape in LLAMA.items() if "layers.2" not in name}
    assert len(problems_of(pairs_of(original, checkpoint(there)))) == 9


def test_an_original_that_is_quantized_is_refused():
    fp8 = {"a.weight": np.ones((2, 2), np.uint8)}
    original = checkpoint(fp8, quantization={"quant_method": "fp8"})
    found = pairs_of(original, checkpoint({"a.weight": (2, 2)}))
    assert found.problems == (
        "the original is quantized itself (fp8; 'a.weight' is U8): give one that is not",
    )
    dequantized = checkpoint({"a.weight": (2, 2)}, quantization={"quant_method": "fp8"})
    assert pairs_of(dequantized, checkpoint({"a.weight": (2, 2)})).problems == ()


def test_fifty_thousand_tensors_pair_in_linear_time():
    """The aim is 3 s; the bound is for what grows with the square, which takes minutes."""
    kinds = ("gate_proj", "up_proj", "down_proj")
    shapes = {
        f"model.layers.{layer}.mlp.experts.{expert}.{kind}.weight": (1, 1)
        for layer in range(64)
        for expert in range(256)
        for kind in kinds
    }
    there = {f"language_model.{name}": shape for name, shape in shapes.items()}
    lost = [name for name in there if ".experts.7." in name]
    for name in lost:
        there[name.replace("experts", "expert")] = there.pop(name)
    exempt = tuple(exempting(f"model.layers.{layer}.mlp.experts.9.up_proj") for layer in range(64))
    original, quantized = checkpoint(shapes), checkpoint(there)
    held = read(quantized, lambda name: ".9.up" not in name, exempt)
    start = time.process_time()
    found = pair(original, quantized, held)
    assert time.process_time() - start < 15
    assert len(found.pairs) == len(shapes) + len(lost)
    assert len(problems_of(found)) == 2 * len(lost)
