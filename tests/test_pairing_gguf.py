"""Pairing with GGUF: the names and the layouts that llama.cpp's converter makes."""

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path

import gguf
import numpy as np
import pytest

from pairing_cases import (
    HEAD,
    LLAMA,
    UNTIED,
    by_name,
    checkpoint,
    entries_of,
    gguf_name,
    interleaved,
    metadata,
    numbered,
    pairs_of,
    problems_of,
    values_agree,
)
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.checkpoints.checkpoint import Checkpoint


def gguf_of(
    original: Checkpoint, architecture: str, shift: Iterable[str] = (), **said
) -> Checkpoint:
    """What llama.cpp's converter makes of a model like Llama with 2 heads of queries, 1 of keys."""
    made = {}
    for name, tensor in original.tensors.items():
        values = tensor.array
        if architecture == "llama" and ".q_proj." in name:
            values = interleaved(values, 2)
        if architecture == "llama" and ".k_proj." in name:
            values = interleaved(values, 1)
        made[gguf_name(name)] = values + 1 if name.endswith(tuple(shift)) else values
    return checkpoint(made, metadata=metadata(architecture), **said)


def test_gguf_llama():
    biases = {
        f"model.layers.0.self_attn.{kind}_proj.bias": (n,) for kind, n in (("q", 8), ("k", 4))
    }
    original = checkpoint(LLAMA | biases)
    found = pairs_of(original, gguf_of(original, "llama"))
    assert entries_of(found) == {name: gguf_name(name) for name in LLAMA | biases}
    assert problems_of(found) == {}
    assert found.problems == found.notes == ()
    assert all(values_agree(one) for one in found.pairs)
    heads = {name: one.heads for name, one in by_name(found).items() if one.heads}
    assert heads == {
        **{f"model.layers.{n}.self_attn.q_proj.weight": 2 for n in range(3)},
        **{f"model.layers.{n}.self_attn.k_proj.weight": 1 for n in range(3)},
        "model.layers.0.self_attn.q_proj.bias": 2,
        "model.layers.0.self_attn.k_proj.bias": 1,
    }


def test_gguf_of_other_architectures_interleaves_nothing():
    original = checkpoint(LLAMA)
    found = pairs_of(original, gguf_of(original, "qwen2"))
    assert all(values_agree(one) for one in found.pairs)
    assert not any(one.heads for one in found.pairs)


def test_gguf_heads_a_layer():
    original = checkpoint(LLAMA)
    quantized = checkpoint(
        {gguf_name(name): shape for name, shape in LLAMA.items()},
        metadata=metadata("deci", heads="[2, 4, 2]", keys="[1, 2, 0]"),
    )
    heads = {name: one.heads for name, one in by_name(pairs_of(original, quantized)).items()}
    kinds = ("q", "k")
    assert [
        heads[f"model.layers.{n}.self_attn.{kind}_proj.weight"] for n in range(3) for kind in kinds
    ] == [2, 1, 4, 2, 2, 0]


def test_gguf_keys_have_the_queries_heads_where_no_others_are_given():
    original = checkpoint(LLAMA)
    said = metadata("llama")
    del said["llama.attention.head_count_kv"]
    quantized = checkpoint({gguf_name(n): s for n, s in LLAMA.items()}, metadata=said)
    assert (
        by_name(pairs_of(original, quantized))["model.layers.0.self_attn.k_proj.weight"].heads == 2
    )


@pytest.mark.parametrize(
    ("architecture", "shifted"), [("gemma", True), ("gemma2", True), ("gemma3n", False)]
)
def test_gguf_norms_of_gemma_are_shifted_by_one(architecture: str, shifted: bool):
    shapes = {
        "model.embed_tokens.weight": (32, 8),
        "model.norm.weight": (8,),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.layers.0.self_attn.o_proj.weight": (8, 8),
    }
    original = checkpoint(shapes)
    quantized = gguf_of(original, architecture, ["norm.weight"] if shifted else [])
    found = pairs_of(original, quantized)
    assert entries_of(found) == {name: gguf_name(name) for name in shapes}
    assert all(values_agree(one) for one in found.pairs)
    assert sum(one.shift for one in found.pairs) == 2 * shifted


