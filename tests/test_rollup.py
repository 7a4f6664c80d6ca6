"""The roll-up of an audit: names into places, and rows whose metrics are those of all weights."""

import numpy as np
import pytest

from audit_records import audited, broken, language_model, missing
from pytest_arrowquant import Rtn
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.report.places import Place, places_of
from pytest_arrowquant.report.rollup import rollup_lines, rollup_of

PLACES = {  # name: stack, layer, expert, role
    "model.layers.12.mlp.experts.3.down_proj.weight": ("model.layers", 12, 3, "down_proj"),
    "model.layers.12.self_attn.q_proj.weight": ("model.layers", 12, None, "q_proj"),
    "model.layers.12.self_attn.q_proj.bias": ("model.layers", 12, None, "q_proj.bias"),
    "model.layers.0.block_sparse_moe.experts.7.w1.weight": ("model.layers", 0, 7, "w1"),
    "model.layers.3.mlp.experts.gate_up_proj": ("model.layers", 3, None, "gate_up_proj"),
    "transformer.h.10.attn.c_attn.weight": ("transformer.h", 10, None, "c_attn"),
    "blk.5.ffn_down.weight": ("blk", 5, None, "ffn_down"),
    "visual.transformer.resblocks.2.ln_1.weight": ("visual.transformer.resblocks", 2, None, "ln_1"),
    "blocks.7.adaLN_modulation.1.weight": ("blocks", 7, None, "adaLN_modulation.1"),
    "single_transformer_blocks.30.proj_mlp.weight": (
        "single_transformer_blocks", 30, None, "proj_mlp"),
    "encoder.block.4.layer.0.SelfAttention.k.weight": ("encoder.block", 4, None, "k"),
    "encoder.layer.1.attention.self.query.weight": ("encoder.layer", 1, None, "query"),
    "down_blocks.1.attentions.0.transformer_blocks.2.attn1.to_out.0.weight": (
        "down_blocks", 1, None, "to_out.0"),
    "model.embed_tokens.weight": ("", None, None, "embed_tokens"),
    "lm_head.weight": ("", None, None, "lm_head"),
    "weight": ("", None, None, "weight"),
    "layers.3": ("", None, None, "layers.3"),  # a list of parameters, not a layer
    "model.players_1.weight": ("", None, None, "players_1"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_name_says_layer_expert_and_role(name):
    assert places_of(PLACES)[name] == Place(*PLACES[name])


def roles(*names: str) -> list[str]:
    places = places_of(names)
    return [places[name].role for name in names]


def test_a_role_has_as_many_parts_as_tell_it_from_the_others():
    assert roles("h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight", "h.0.mlp.c_fc.weight") == [
        "attn.c_proj", "mlp.c_proj", "c_fc",
    ]  # fmt: skip
    deep = [f"layers.1.mlp.{part}.down_proj.weight" for part in ("experts.5", "shared_experts")]
    assert roles(*deep, "layers.0.mlp.down_proj.weight") == [
        "experts.down_proj", "shared_experts.down_proj", "mlp.down_proj",
    ]  # fmt: skip
    assert roles("layers.0.norm.weight", "model.norm.weight") == ["norm", "model.norm"]
    assert roles("layers.0.mlp.0.weight", "layers.0.mlp.2.weight") == ["mlp.0", "mlp.2"]
    both = ("encoder.layers.0.fc1.weight", "decoder.layers.0.fc1.weight")
    assert roles(*both) == ["fc1", "fc1"]  # the same in every stack


def measured(name: str, weight, restored):
    """The record of an audit as arrays give it."""
    records: list = []
    nbytes = weight.size // 2 + 16
    Accuracy(records).measure(weight, restored, name=name, bits=4, nbytes=nbytes)
    records[0].stored_as = "quantized"
    return records[0].to_json()


def test_a_row_has_the_metrics_of_all_its_weights_laid_end_to_end():
    """Against numpy on the weights themselves; tensors of unlike size, scale and accuracy."""
    draw, pairs = np.random.default_rng(7), {}
    for layer, expert, size, scale in ((0, 0, 64, 1.0), (0, 1, 192, 9.0), (1, 0, 128, 0.02)):
        weight = scale * draw.standard_normal((16, size)).astype(np.float32)
        restored = Rtn(group_size=32).quantize(weight, 4 if layer else 2).dequantize()
        pairs[f"layers.{layer}.experts.{expert}.w1.weight"] = weight, restored * (1 + 0.1 * expert)
    rollup = rollup_of(measured(name, *pair) for name, pair in pairs.items())
    members = {
        ("layers", 0): ("layers.0.experts.0.w1.weight", "layers.0.experts.1.w1.weight"),
        ("layers", 1): ("layers.1.experts.0.w1.weight",),
        ("experts", 0): ("layers.0.experts.0.w1.weight", "layers.1.experts.0.w1.weight"),
        ("experts", 1): ("layers.0.experts.1.w1.weight",),
        ("roles", 0): tuple(pairs),
    }
    assert [len(rows) for rows in rollup.values()] == [2, 2, 1]
    for (kind, place), names in members.items():
        row = rollup[kind][place]
        w, r = (
            np.concatenate([pairs[name][side].reshape(-1) for name in names]).astype(np.float64)
            for side in (0, 1)
        )
        assert row["cosine"] == pytest.approx(w @ r / np.sqrt((w @ w) * (r @ r)), rel=1e-6)
        noise = ((w - r) ** 2).sum()
        assert row["sqnr_db"] == pytest.approx(10 * np.log10((w @ w) / noise), rel=1e-5)
        stored = sum(pairs[name][0].size // 2 + 16 for name in names)
        assert row["bits_per_weight"] == 8 * stored / w.size
        assert (row["count"], row["measured"]) == (len(names), len(names))


def test_rows_count_all_tensors_and_pool_the_quantized_ones():
    records = [
        audited("model.layers.0.mlp.up_proj.weight", 20.0, energy=3.0),
        broken("model.layers.0.mlp.down_proj.weight", 1.0),
        audited("model.layers.0.input_layernorm.weight"),
        missing("model.layers.1.mlp.up_proj.weight"),
        audited("model.layers.1.input_layernorm.weight"),
        audited("lm_head.weight", 30.0),
    ]
    first, second, outside = rollup_of(records)["layers"]
    assert (first["stack"], first["layer"]) == ("model.layers", 0)
    assert (first["count"], first["failed"], first["measured"]) == (3, 1, 2)
    noise = 3.0 * 10**-2.0 + 10**-0.1
    assert first["sqnr_db"] == pytest.approx(10 * np.log10(4.0 / noise))
    assert first["worst"] == "model.layers.0.mlp.down_proj.weight"
    assert (second["layer"], second["count"], second["failed"], second["measured"]) == (1, 2, 1, 0)
    assert (second["cosine"], second["sqnr_db"], second["bits_per_weight"]) == (None, None, None)
    assert second["worst"] == "model.layers.1.mlp.up_proj.weight"
    assert (outside["stack"], outside["layer"], outside["sqnr_db"]) == (
        None, None, pytest.approx(30.0),
    )  # fmt: skip
    assert rollup_of(records)["experts"] == []


def test_a_row_without_error_has_no_sqnr():
    records = [audited(f"layers.{n}.fc1.weight", 20.0) for n in (0, 1)]
    records[0]["energies"] = {"reference": 4.0, "restored": 4.0, "error": 0.0}
    exact, other = rollup_of(records)["layers"]
    assert (exact["cosine"], exact["sqnr_db"], exact["measured"]) == (1.0, None, 1)
    assert other["sqnr_db"] == pytest.approx(20.0)


def test_layers_and_experts_are_in_the_order_of_their_numbers():
    rollup = rollup_of(language_model(12, experts=11))
    assert [row["layer"] for row in rollup["layers"]] == [*range(12), None]
    assert [row["expert"] for row in rollup["experts"]] == [*range(11)]
    assert {row["count"] for row in rollup["experts"]} == {36}  # of 12 layers, 3 weights each
    for rows in (rollup["layers"], rollup["roles"]):
        assert sum(row["count"] for row in rows) == len(language_model(12, experts=11))


def test_the_worst_failed_first_then_comes_nearest_to_a_bound():
    records = [audited(f"layers.0.{name}.weight", at) for name, at in (("a", 12.0), ("b", 9.0))]
    assert rollup_of(records)["layers"][0]["worst"] == "layers.0.b.weight"
    records[0]["passed"] = False
    assert rollup_of(records)["layers"][0]["worst"] == "layers.0.a.weight"


def test_the_roll_up_in_words():
    records = [audited("h.0.fc1.weight", 20.0), broken("h.1.fc1.weight"), audited("head", 25.0)]
    assert rollup_lines(rollup_of(records)) == [
        "By layer",
        "  layer    its worst tensor  tensors  failed    cosine  SQNR dB  bits/weight",
        "  0        h.0.fc1.weight          1       -  0.994987    20.00        4.250",
        "  1        h.1.fc1.weight          1       1  0.329771     0.50        4.250",
        "  outside  head                    1       -  0.998418    25.00        4.250",
        "",
        "By role",
        "  role  its worst tensor  tensors  failed    cosine  SQNR dB  bits/weight",
        "  fc1   h.1.fc1.weight          2       1  0.741198     3.46        4.250",
        "  head  head                    1       -  0.998418    25.00        4.250",
        "",
    ]
    stacks = [audited(f"{side}.layers.0.fc1.weight", 20.0) for side in ("encoder", "decoder")]
    lines = rollup_lines(rollup_of(stacks))
    assert [line.split()[0] for line in lines[2:4]] == ["decoder.layers.0", "encoder.layers.0"]
    assert "By expert" not in lines
