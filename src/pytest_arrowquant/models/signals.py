"""What enters a diffusion model from outside: a noised signal, and the time that conditions it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .features import Sampler
from .fields import Spectrum, cholesky_of, field, independent, silu

DIFFUSION_STEPS = 1000
HARMONICS = 4


@dataclass(frozen=True, slots=True)
class Noised:
    """x_t = sqrt(a) y + sqrt(1 - a) e: the input of a diffusion model (Ho et al. 2020, eq. 4).

    a is the product of 1 - beta up to t, beta linear over 1000 steps. signal_rms: that of y, whose
    neighbours correlate; e is white.
    """

    beta_first: float
    beta_last: float
    signal_rms: float
    neighbours: Callable[[tuple[int, ...]], Array]
    steps: int = 20
    distinct: float = 1.0

    def kept(self, time: float) -> float:
        """a at a time from 0 to 1."""
        betas = np.linspace(self.beta_first, self.beta_last, DIFFUSION_STEPS)
        return float(np.prod(1 - betas[: 1 + round(time * (DIFFUSION_STEPS - 1))]))

    def sampler(
        self, shape: tuple[int, ...], order: Array, statistics: np.random.Generator
    ) -> Sampler:
        """Draws tokens: (t, count, generator) -> (count, channels, window)."""
        spectrum = Spectrum.power_law(shape[1], 0, statistics)
        mixing = cholesky_of(self.neighbours(shape[2:]))
        white = cholesky_of(independent(shape[2:]))

        def sample(time: float, count: int, tokens: np.random.Generator) -> Array:
            kept = self.kept(time)
            x = field(count, spectrum, mixing, tokens)
            x *= np.float32(self.signal_rms * kept**0.5)
            x += np.float32((1 - kept) ** 0.5) * field(count, spectrum, white, tokens)
            return x

        return sample


@dataclass(frozen=True, slots=True)
class TimeEmbedding:
    """Cosines and sines of the time at frequencies from 1 to 1e-4 (the input of a time MLP).

    clock: the time that the model is told, a function of t from 0 to 1. Exact; times are uniform
    within a timestep, as in training.
    """

    clock: Callable[[float], float]
    steps: int = 20
    distinct: float = 1.0

    def sampler(
        self, shape: tuple[int, ...], order: Array, statistics: np.random.Generator
    ) -> Sampler:
        """Draws tokens: (t, count, generator) -> (count, channels, 1)."""
        half = shape[1] // 2
        frequencies = 10000.0 ** (-np.arange(half) / half)

        def sample(time: float, count: int, tokens: np.random.Generator) -> Array:
            told = [self.clock(t) for t in _within(time, self.steps, count, tokens)]
            angles = np.outer(told, frequencies)
            return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)[:, :, None]

        return sample


@dataclass(frozen=True, slots=True)
class Conditioning:
    """SiLU of an embedding of the time, a smooth curve, and of a label where there are labels.

    u_j(t) = mean_j + sum over k = 1..4 of cos(pi k t + phi_jk) / k, plus labels times a field: the
    input of adaLN layers. Without labels it is a function of time alone, so that its covariance
    has few eigenvalues of any size; a quantizer's damping makes it regular.
    """

    labels: float = 0.0
    steps: int = 20
    distinct: float = 1.0

    def sampler(
        self, shape: tuple[int, ...], order: Array, statistics: np.random.Generator
    ) -> Sampler:
        """Draws tokens: (t, count, generator) -> (count, channels, 1)."""
        channels = shape[1]
        mean = statistics.standard_normal(channels).astype(np.float32)
        phases = 2 * np.pi * statistics.random((HARMONICS, channels))
        spectrum = Spectrum.power_law(channels, 1, statistics)
        mixing = cholesky_of(independent(()))

        def sample(time: float, count: int, tokens: np.random.Generator) -> Array:
            times = _within(time, self.steps, count, tokens)
            u = np.tile(mean, (count, 1))
            for k, phase in enumerate(phases, start=1):
                u += (np.cos(np.pi * k * times[:, None] + phase) / k).astype(np.float32)
            if self.labels:
                own = field(count, spectrum, mixing, tokens)
                u += np.float32(self.labels) * own[..., 0]
            return silu(u)[:, :, None]

        return sample


def _within(time: float, steps: int, count: int, tokens: np.random.Generator) -> Array:
    """Times of one timestep, uniform about its own, and within 0 to 1."""
    reach = 0.5 / max(steps - 1, 1)
    return tokens.uniform(max(0.0, time - reach), min(1.0, time + reach), count)