def test_gguf_norms_of_linear_attention_are_not_shifted():
    """conversion/qwen.py, Qwen3NextModel.modify_tensors."""
    names = {
        "model.layers.0.linear_attn.norm.weight": "blk.0.ssm_norm.weight",
        "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    }
    found = pairs_of(
        checkpoint(dict.fromkeys(names, (8,))),
        checkpoint(dict.fromkeys(names.values(), (8,)), metadata=metadata("qwen3next", 1)),
    )
    assert entries_of(found) == names
    assert {one.name: one.shift for one in found.pairs} == dict(zip(names, (0, 1), strict=True))


@pytest.mark.parametrize(
    ("heads", "problem"),
    [
        ("3", "GGUF's llama.attention.head_count gives 3 heads, which the 8 rows of '{}' are not"),
        ("0", "GGUF's llama.attention.head_count gives 0 heads, which the 8 rows of '{}' are not"),
        ("x", "GGUF's llama.attention.head_count is 'x'; expected a number, or one for layer 0"),
        ("[]", "GGUF's llama.attention.head_count is '[]'; expected a number, or one for layer 0"),
    ],
)
def test_gguf_heads_that_cannot_be_fail_their_tensors_alone(heads: str, problem: str):
    names = ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight")
    original = checkpoint({name: LLAMA[name] for name in names})
    there = {gguf_name(name): LLAMA[name] for name in names}
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama", heads=heads)))
    assert problems_of(found) == {names[0]: problem.format(names[0])}


def test_gguf_without_a_count_of_blocks_is_counted():
    said = metadata("llama")
    del said["llama.block_count"]
    quantized = checkpoint({gguf_name(n): s for n, s in LLAMA.items()}, metadata=said)
    assert problems_of(pairs_of(checkpoint(LLAMA), quantized)) == {}


def test_gguf_says_under_what_name_it_looked():
    original = checkpoint(LLAMA | {"model.layers.0.mlp.novelty.weight": (2, 2)})
    there = {gguf_name(name): shape for name, shape in LLAMA.items()}
    del there["blk.1.ffn_up.weight"]
    found = problems_of(pairs_of(original, checkpoint(there, metadata=metadata("llama"))))
    assert found.keys() == {
        "model.layers.0.mlp.novelty.weight",
        "model.layers.1.mlp.up_proj.weight",
    }
    assert found["model.layers.1.mlp.up_proj.weight"].startswith(
        "missing in the quantized checkpoint: GGUF's name for it, 'blk.1.ffn_up.weight', is not "
        "there"
    )
    assert found["model.layers.0.mlp.novelty.weight"].startswith(
        "missing in the quantized checkpoint: GGUF has no name for it in llama"
    )


def test_gguf_of_an_unknown_architecture_says_so():
    original = checkpoint(LLAMA)
    found = pairs_of(original, checkpoint({"blk.0.x": (2, 2)}, metadata=metadata("novel")))
    assert found.notes == (
        "GGUF's architecture 'novel' is not known to the gguf package: no name map",
    )
    assert len(found.problems) == 1


def test_gguf_alone_has_rope_frequencies():
    original = checkpoint(LLAMA)
    there = {gguf_name(name): shape for name, shape in LLAMA.items()}
    there["rope_freqs.weight"] = (4,)
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama")))
    assert problems_of(found) == {}
    assert found.notes == (
        (
            "not compared, as the quantized checkpoint alone has them, and they hold no weights: "
            "'rope_freqs.weight'"
        ),
    )


def test_gguf_bert_has_no_pooler():
    layer, block = "encoder.layer.0", "blk.0"
    names = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.LayerNorm.weight": "token_embd_norm.weight",
        "embeddings.LayerNorm.bias": "token_embd_norm.bias",
        f"{layer}.attention.self.query.weight": f"{block}.attn_q.weight",
        f"{layer}.attention.self.query.bias": f"{block}.attn_q.bias",
        f"{layer}.attention.output.dense.weight": f"{block}.attn_output.weight",
        f"{layer}.attention.output.LayerNorm.weight": f"{block}.attn_output_norm.weight",
        f"{layer}.intermediate.dense.weight": f"{block}.ffn_up.weight",
        f"{layer}.output.dense.weight": f"{block}.ffn_down.weight",
        f"{layer}.output.LayerNorm.bias": f"{block}.layer_output_norm.bias",
    }
    shapes = {name: (4, 4) if name.endswith("weight") else (4,) for name in names}
    original = checkpoint(
        {f"bert.{n}": s for n, s in shapes.items()}
        | {"bert.pooler.dense.weight": (4, 4), "bert.embeddings.position_ids": (1, 4)}
    )
    there = {names[name]: shape for name, shape in shapes.items()}
    found = pairs_of(original, checkpoint(there, metadata=metadata("bert", 1)))
    assert entries_of(found) == {f"bert.{name}": there for name, there in names.items()}
    assert problems_of(found) == {}
    assert found.notes == (
        "not compared, as a GGUF of bert has no place for them: 'bert.pooler.dense.weight'",
        (
            "not compared, as the original alone has them, and they hold no weights: "
            "'bert.embeddings.position_ids'"
        ),
    )


