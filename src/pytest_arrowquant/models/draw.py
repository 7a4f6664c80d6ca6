"""Draws weights like those of trained networks: tails, row and column scales, outlier columns.

    W[i, j] = sigma * r_i * c_j * t        t: Student's t of unit variance, nu degrees of freedom
    r_i = exp(tau_r z), c_j = exp(tau_c z), and a share of the input channels times a gain

sigma = g / sqrt(fan_in), g uniform in [0.7, 1.4]: once to twice the usual initialisation. The
parameters of each kind are chosen so that the Weibull shape of |w| and its kurtosis are those
measured on trained models of that kind (0.96 to 1.20 over attention, MLP and embeddings).
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from ..arrays import Array


@dataclass(frozen=True, slots=True)
class Kind:
    """Statistics of one kind of layer.

    nu: degrees of freedom of the tails. row_spread, column_spread: standard deviation of the
    logarithm of the scales. outlier_share of the input channels are outlier_gain times larger.
    damping: what residual output layers are scaled by.
    """

    nu: float
    row_spread: float
    column_spread: float
    outlier_share: float = 0.0
    outlier_gain: float = 1.0
    damping: float = 1.0


KINDS = {
    "mlp_in": Kind(28, 0.07, 0.07),
    "mlp_out": Kind(28, 0.07, 0.07, damping=0.5**0.5),
    "attention_out": Kind(28, 0.07, 0.07, damping=0.5**0.5),
    "attention_qkv": Kind(10, 0.30, 0.15),
    "attention_qk": Kind(9, 0.22, 0.10),
    "attention_v": Kind(12, 0.20, 0.10),
    "embedding": Kind(6, 0.30, 0.10),
    "dit": Kind(20, 0.10, 0.15, outlier_share=0.005, outlier_gain=4),
    "modulation": Kind(4, 0.30, 0.50),
    "convolution": Kind(8, 0.30, 0.20),
}


def channel_order(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """The input channels in the order in which they become outliers, the weight's first.

    The first thing that a weight's generator draws, so that inputs can have their own outliers
    elsewhere: the two are seen in different channels (Wu et al. 2024, PTQ4DiT).
    """
    return generator.permutation(shape[1])


def draw(shape: tuple[int, ...], kind: Kind, generator: np.random.Generator) -> Array:
    """A weight of this kind, float32, of two dimensions or more."""
    rows, channels, window = shape[0], shape[1], prod(shape[2:])
    outliers = channel_order(shape, generator)[: round(kind.outlier_share * channels)]
    weight = _student_t((rows, channels * window), kind.nu, generator)
    row_scales = np.exp(kind.row_spread * generator.standard_normal(rows))
    channel_scales = np.exp(kind.column_spread * generator.standard_normal(channels))
    channel_scales[outliers] *= kind.outlier_gain
    sigma = generator.uniform(0.7, 1.4) * kind.damping / (channels * window) ** 0.5
    weight *= (sigma * row_scales[:, None]).astype(np.float32)
    weight *= np.repeat(channel_scales, window).astype(np.float32)
    return weight.reshape(shape)


def _student_t(shape: tuple[int, int], nu: float, generator: np.random.Generator) -> Array:
    """Student's t of unit variance: z * sqrt((nu - 2) / chi2), chi2 = 2 Gamma(nu / 2)."""
    values = generator.standard_normal(shape, np.float32)
    chi2 = generator.standard_gamma(nu / 2, shape, np.float32)
    chi2 *= np.float32(2 / (nu - 2))
    values /= np.sqrt(chi2, out=chi2)
    return values
