"""WaveGrad's kinds of layers (Chen et al. 2021) in a stack of 16 blocks of 512 channels.

Dilated Conv1d pairs, a FiLM generator from the noise level beside each (its output gives scale
and shift), 1 x 1 residual convolutions; waveform in and out through one channel, mel spectrogram
of 128 bands as condition. Kinds from lmnt-com/wavegrad src/wavegrad/model.py, whose own widths run
from 32 to 768.

Inputs: the waveform is sqrt(a) y + sqrt(1 - a) e with beta from 1e-6 to 0.01 and speech of an rms
of 0.07, so that its range grows 14-fold with the noise; that falls to 2.5 by the fourth block.
Neighbouring samples correlate with 0.9, 1 % of the channels are 6 times larger, FiLM scales each
channel by 1 + 0.5 sin over the schedule, activations are leaky ReLUs of slope 0.2. FiLM acts on
what enters a block; between its two convolutions is a leaky ReLU alone, as in WaveGrad's
downsampling blocks, so that a positive factor passes from one to the other exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .features import Features
from .fields import autoregressive, leaky_relu
from .layer import SyntheticLayer
from .signals import Noised

CHANNELS, MEL_BANDS = 512, 128

WAVEFORM = Noised(1e-6, 0.01, signal_rms=0.07, neighbours=autoregressive)
MEL = Features(neighbours=autoregressive)
FEATURES = replace(MEL, outlier_share=0.01, outlier_gain=6)
WAVEFORM_FACTOR, SETTLED_FACTOR, SETTLED_DEPTH = 14.0, 2.5, 4


def range_factor(block: int) -> float:
    """F of a block, log-linear from the waveform's 14 to 2.5 in the fourth and all after it."""
    share = max(0.0, 1 - (block + 1) / SETTLED_DEPTH)
    return float(SETTLED_FACTOR * (WAVEFORM_FACTOR / SETTLED_FACTOR) ** share)


def wavegrad(blocks: Iterable[int]) -> Iterator[SyntheticLayer]:
    """The layers in the order of the forward pass."""
    yield SyntheticLayer("first_conv", (CHANNELS, 1, 5), "convolution", WAVEFORM)
    yield SyntheticLayer("mel_conv", (CHANNELS, MEL_BANDS, 3), "convolution", MEL)
    for block in blocks:
        yield from _block(block)
    last = replace(FEATURES, range_factor=SETTLED_FACTOR)
    yield SyntheticLayer("last_conv", (1, CHANNELS, 3), "convolution", last)


def _block(block: int) -> Iterator[SyntheticLayer]:
    film, body = f"film.{block}", f"blocks.{block}"
    plain = replace(FEATURES, range_factor=range_factor(block))
    encoded = replace(plain, response=leaky_relu, shift=1)  # plus the encoding of the noise level
    filmed = replace(plain, response=leaky_relu, modulation=0.5)
    inner = replace(plain, response=leaky_relu)
    square = (CHANNELS, CHANNELS, 3)
    yield SyntheticLayer(f"{film}.input_conv", square, "convolution", plain)
    yield SyntheticLayer(f"{film}.output_conv", (2 * CHANNELS, CHANNELS, 3), "convolution", encoded)
    yield SyntheticLayer(f"{body}.residual", (CHANNELS, CHANNELS, 1), "convolution", plain)
    yield SyntheticLayer(f"{body}.conv.0", square, "convolution", filmed)
    yield SyntheticLayer(f"{body}.conv.1", square, "convolution", inner, producer=f"{body}.conv.0")
