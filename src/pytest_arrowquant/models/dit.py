"""DiT-L/2: a diffusion transformer for images (Peebles and Xie 2023), 24 layers of 1024.

Patches of 2 x 2 in 4 latent channels, 1000 classes and a null class, adaLN-zero modulation of
6 x 1024 in every block; shapes from facebookresearch/DiT models.py.

Inputs: 1.5 % of the channels 8 times larger, in other channels than the weight's outliers, and
every channel moving with the timestep by a factor of about 2, up to 4 (Wu et al. 2024, PTQ4DiT);
adaLN gains and shifts on top. The range over the timesteps grows by 1.05 in the first block, 1.8 in
the middle and 3 in the last (after a figure of Shang et al. 2023, PTQ4DM). The patches come from
the noised latents themselves: beta from 1e-4 to 0.02, linear.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from .code import thousandths
from .features import Features
from .fields import gelu, natural_image
from .layer import SyntheticLayer
from .signals import Conditioning, Noised, TimeEmbedding

HIDDEN, CLASSES, PATCH_OUT, DEPTH = 1024, 1001, 32, 24

LATENTS = Noised(1e-4, 0.02, signal_rms=1, neighbours=natural_image)
ATTENDED = Features(drift=0.5)
NORMED = replace(ATTENDED, outlier_share=0.015, outlier_gain=8, modulation=0.3, shift=0.2)
ACTIVATED = replace(ATTENDED, response=gelu, mean=-0.5)
CONDITION = Conditioning(labels=0.5)


def range_factor(block: int) -> float:
    """F of a block, log-linear through 1.05 in the first, 1.8 in the middle and 3 in the last."""
    known = np.log([1.05, 1.8, 3])
    return float(np.exp(np.interp(block / (DEPTH - 1), [0, 0.5, 1], known)))


def dit(blocks: Iterable[int]) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("x_embedder.proj", (HIDDEN, 4, 2, 2), "convolution", LATENTS)
    yield SyntheticLayer("t_embedder.mlp.0", (HIDDEN, 256), "dit", TimeEmbedding(thousandths))
    yield SyntheticLayer("t_embedder.mlp.2", (HIDDEN, HIDDEN), "dit", Conditioning())
    yield SyntheticLayer("y_embedder.embedding_table", (CLASSES, HIDDEN), "embedding")
    for block in blocks:
        name, factor = f"blocks.{block}", range_factor(block)
        normed = replace(NORMED, range_factor=factor)
        attended = replace(ATTENDED, range_factor=factor)
        activated = replace(ACTIVATED, range_factor=factor)
        modulation = f"{name}.adaLN_modulation.1"
        yield SyntheticLayer(modulation, (6 * HIDDEN, HIDDEN), "modulation", CONDITION)
        yield SyntheticLayer(f"{name}.attn.qkv", (3 * HIDDEN, HIDDEN), "attention_qkv", normed)
        yield SyntheticLayer(f"{name}.attn.proj", (HIDDEN, HIDDEN), "dit", attended)
        yield SyntheticLayer(f"{name}.mlp.fc1", (4 * HIDDEN, HIDDEN), "dit", normed)
        yield SyntheticLayer(f"{name}.mlp.fc2", (HIDDEN, 4 * HIDDEN), "dit", activated)
    last = replace(NORMED, range_factor=range_factor(DEPTH - 1))
    modulation = "final_layer.adaLN_modulation.1"
    yield SyntheticLayer(modulation, (2 * HIDDEN, HIDDEN), "modulation", CONDITION)
    yield SyntheticLayer("final_layer.linear", (PATCH_OUT, HIDDEN), "dit", last)