def test_gguf_leaves_out_layers_past_the_models():
    extra = {"model.layers.3.mlp.up_proj.weight": (12, 8), "model.layers.3.eh_proj.weight": (8, 8)}
    original = checkpoint(LLAMA | extra, config={"num_hidden_layers": 3})
    there = {gguf_name(name): shape for name, shape in LLAMA.items()}
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama")))
    assert problems_of(found) == {}
    assert len(found.notes) == 1


def test_gguf_that_has_a_layer_past_the_models_must_have_all_of_it():
    extra = {
        "model.layers.3.mlp.up_proj.weight": (12, 8),
        "model.layers.3.mlp.down_proj.weight": (8, 12),
    }
    original = checkpoint(LLAMA | extra, config={"num_hidden_layers": 3})
    there = {gguf_name(name): shape for name, shape in LLAMA.items()}
    there["blk.3.ffn_up.weight"] = (12, 8)
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama", 4)))
    assert problems_of(found).keys() == {"model.layers.3.mlp.down_proj.weight"}


def test_gguf_that_lost_its_last_layer_is_not_excused():
    original = checkpoint(LLAMA, config={"num_hidden_layers": 3})
    there = {gguf_name(name): shape for name, shape in LLAMA.items() if "layers.2" not in name}
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama", 2)))
    assert len(problems_of(found)) == 9


@pytest.mark.parametrize("quantizes", [True, False])
def test_gguf_deepseek_keeps_keys_and_values_of_kv_b_apart(quantizes: bool):
    heads, nope, value, rank = 3, 4, 2, 5
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    whole = numbered((heads * (nope + value), rank))
    kv = whole.reshape(heads, nope + value, rank)  # conversion/deepseek.py, DeepseekV2Model
    quantized = checkpoint(
        {
            "blk.0.attn_k_b.weight": kv[:, :nope].transpose(0, 2, 1),
            "blk.0.attn_v_b.weight": kv[:, nope:],
        },
        metadata=metadata("deepseek2", 1),
    )
    config = {
        "num_key_value_heads": heads,
        "qk_nope_head_dim": nope,
        "v_head_dim": value,
        "kv_lora_rank": rank,
    }
    original = checkpoint({name: whole}, config=config)
    found = pairs_of(original, quantized, chosen=lambda _: quantizes)
    assert [one.name for one in found.pairs] == [
        f"model.layers.0.self_attn.kv_b_proj.{head}.{kind}.weight"
        for head in range(heads)
        for kind in "kv"
    ]
    assert all(values_agree(one) for one in found.pairs)
    lost = pairs_of(checkpoint({name: whole}), quantized)
    assert problems_of(lost)[name].startswith(
        "missing in the quantized checkpoint: the original's config does not tell the sizes of its "
        "heads"
    )


def test_gguf_deepseek_of_old_keeps_kv_b_whole():
    names = {"model.layers.0.self_attn.kv_b_proj.weight": "blk.0.attn_kv_b.weight"}
    original = checkpoint(dict.fromkeys(names, (18, 5)))
    there = dict.fromkeys(names.values(), (18, 5))
    found = pairs_of(original, checkpoint(there, metadata=metadata("deepseek2", 1)))
    assert entries_of(found) == names
    assert all(values_agree(one) for one in found.pairs)


HEADS, SHARED, SIZE, WIDTH = 4, 2, 4, 16  # queries, keys, rows a head, columns
BY_HEAD = {"num_attention_heads": HEADS, "num_key_value_heads": SHARED, "hidden_size": WIDTH}


def test_gguf_internlm2_takes_groups_apart():
    """conversion/internlm.py, InternLM2Model.modify_tensors."""
    groups, queries = SHARED, HEADS // SHARED
    name = "model.layers.0.attention.wqkv.weight"
    whole = numbered((groups * (queries + 2) * SIZE, WIDTH))
    qkv = whole.reshape(groups, queries + 2, SIZE, WIDTH)
    q, k, v = (x.reshape(-1, WIDTH) for x in (qkv[:, :queries], qkv[:, -2], qkv[:, -1]))
    there = {
        "blk.0.attn_q.weight": interleaved(q, HEADS),
        "blk.0.attn_k.weight": interleaved(k, SHARED),
        "blk.0.attn_v.weight": v,
    }
    found = pairs_of(
        checkpoint({name: whole}, config=BY_HEAD),
        checkpoint(there, metadata=metadata("internlm2", 1)),
    )
    assert len(found.pairs) == 3 * groups
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)


