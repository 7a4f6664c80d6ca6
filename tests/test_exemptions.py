"""What a config exempts from quantization, held against what is quantized."""

import re

from pairing_cases import (
    EMBEDDING,
    HEAD,
    LLAMA,
    UNTIED,
    checkpoint,
    exempting,
    pairs_of,
    problems_of,
)


def test_an_exemption_must_match():
    found = pairs_of(
        checkpoint(LLAMA),
        checkpoint(LLAMA),
        exempt=(
            exempting("re:.*self_atn.q_proj$", re.compile(r".*self_atn\.q_proj$").match),
            exempting("model.layers.9.mlp.up_proj"),
            exempting("lm_haed"),
            exempting("zzzzzzzzzzzz"),
        ),
    )
    assert found.problems == (
        (
            "ignore 're:.*self_atn.q_proj$' matches no module: did you mean "
            "'model.layers.0.self_attn.q_proj'?"
        ),
        (
            "ignore 'model.layers.9.mlp.up_proj' matches no module: did you mean "
            "'model.layers.0.mlp.up_proj'?"
        ),
        "ignore 'lm_haed' matches no module: did you mean 'lm_head'?",
        "ignore 'zzzzzzzzzzzz' matches no module",
    )
    assert problems_of(found) == {}


def test_exemptions_that_match_are_no_problem():
    exempt = (
        exempting("re:.*gate_proj", re.compile(r".*gate_proj").match),
        exempting("lm_head"),
        exempting("LlamaRMSNorm", lambda module: False),
    )
    found = pairs_of(
        checkpoint(LLAMA),
        checkpoint(LLAMA),
        chosen=lambda name: "gate" not in name and name not in (EMBEDDING, HEAD),
        exempt=exempt,
    )
    assert (problems_of(found), found.problems) == ({}, ())


def test_an_exempt_output_layer_may_be_tied():
    tied = checkpoint(UNTIED, config={"tie_word_embeddings": True})
    found = pairs_of(tied, tied, exempt=(exempting("lm_head"),))
    assert found.problems == ()


def test_what_is_exempt_may_not_be_quantized():
    name = "model.layers.1.mlp.down_proj"
    found = pairs_of(checkpoint(LLAMA), checkpoint(LLAMA), exempt=(exempting(name),))
    assert problems_of(found) == {
        f"{name}.weight": f"quantized, though the config exempts it by '{name}'"
    }


def test_a_weight_left_unquantized_must_be_declared():
    name = "model.layers.1.mlp.down_proj"
    never = ("embed", "head")  # of these kinds none is quantized: nothing to declare

    def quantized(one: str) -> bool:
        return not one.startswith(name) and not any(kind in one for kind in never)

    found = pairs_of(checkpoint(LLAMA), checkpoint(LLAMA), chosen=quantized, exempt=())
    assert problems_of(found) == {
        f"{name}.weight": (
            "stored unquantized and not declared, while 2 of 3 of its kind are quantized"
        )
    }
    declared = (exempting(name),)
    found = pairs_of(checkpoint(LLAMA), checkpoint(LLAMA), chosen=quantized, exempt=declared)
    assert problems_of(found) == {}
    found = pairs_of(checkpoint(LLAMA), checkpoint(LLAMA), chosen=quantized, exempt=None)
    assert problems_of(found) == {}


def test_an_unquantized_expert_must_be_declared():
    shapes = {f"model.layers.0.mlp.experts.{e}.up_proj.weight": (6, 4) for e in range(4)}
    lost = "model.layers.0.mlp.experts.2.up_proj.weight"
    found = pairs_of(
        checkpoint(shapes), checkpoint(shapes), chosen=lambda name: name != lost, exempt=()
    )
    assert problems_of(found) == {
        lost: "stored unquantized and not declared, while 3 of 4 of its kind are quantized"
    }


def test_biases_and_norms_need_no_declaration():
    shapes = {"a.0.weight": (4, 4), "a.1.weight": (4, 4), "a.1.bias": (4,), "norm.weight": (4,)}
    assert problems_of(pairs_of(checkpoint(shapes), checkpoint(shapes), exempt=())) == {}


def test_an_exemption_may_use_the_originals_name():
    here = {
        "model.layers.0.mlp.up_proj.weight": (4, 4),
        "model.layers.1.mlp.up_proj.weight": (4, 4),
    }
    there = {f"language_{name}": shape for name, shape in here.items()}
    there = {n.replace("language_model", "language_model.model"): s for n, s in there.items()}
    pattern = exempting("re:^model.layers.1", re.compile(r"^model\.layers\.1").match)
    for exemption in (pattern, exempting("model.layers.1.mlp.up_proj")):
        found = pairs_of(
            checkpoint(here),
            checkpoint(there),
            chosen=lambda name: "layers.1" not in name,
            exempt=(exemption,),
        )
        assert (problems_of(found), found.problems) == ({}, ())


def test_an_exemption_may_name_a_module_as_the_model_does():
    """transformers 4.52 moved `language_model.model` in the model, not in the files."""
    shapes = {f"language_model.model.layers.{n}.mlp.up_proj.weight": (4, 4) for n in range(2)}
    found = pairs_of(
        checkpoint(shapes),
        checkpoint(shapes),
        chosen=lambda name: "layers.1" not in name,
        exempt=(exempting("model.language_model.layers.1.mlp.up_proj"),),
    )
    assert (problems_of(found), found.problems) == ({}, ())


def test_an_exemption_of_a_module_reaches_what_begins_with_its_name():
    """Some producers match by substring: `mlp.gate` exempts `mlp.gate_proj` too."""
    name = "model.layers.1.mlp.gate"
    shapes = {f"{name}.weight": (3, 8), f"{name}_proj.weight": (12, 8)}
    found = pairs_of(
        checkpoint(shapes),
        checkpoint(shapes),
        chosen=lambda one: "gate_proj" in one,
        exempt=(exempting(name, lambda module: name in module),),
    )
    assert problems_of(found) == {
        f"{name}_proj.weight": f"quantized, though the config exempts it by '{name}'"
    }
