"""A diffusion language model of code, 12 layers of 768.

A decoder block as code models have it: grouped-query attention (12 query and 4 key-value heads
of 64) with separate projections, a gated MLP of 2048, no adaLN; the timestep enters through one
MLP, and the vocabulary of 32100 is that of CodeT5 (Wang et al. 2021), tied to the output.
"""

from collections.abc import Iterator

from .draw import SyntheticLayer

HIDDEN, KEY_VALUE, GATED, VOCABULARY = 768, 256, 2048, 32100


def code_diffusion(depth: int, vocabulary: int = VOCABULARY) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("embed_tokens", (vocabulary, HIDDEN), "embedding")
    yield SyntheticLayer("time_embed.0", (HIDDEN, 256), "mlp_in")
    yield SyntheticLayer("time_embed.2", (HIDDEN, HIDDEN), "mlp_out")
    for block in range(depth):
        attention, mlp = f"layers.{block}.self_attn", f"layers.{block}.mlp"
        yield SyntheticLayer(f"{attention}.q_proj", (HIDDEN, HIDDEN), "attention_qk")
        yield SyntheticLayer(f"{attention}.k_proj", (KEY_VALUE, HIDDEN), "attention_qk")
        yield SyntheticLayer(f"{attention}.v_proj", (KEY_VALUE, HIDDEN), "attention_v")
        yield SyntheticLayer(f"{attention}.o_proj", (HIDDEN, HIDDEN), "attention_out")
        yield SyntheticLayer(f"{mlp}.gate_proj", (GATED, HIDDEN), "mlp_in")
        yield SyntheticLayer(f"{mlp}.up_proj", (GATED, HIDDEN), "mlp_in")
        yield SyntheticLayer(f"{mlp}.down_proj", (HIDDEN, GATED), "mlp_out")
