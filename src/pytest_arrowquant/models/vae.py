"""The KL autoencoder of Stable Diffusion (Rombach et al. 2022), encoder and decoder.

Residual blocks of GroupNorm, SiLU and 3 x 3 convolutions at 128, 256, 512 and 512 channels, two a
level down and three up, single-head attention of 1 x 1 convolutions in the middle, 4 latent
channels; shapes and names from CompVis/stable-diffusion ldm/modules/diffusionmodules/model.py and
configs/stable-diffusion/v1-inference.yaml.

Inputs: windows of a picture whose spectrum falls as 1 / f^2, channels whose ranges spread over a
factor of 18 (read off a figure of Shang et al. 2023, PTQ4DM), SiLU before the convolutions of a
residual block. It runs once, after the last denoising step or before the first: one timestep.
"""

from collections.abc import Iterator
from dataclasses import replace

from .features import Features
from .fields import natural_image, silu
from .layer import SyntheticLayer

WIDTHS = (128, 256, 512, 512)
MIDDLE, LATENTS = WIDTHS[-1], 4
SMALL = ("conv_in", "mid.attn_1", "up.0.block.0", "conv_out")  # of the decoder

PIXELS = Features(spread=0, neighbours=natural_image, steps=1)
RESIDUAL = replace(PIXELS, span=18)
ACTIVATED = replace(RESIDUAL, response=silu)
ATTENDED = Features(steps=1)
NORMED = replace(ATTENDED, spread=0, span=18)


def vae() -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass, encoder first."""
    yield _convolution("encoder.conv_in", WIDTHS[0], 3, PIXELS)
    width = WIDTHS[0]
    for level, out in enumerate(WIDTHS):
        for block in range(2):
            yield from _residual(f"encoder.down.{level}.block.{block}", width, out)
            width = out
        if level < len(WIDTHS) - 1:
            yield _convolution(f"encoder.down.{level}.downsample.conv", width, width, RESIDUAL)
    yield from _middle("encoder.mid")
    yield _convolution("encoder.conv_out", 2 * LATENTS, MIDDLE, ACTIVATED)
    yield _pointwise("quant_conv", 2 * LATENTS, 2 * LATENTS, ATTENDED)
    yield _pointwise("post_quant_conv", LATENTS, LATENTS, ATTENDED)
    yield _convolution("decoder.conv_in", MIDDLE, LATENTS, PIXELS)
    yield from _middle("decoder.mid")
    width = MIDDLE
    for level, out in reversed(list(enumerate(WIDTHS))):
        for block in range(3):
            yield from _residual(f"decoder.up.{level}.block.{block}", width, out)
            width = out
        if level > 0:
            yield _convolution(f"decoder.up.{level}.upsample.conv", width, width, RESIDUAL)
    yield _convolution("decoder.conv_out", 3, WIDTHS[0], ACTIVATED)


def small_vae() -> Iterator[SyntheticLayer]:
    """The decoder's first and last layers, its attention and one residual block."""
    names = tuple(f"decoder.{name}" for name in SMALL)
    return (layer for layer in vae() if layer.name.startswith(names))


def _middle(name: str) -> Iterator[SyntheticLayer]:
    yield from _residual(f"{name}.block_1", MIDDLE, MIDDLE)
    attention = f"{name}.attn_1"
    for projection in "qkv":
        yield _pointwise(f"{attention}.{projection}", MIDDLE, MIDDLE, NORMED)
    out = _pointwise(f"{attention}.proj_out", MIDDLE, MIDDLE, ATTENDED)
    yield replace(out, producer=f"{attention}.v")  # a mean over positions, channel by channel
    yield from _residual(f"{name}.block_2", MIDDLE, MIDDLE)


def _residual(name: str, width: int, out: int) -> Iterator[SyntheticLayer]:
    yield _convolution(f"{name}.conv1", out, width, ACTIVATED)
    yield _convolution(f"{name}.conv2", out, out, ACTIVATED)
    if width != out:
        yield _pointwise(f"{name}.nin_shortcut", out, width, RESIDUAL)


def _convolution(name: str, out: int, width: int, inputs: Features) -> SyntheticLayer:
    return SyntheticLayer(name, (out, width, 3, 3), "convolution", inputs)


def _pointwise(name: str, out: int, width: int, inputs: Features) -> SyntheticLayer:
    return SyntheticLayer(name, (out, width, 1, 1), "convolution", inputs)
