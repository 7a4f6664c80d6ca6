"""Gaussian fields whose covariance is known, and what non-linear layers make of them.

A field has channels and, for convolutions, a window of positions. Its covariance is the product
of one over channels, with eigenvalues i^-decay, and one over the positions of the window. Nothing
here goes through BLAS, whose last bits may depend on its threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, prod, sqrt

import numpy as np

from ..arrays import Array

Response = Callable[[Array], Array]
GRID = 64  # pixels along a side of an image: the latents of a 512 x 512 picture


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The covariance of a field over channels: Fourier coefficients, then channels in any order.

    deviations: those of the real and imaginary parts, independent: float32 (coefficients, 2).
    order: the channel of the transform that each channel is, so that neighbours are as good as any.
    """

    deviations: Array
    order: Array

    @classmethod
    def power_law(cls, channels: int, decay: float, generator: np.random.Generator) -> "Spectrum":
        """Eigenvalue i is proportional to i^-decay, their mean 1; at which frequency, is drawn."""
        eigenvalues = np.arange(1, channels + 1) ** -float(decay)
        eigenvalues *= channels / eigenvalues.sum()
        flat = np.zeros(2 * (channels // 2 + 1))
        # A real field has no imaginary part at frequency 0, nor at the last one of an even count;
        # these have no conjugate twin that shares their energy.
        flat[np.r_[0, 2 : channels + 1]] = np.sqrt(generator.permutation(eigenvalues) / 2)
        flat[[0, channels] if channels % 2 == 0 else [0]] *= np.sqrt(2)
        return cls(flat.astype(np.float32).reshape(-1, 2), generator.permutation(channels))


def field(count: int, spectrum: Spectrum, mixing: Array, generator: np.random.Generator) -> Array:
    """Tokens of a field: float32 (count, channels, window), variance 1 on average over channels.

    mixing: the lower Cholesky factor of the correlation between positions, (window, window).
    """
    window, channels = len(mixing), len(spectrum.order)
    shape = (window, count, *spectrum.deviations.shape)
    parts = generator.standard_normal(shape, np.float32)
    parts *= spectrum.deviations
    coefficients = parts.view(np.complex64)[..., 0]
    values = np.fft.irfft(coefficients, n=channels, axis=2, norm="ortho")
    values = values.take(spectrum.order, axis=2)
    for i in reversed(range(window)):  # row i needs rows above it, not yet mixed
        values[i] *= mixing[i, i]
        for j in range(i):
            values[i] += mixing[i, j] * values[j]
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def cholesky_of(correlation: Array) -> Array:
    """The lower factor that `field` mixes with, float32."""
    return np.asarray(np.linalg.cholesky(correlation), np.float32)


def independent(window: tuple[int, ...]) -> Array:
    """No correlation between positions: the identity."""
    return np.eye(prod(window))


def autoregressive(window: tuple[int, ...]) -> Array:
    """Neighbouring samples of audio correlate with 0.9: r(i, j) = 0.9^|i - j|."""
    positions = np.arange(prod(window))
    return np.asarray(0.9 ** np.abs(positions[:, None] - positions))


def natural_image(window: tuple[int, ...]) -> Array:
    """Pixels of a GRID x GRID picture whose power spectrum falls as 1 / f^2 (Field 1987)."""
    frequency = np.fft.fftfreq(GRID)
    squared = frequency[:, None] ** 2 + frequency**2
    squared[0, 0] = np.inf  # a picture's mean is not its texture
    correlation: Array = np.fft.ifft2(1 / squared).real
    correlation /= correlation[0, 0]
    y, x = (axis.ravel() for axis in np.indices(window))
    return np.asarray(correlation[y[:, None] - y, x[:, None] - x])


def linear(x: Array) -> Array:
    """x."""
    return x


def leaky_relu(x: Array) -> Array:
    """x, or 0.2 x where negative: WaveGrad's slope."""
    return np.where(x < 0, np.float32(0.2) * x, x)


def silu(x: Array) -> Array:
    """x / (1 + exp(-x))."""
    return np.asarray(x / (1 + np.exp(-x)))


def gelu(x: Array) -> Array:
    """GELU by its tanh form, as DDiT and DiT compute it."""
    inner = sqrt(2 / pi) * (x + 0.044715 * x * x * x)  # a power of three is ten times slower
    return np.asarray(0.5 * x * (1 + np.tanh(inner)))


def rms(response: Response, mean: float) -> float:
    """The root mean square of a response to N(mean, 1), by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(np.sqrt((weights * response(nodes + mean) ** 2).sum() / weights.sum()))
