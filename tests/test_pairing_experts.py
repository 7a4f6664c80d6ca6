"""Pairing of experts: apart, stacked, fused, in any order of axes."""

from collections.abc import Iterable

import numpy as np
import pytest

from pairing_cases import (
    by_name,
    checkpoint,
    entries_of,
    metadata,
    numbered,
    pairs_of,
    problems_of,
    values_agree,
)


def moe(experts: int, form: str, kinds: Iterable[str], layers: int = 2) -> dict[str, np.ndarray]:
    """Experts' weights, [out, in] each, the values by layer, expert and kind."""
    shapes = ((6, 4), (6, 4), (4, 6))  # gate, up, down
    return {
        form.format(layer=layer, expert=expert, kind=kind): numbered(
            shape, 1000 * (layer * experts * 3 + expert * 3 + place)
        )
        for layer in range(layers)
        for expert in range(experts)
        for place, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    }


HF_QWEN = (
    "model.layers.{layer}.mlp.experts.{expert}.{kind}.weight",
    ("gate_proj", "up_proj", "down_proj"),
)
HF_MIXTRAL = (
    "model.layers.{layer}.block_sparse_moe.experts.{expert}.{kind}.weight",
    ("w1", "w3", "w2"),
)
MLX_QWEN = (
    "model.layers.{layer}.mlp.switch_mlp.{kind}.weight",
    ("gate_proj", "up_proj", "down_proj"),
)
MLX_MIXTRAL = (
    "model.layers.{layer}.block_sparse_moe.switch_mlp.{kind}.weight",
    ("gate_proj", "up_proj", "down_proj"),
)
GGUF = ("blk.{layer}.ffn_{kind}_exps.weight", ("gate", "up", "down"))


def stacks(experts: int, form: str, kinds: Iterable[str], layers: int = 2) -> dict[str, np.ndarray]:
    """The same values, the experts of a kind in one tensor."""
    ones = moe(experts, form + "|{expert}", kinds, layers)
    names = dict.fromkeys(name.partition("|")[0] for name in ones)
    return {name: np.stack([ones[f"{name}|{e}"] for e in range(experts)]) for name in names}


@pytest.mark.parametrize("quantizes", [True, False], ids=["quantized", "plain"])
@pytest.mark.parametrize(
    ("here", "there", "architecture"),
    [
        (HF_QWEN, GGUF, "qwen2moe"),
        (HF_MIXTRAL, GGUF, "llama"),
        (HF_QWEN, MLX_QWEN, ""),
        (HF_MIXTRAL, MLX_MIXTRAL, ""),
    ],
    ids=["qwen-gguf", "mixtral-gguf", "qwen-mlx", "mixtral-mlx"],
)
def test_stacked_experts(here, there, architecture, quantizes):
    original = checkpoint(moe(3, *here))
    said = metadata(architecture, 2) if architecture else {}
    quantized = checkpoint(stacks(3, *there), metadata=said)
    found = pairs_of(original, quantized, chosen=lambda _: quantizes)
    assert [one.name for one in found.pairs] == sorted(original.tensors)
    assert problems_of(found) == {}
    assert found.problems == ()
    assert all(values_agree(one) for one in found.pairs)
    assert all((one.rows == len(one.original.array)) == quantizes for one in found.pairs)


def test_shared_experts_are_no_stack():
    shared = {
        "model.layers.0.mlp.shared_expert.up_proj.weight": (6, 4),
        "model.layers.0.mlp.gate.weight": (3, 4),
    }
    original = checkpoint(
        moe(3, *HF_QWEN, layers=1) | {name: numbered(shape) for name, shape in shared.items()}
    )
    there = stacks(3, *GGUF, layers=1) | {
        "blk.0.ffn_up_shexp.weight": numbered((6, 4)),
        "blk.0.ffn_gate_inp.weight": numbered((3, 4)),
    }
    found = pairs_of(original, checkpoint(there, metadata=metadata("qwen2moe", 1)))
    assert problems_of(found) == {}
    named = entries_of(found)
    assert named["model.layers.0.mlp.shared_expert.up_proj.weight"] == "blk.0.ffn_up_shexp.weight"
    assert named["model.layers.0.mlp.gate.weight"] == "blk.0.ffn_gate_inp.weight"


def test_experts_under_other_names():
    found = pairs_of(checkpoint(moe(2, *HF_MIXTRAL)), checkpoint(moe(2, *HF_QWEN)))
    assert problems_of(found) == {}
    assert len(found.pairs) == 12
    assert all(values_agree(one) for one in found.pairs)


