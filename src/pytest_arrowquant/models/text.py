"""Text: MDLM and SEDD, diffusion language models that mask tokens, 12 layers of 768.

Both are a DDiT backbone: merged qkv without bias, GELU MLP of 4 x 768, adaLN modulation from a
noise embedding of 128, no tied weights. MDLM (Sahoo et al. 2024; kuleshov-group/mdlm models/dit.py)
has the vocabulary of bert-base-uncased, SEDD small (Lou et al. 2024; its model/transformer.py and
configs/model/small.yaml) that of GPT-2 and a mask, 50258.

Inputs: 0.4 % of the channels 20 times larger, the same at every timestep (LLM.int8, Dettmers et al.
2022); tokens masked as each family's noise has it; massive activations at the input of the MLP's
second layer (Sun et al. 2024). Total noise sigma(t) masks a token with probability 1 - exp(-sigma):
log-linear in MDLM (a share of t), geometric in SEDD, whose code has both; MDLM's own default feeds
its embedding no time. Here each is told its sigma, so that the two differ in their time laws.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import log1p

from .features import Features
from .fields import gelu
from .layer import SyntheticLayer
from .signals import Conditioning, TimeEmbedding

HIDDEN, CONDITION = 768, 128
MDLM_VOCABULARY, SEDD_VOCABULARY = 30522, 50258


def log_linear(time: float) -> float:
    """sigma(t) = -log(1 - (1 - 1e-3) t): the share of masked tokens is 0.999 t."""
    return -log1p(-(1 - 1e-3) * time)


def geometric(time: float) -> float:
    """sigma(t) = 1e-4^(1 - t) 20^t: few tokens are masked until t = 0.6, nearly all from 0.9."""
    return float(1e-4 ** (1 - time) * 20**time)


def mdlm(blocks: Iterable[int], vocabulary: int = MDLM_VOCABULARY) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield from _ddit(blocks, vocabulary, log_linear)


def sedd(blocks: Iterable[int], vocabulary: int = SEDD_VOCABULARY) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield from _ddit(blocks, vocabulary, geometric)


def _ddit(
    blocks: Iterable[int], vocabulary: int, noise: Callable[[float], float]
) -> Iterator[SyntheticLayer]:
    attended = Features(range_factor=2, noise=noise)
    normed = replace(attended, outlier_share=0.004, outlier_gain=20)
    activated = replace(attended, response=gelu, mean=-0.5, massive_share=0.02)
    condition = Conditioning()

    yield SyntheticLayer("vocab_embed.embedding", (vocabulary, HIDDEN), "embedding")
    yield SyntheticLayer("sigma_map.mlp.0", (CONDITION, 256), "mlp_in", TimeEmbedding(noise))
    yield SyntheticLayer("sigma_map.mlp.2", (CONDITION, CONDITION), "mlp_out", condition)
    for block in blocks:
        name = f"blocks.{block}"
        modulation = (6 * HIDDEN, CONDITION)
        yield SyntheticLayer(f"{name}.adaLN_modulation", modulation, "modulation", condition)
        yield SyntheticLayer(f"{name}.attn_qkv", (3 * HIDDEN, HIDDEN), "attention_qkv", normed)
        yield SyntheticLayer(f"{name}.attn_out", (HIDDEN, HIDDEN), "attention_out", attended)
        yield SyntheticLayer(f"{name}.mlp.0", (4 * HIDDEN, HIDDEN), "mlp_in", normed)
        yield SyntheticLayer(f"{name}.mlp.2", (HIDDEN, 4 * HIDDEN), "mlp_out", activated)
    last = "output_layer"
    yield SyntheticLayer(
        f"{last}.adaLN_modulation", (2 * HIDDEN, CONDITION), "modulation", condition
    )
    yield SyntheticLayer(f"{last}.linear", (vocabulary, HIDDEN), "embedding", normed)
