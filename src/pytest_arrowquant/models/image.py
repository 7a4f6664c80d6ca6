"""DiT-L/2: a diffusion transformer for images (Peebles and Xie 2023), 24 layers of 1024.

Patches of 2 x 2 in 4 latent channels, 1000 classes and a null class, adaLN-zero modulation of
6 x 1024 in every block.
"""

from collections.abc import Iterator

from .draw import SyntheticLayer

HIDDEN, CLASSES, PATCH_OUT = 1024, 1001, 32


def dit(depth: int) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("x_embedder.proj", (HIDDEN, 4, 2, 2), "convolution")
    yield SyntheticLayer("t_embedder.mlp.0", (HIDDEN, 256), "dit")
    yield SyntheticLayer("t_embedder.mlp.2", (HIDDEN, HIDDEN), "dit")
    yield SyntheticLayer("y_embedder.embedding_table", (CLASSES, HIDDEN), "embedding")
    for block in range(depth):
        name = f"blocks.{block}"
        yield SyntheticLayer(f"{name}.adaLN_modulation.1", (6 * HIDDEN, HIDDEN), "modulation")
        yield SyntheticLayer(f"{name}.attn.qkv", (3 * HIDDEN, HIDDEN), "attention_qkv")
        yield SyntheticLayer(f"{name}.attn.proj", (HIDDEN, HIDDEN), "dit")
        yield SyntheticLayer(f"{name}.mlp.fc1", (4 * HIDDEN, HIDDEN), "dit")
        yield SyntheticLayer(f"{name}.mlp.fc2", (HIDDEN, 4 * HIDDEN), "dit")
    yield SyntheticLayer("final_layer.adaLN_modulation.1", (2 * HIDDEN, HIDDEN), "modulation")
    yield SyntheticLayer("final_layer.linear", (PATCH_OUT, HIDDEN), "dit")