@pytest.mark.parametrize("quantizes", [True, False])
def test_gate_and_up_in_one_stack(quantizes: bool):
    parts = stacks(3, *GGUF, layers=1)
    fused = np.concatenate(
        [parts["blk.0.ffn_gate_exps.weight"], parts["blk.0.ffn_up_exps.weight"]], 1
    )
    there = {
        "blk.0.ffn_gate_up_exps.weight": fused,
        "blk.0.ffn_down_exps.weight": parts["blk.0.ffn_down_exps.weight"],
    }
    found = pairs_of(
        checkpoint(moe(3, *HF_QWEN, layers=1)),
        checkpoint(there, metadata=metadata("qwen2moe", 1)),
        chosen=lambda _: quantizes,
    )
    assert len(found.pairs) == 9
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)


@pytest.mark.parametrize("layout", ["rows", "columns", "interleaved"])
@pytest.mark.parametrize("there", ["apart", "stacked"])
def test_an_original_that_is_stacked(layout: str, there: str):
    """transformers 5: [E, 2 ffn, in]; Llama 4: [E, in, 2 ffn]; GPT-OSS: gate and up in turn."""
    parts = stacks(3, *GGUF, layers=1)
    gate, up, down = (parts[f"blk.0.ffn_{kind}_exps.weight"] for kind in ("gate", "up", "down"))
    if layout == "rows":
        gate_up = np.concatenate([gate, up], axis=1)
    elif layout == "columns":
        gate_up = np.concatenate([gate, up], axis=1).transpose(0, 2, 1)
    else:
        gate_up = np.stack([gate, up], axis=2).reshape(3, 12, 4).transpose(0, 2, 1)
    down = down if layout == "rows" else down.transpose(0, 2, 1)
    config = {"model_type": "gpt_oss"} if layout == "interleaved" else {}
    original = checkpoint(
        {
            "model.layers.0.mlp.experts.gate_up_proj": np.ascontiguousarray(gate_up),
            "model.layers.0.mlp.experts.down_proj": np.ascontiguousarray(down),
        },
        config=config,
    )
    if there == "apart":
        quantized = checkpoint(moe(3, *HF_QWEN, layers=1))
    else:
        quantized = checkpoint(parts, metadata=metadata("qwen3moe", 1))
    found = pairs_of(original, quantized)
    assert [one.name for one in found.pairs] == sorted(moe(3, *HF_QWEN, layers=1))
    assert problems_of(found) == {}
    assert all(values_agree(one) for one in found.pairs)
    assert all(one.transposed == (layout != "rows") for one in found.pairs)


def test_biases_of_stacked_experts():
    gate_up = numbered((2, 12))
    original = checkpoint(
        {"model.layers.0.mlp.experts.gate_up_proj_bias": gate_up}, config={"model_type": "gpt_oss"}
    )
    quantized = checkpoint(
        {"blk.0.ffn_gate_exps.bias": gate_up[:, ::2], "blk.0.ffn_up_exps.bias": gate_up[:, 1::2]},
        metadata=metadata("gpt-oss", 1),
    )
    found = pairs_of(original, quantized, chosen=lambda _: False)
    assert problems_of(found) == {}
    assert len(found.pairs) == 4
    assert all(values_agree(one) for one in found.pairs)


def test_stacks_on_both_sides_under_one_name_stay_whole():
    shapes = {"model.layers.0.mlp.experts.gate_up_proj": (3, 12, 4)}
    found = pairs_of(checkpoint(shapes), checkpoint(shapes))
    assert [(one.name, one.rows) for one in found.pairs] == [(*shapes, 0)]


def test_an_expert_that_is_lost_fails_alone():
    there = moe(3, *HF_QWEN)
    del there["model.layers.1.mlp.experts.2.up_proj.weight"]
    for here in (HF_QWEN, HF_MIXTRAL):
        found = pairs_of(checkpoint(moe(3, *here)), checkpoint(there))
        [(name, problem)] = problems_of(found).items()
        assert name == here[0].format(layer=1, expert=2, kind=here[1][1])
        assert problem.startswith("missing in the quantized checkpoint")


def test_an_expert_of_an_original_stack_that_is_lost_fails_alone():
    parts = stacks(3, *GGUF, layers=1)
    down = parts["blk.0.ffn_down_exps.weight"]
    there = moe(3, *HF_QWEN, layers=1)
    del there["model.layers.0.mlp.experts.1.down_proj.weight"]
    original = checkpoint({"model.layers.0.mlp.experts.down_proj": down})
    found = pairs_of(original, checkpoint({n: v for n, v in there.items() if "down" in n}))
    assert len(found.pairs) == 3
    [(name, problem)] = problems_of(found).items()
    assert name == "model.layers.0.mlp.experts.1.down_proj.weight"
    assert problem.startswith("missing in the quantized checkpoint")
    assert np.array_equal(by_name(found)[name].original.array, down[1])


def test_stacks_of_other_sizes_are_a_problem_of_the_checkpoint():
    found = pairs_of(checkpoint(moe(3, *HF_QWEN)), checkpoint(stacks(4, *MLX_QWEN)))
    assert len(found.problems) == 6
    assert found.problems[0] == (
        "'model.layers.0.mlp.switch_mlp.down_proj.weight' stacks 4 experts, the original has 3"
    )