@pytest.mark.parametrize(
    ("architecture", "name", "keys"),
    [
        ("baichuan", "model.layers.0.self_attn.W_pack.weight", HEADS),
        ("bailingmoe", "model.layers.0.attention.query_key_value.weight", SHARED),
    ],
)
def test_gguf_takes_queries_keys_and_values_apart(architecture: str, name: str, keys: int):
    """conversion/baichuan.py and bailingmoe.py, modify_tensors."""
    whole = numbered(((HEADS + 2 * keys) * SIZE, WIDTH))
    q, k, v = np.split(whole, [HEADS * SIZE, (HEADS + keys) * SIZE])
    there = {
        "blk.0.attn_q.weight": interleaved(q, HEADS),
        "blk.0.attn_k.weight": interleaved(k, keys),
        "blk.0.attn_v.weight": v,
    }
    found = pairs_of(
        checkpoint({name: whole}, config=BY_HEAD | {"num_key_value_heads": keys}),
        checkpoint(there, metadata=metadata(architecture, 1)),
    )
    assert len(found.pairs) == 3
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)


GPT2 = {
    "transformer.wte.weight": (32, 8),
    "transformer.h.0.ln_1.weight": (8,),
    **{
        f"transformer.h.0.{module}.{leaf}": shape
        for module, rows, columns in (
            ("attn.c_attn", 8, 24),
            ("attn.c_proj", 8, 8),
            ("mlp.c_fc", 8, 32),
        )
        for leaf, shape in (("weight", (rows, columns)), ("bias", (columns,)))
    },
}


@pytest.mark.parametrize("quantizes", [True, False])
def test_gguf_gpt2_is_transposed(quantizes: bool):
    names = {
        "transformer.wte.weight": "token_embd.weight",
        "transformer.h.0.ln_1.weight": "blk.0.attn_norm.weight",
        **{
            f"transformer.h.0.{module}.{leaf}": f"blk.0.{there}.{leaf}"
            for module, there in (
                ("attn.c_attn", "attn_qkv"),
                ("attn.c_proj", "attn_output"),
                ("mlp.c_fc", "ffn_up"),
            )
            for leaf in ("weight", "bias")
        },
    }
    original = checkpoint(GPT2)
    there = {
        names[name]: tensor.array.T.copy() if ".c_" in name else tensor.array
        for name, tensor in original.tensors.items()
    }
    quantized = checkpoint(there, metadata=metadata("gpt2", 1))
    found = pairs_of(original, quantized, chosen=lambda _: quantizes)
    assert entries_of(found) == names
    assert all(values_agree(one) for one in found.pairs)


def test_gguf_without_output_uses_the_embedding():
    original = checkpoint(LLAMA, config={"tie_word_embeddings": True})
    there = {gguf_name(name): shape for name, shape in UNTIED.items()}
    found = pairs_of(original, checkpoint(there, metadata=metadata("llama")))
    assert problems_of(found) == {}
    assert by_name(found)[HEAD].entry.name == "token_embd.weight"


# what the converter itself wrote

MODELS = sorted((Path(__file__).parent / "golden" / "gguf-models").iterdir())
NOT_COMPARED = {"bert": {"pooler.dense.weight", "pooler.dense.bias"}}
NOT_COMPARED["mamba"] = {"backbone.layers.0.mixer.A_log"}


def gguf_file(path: Path) -> Checkpoint:
    """A GGUF of floats, by the gguf package."""
    reader = gguf.GGUFReader(path)
    values = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert {array.dtype.name for array in values.values()} <= {"float16", "float32"}
    said = {key: str(field.contents()) for key, field in reader.fields.items()}
    return checkpoint(values, metadata=said)


@pytest.mark.parametrize("quantizes", [True, False], ids=["quantized", "plain"])
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_every_value_is_where_the_converter_put_it(folder: Path, quantizes: bool):
    opened = open_checkpoint(folder / "original.safetensors")
    quantized = gguf_file(folder / "model.gguf")
    found = pairs_of(opened, quantized, chosen=lambda n: quantizes and n.endswith("weight"))
    assert problems_of(found) == {}
    assert found.problems == ()
    assert [one.name for one in found.pairs if not values_agree(one)] == []
    dropped = NOT_COMPARED.get(folder.name, set())
    there = {n: t for n, t in opened.tensors.items() if n not in dropped}
    assert sum(one.original.raw.size for one in found.pairs) == sum(
        tensor.raw.size for tensor in there.values()
    )
    held: Counter[str] = Counter()
    for one in found.pairs:
        held[one.entry.name] += prod(one.original.shape)
    for name, tensor in quantized.tensors.items():
        assert held[name] == (0 if name.endswith("ssm_a") else prod(tensor.shape)), name
