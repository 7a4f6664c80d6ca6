"""MDLM: a masked discrete-diffusion language model (Sahoo et al. 2024), 12 layers of 768.

Shapes of its DDiT backbone: merged qkv without bias, GELU MLP of 4 x 768, and adaLN modulation
from a timestep embedding of 128; the vocabulary is that of bert-base-uncased.
"""

from collections.abc import Iterator

from .draw import SyntheticLayer

HIDDEN, CONDITION, VOCABULARY = 768, 128, 30522


def mdlm(depth: int, vocabulary: int = VOCABULARY) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("vocab_embed.embedding", (vocabulary, HIDDEN), "embedding")
    yield SyntheticLayer("sigma_map.mlp.0", (CONDITION, 256), "mlp_in")
    yield SyntheticLayer("sigma_map.mlp.2", (CONDITION, CONDITION), "mlp_out")
    for block in range(depth):
        name = f"blocks.{block}"
        yield SyntheticLayer(f"{name}.adaLN_modulation", (6 * HIDDEN, CONDITION), "modulation")
        yield SyntheticLayer(f"{name}.attn_qkv", (3 * HIDDEN, HIDDEN), "attention_qkv")
        yield SyntheticLayer(f"{name}.attn_out", (HIDDEN, HIDDEN), "attention_out")
        yield SyntheticLayer(f"{name}.mlp.0", (4 * HIDDEN, HIDDEN), "mlp_in")
        yield SyntheticLayer(f"{name}.mlp.2", (HIDDEN, 4 * HIDDEN), "mlp_out")
    yield SyntheticLayer("output_layer.adaLN_modulation", (2 * HIDDEN, CONDITION), "modulation")
    yield SyntheticLayer("output_layer.linear", (vocabulary, HIDDEN), "embedding")
