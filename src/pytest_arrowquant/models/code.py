"""A diffusion language model of code, 12 layers of 768.

A decoder block as code models have it: grouped-query attention (12 query and 4 key-value heads
of 64) with separate projections, a gated MLP of 2048, no adaLN; the timestep enters through one
MLP, and the vocabulary of 32100 is that of CodeT5 (Wang et al. 2021), tied to the output.

Inputs: as in text, but with outliers 15 times larger; 30 % of the tokens that are not masked repeat
one of a few vectors exactly (indentation, brackets), and the covariance falls faster. The MLP's
last layer is fed silu(gate) * up, so that a factor taken out of a row of `up_proj` comes back in a
column of `down_proj` exactly. The embedding's inputs are those of the output that it is tied to.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .features import Features
from .fields import silu
from .layer import SyntheticLayer
from .signals import Conditioning, TimeEmbedding
from .text import log_linear

HIDDEN, KEY_VALUE, GATED, VOCABULARY = 768, 256, 2048, 32100

ATTENDED = Features(decay=1.2, range_factor=2, noise=log_linear, repeated=0.3)
NORMED = replace(ATTENDED, outlier_share=0.004, outlier_gain=15)
PRODUCT = replace(ATTENDED, response=silu, gated=True)


def code_diffusion(blocks: Iterable[int], vocabulary: int = VOCABULARY) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("embed_tokens", (vocabulary, HIDDEN), "embedding", NORMED)
    yield SyntheticLayer("time_embed.0", (HIDDEN, 256), "mlp_in", TimeEmbedding(thousandths))
    yield SyntheticLayer("time_embed.2", (HIDDEN, HIDDEN), "mlp_out", Conditioning())
    for block in blocks:
        attention, mlp = f"layers.{block}.self_attn", f"layers.{block}.mlp"
        yield SyntheticLayer(f"{attention}.q_proj", (HIDDEN, HIDDEN), "attention_qk", NORMED)
        yield SyntheticLayer(f"{attention}.k_proj", (KEY_VALUE, HIDDEN), "attention_qk", NORMED)
        yield SyntheticLayer(f"{attention}.v_proj", (KEY_VALUE, HIDDEN), "attention_v", NORMED)
        yield SyntheticLayer(f"{attention}.o_proj", (HIDDEN, HIDDEN), "attention_out", ATTENDED)
        yield SyntheticLayer(f"{mlp}.gate_proj", (GATED, HIDDEN), "mlp_in", NORMED)
        yield SyntheticLayer(f"{mlp}.up_proj", (GATED, HIDDEN), "mlp_in", NORMED)
        yield SyntheticLayer(
            f"{mlp}.down_proj", (HIDDEN, GATED), "mlp_out", PRODUCT, producer=f"{mlp}.up_proj"
        )


def thousandths(time: float) -> float:
    """The timestep of a thousand that a time embedding is told."""
    return 999 * time
