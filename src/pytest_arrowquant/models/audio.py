"""WaveGrad's kinds of layers (Chen et al. 2021) in a stack of 16 blocks of 512 channels.

Dilated Conv1d pairs, a FiLM generator from the noise level beside each (its output gives scale
and shift), 1 x 1 residual convolutions; waveform in and out through one channel, mel spectrogram
of 128 bands as condition.
"""

from collections.abc import Iterator

from .draw import SyntheticLayer

CHANNELS, MEL_BANDS = 512, 128


def wavegrad(depth: int) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("first_conv", (CHANNELS, 1, 5), "convolution")
    yield SyntheticLayer("mel_conv", (CHANNELS, MEL_BANDS, 3), "convolution")
    for block in range(depth):
        film, body = f"film.{block}", f"blocks.{block}"
        yield SyntheticLayer(f"{film}.input_conv", (CHANNELS, CHANNELS, 3), "convolution")
        yield SyntheticLayer(f"{film}.output_conv", (2 * CHANNELS, CHANNELS, 3), "convolution")
        yield SyntheticLayer(f"{body}.residual", (CHANNELS, CHANNELS, 1), "convolution")
        yield SyntheticLayer(f"{body}.conv.0", (CHANNELS, CHANNELS, 3), "convolution")
        yield SyntheticLayer(f"{body}.conv.1", (CHANNELS, CHANNELS, 3), "convolution")
    yield SyntheticLayer("last_conv", (1, CHANNELS, 3), "convolution")
