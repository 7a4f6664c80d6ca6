"""Features inside a network: what its linear layers and convolutions are fed at each timestep.

    x_j = g(t) c_j(t) f(u_j) + shift,     u: a Gaussian field of unit variance

g(t) = F^t for t from 0, clean, to 1, noise: the range factor F. c_j(t): the scale of a channel,
lognormal, a few outliers many times larger, moving with the timestep where the family's do; its
rms over channels is 1 at every timestep, as a layer norm has it. f: the activation function, scaled
to an rms of 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .fields import Response, Spectrum, cholesky_of, field, independent, linear, rms

Sampler = Callable[[float, int, np.random.Generator], Array]
OWN = 0.4  # what is a masked token's own: the rest of it is one vector that all of them share
PHRASES = 16  # vectors that repeated tokens are taken from
MASSIVE = 100.0  # massive activations, in units of the rms
MASSIVE_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class Features:
    """The law of the features that a layer is fed.

    decay: the covariance's eigenvalues over channels are i^-decay.
    spread, span: channel scales are exp(spread z) span^u, z normal, u uniform in [0, 1].
    outlier_share of the channels are outlier_gain times larger; never those of the weight.
    range_factor: F, from the clean end to the noisy one.
    drift: c_j(t) = c_j exp(a_j cos(pi t + phi_j)), a_j = drift |z|.
    modulation: 1 + modulation sin(2 pi t + psi_j) times each channel, as FiLM and adaLN do.
    shift: shift sin(2 pi t + chi_j), in units of the rms, added to each channel.
    neighbours: the correlation between the positions of a convolution's window.
    response, mean: f, and the mean of its argument. gated: times a second field, as SwiGLU is.
    noise: total noise sigma(t) of an absorbing process: a token is masked with probability
    1 - exp(-sigma), and then is sqrt(1 - 0.4^2) of one shared vector and 0.4 of its own.
    repeated: the share of the other tokens that are one of 16 vectors, exactly.
    massive_share of the tokens are 100 rms in two channels, whatever the token.
    steps: timesteps.
    """

    decay: float = 1.0
    spread: float = 0.35
    span: float = 1.0
    outlier_share: float = 0.0
    outlier_gain: float = 1.0
    range_factor: float = 1.0
    drift: float = 0.0
    modulation: float = 0.0
    shift: float = 0.0
    neighbours: Callable[[tuple[int, ...]], Array] = independent
    response: Response = linear
    mean: float = 0.0
    gated: bool = False
    noise: Callable[[float], float] | None = None
    repeated: float = 0.0
    massive_share: float = 0.0
    steps: int = 20

    @property
    def distinct(self) -> float:
        """The least share of tokens that are like no other."""
        return 1 - self.repeated

    def sampler(
        self, shape: tuple[int, ...], order: Array, statistics: np.random.Generator
    ) -> Sampler:
        """Draws tokens of a weight's inputs: (t, count, generator) -> (count, channels, window).

        order: the weight's channels, its own outliers first. statistics: what draws all that is
        the same for every token.
        """
        channels = shape[1]
        scales = _Scales(self, channels, order, statistics)
        spectra = [
            Spectrum.power_law(channels, self.decay, statistics) for _ in range(1 + self.gated)
        ]
        anchors = [_anchors(scales.base, statistics) for _ in spectra]
        mixing = cholesky_of(self.neighbours(shape[2:]))
        massive = statistics.permutation(channels)[:MASSIVE_CHANNELS]
        unit = np.float32(1 / rms(self.response, self.mean))

        def sample(time: float, count: int, tokens: np.random.Generator) -> Array:
            roles = self._roles(time, count, tokens)
            u, *gate = (
                _with_roles(field(count, spectrum, mixing, tokens), roles, vectors)
                for spectrum, vectors in zip(spectra, anchors, strict=True)
            )
            x = self.response(u + np.float32(self.mean)) * unit
            for factor in gate:
                x *= factor
            x *= scales.at(time)[:, None]
            if self.shift:
                x += scales.shift_at(time)[:, None]
            if self.massive_share:
                chosen = np.flatnonzero(tokens.random(count) < self.massive_share)
                x[np.ix_(chosen, massive)] = MASSIVE * self.range_factor**time
            return x

        return sample

    def _roles(self, time: float, count: int, tokens: np.random.Generator) -> Array:
        """What each token is: 0 its own, 1 masked, 2 and more one of the repeated vectors."""
        masked = 0.0 if self.noise is None else -np.expm1(-self.noise(time))
        roles = np.zeros(count, np.int64)
        if self.repeated:
            repeated = tokens.random(count) < self.repeated
            roles[repeated] = tokens.integers(2, 2 + PHRASES, int(repeated.sum()))
        if masked:
            roles[tokens.random(count) < masked] = 1
        return roles


class _Scales:
    """Channel scales and shifts as functions of time, drawn once."""

    def __init__(
        self, law: Features, channels: int, order: Array, statistics: np.random.Generator
    ) -> None:
        self.law = law
        self.base = np.exp(law.spread * statistics.standard_normal(channels))
        self.base *= law.span ** statistics.random(channels)
        outliers = round(law.outlier_share * channels)
        self.base[order[len(order) - outliers :]] *= law.outlier_gain
        self.drift = law.drift * np.abs(statistics.standard_normal(channels))
        self.phases = 2 * np.pi * statistics.random((3, channels))

    def at(self, time: float) -> Array:
        """g(t) c_j(t), float32 (channels,)."""
        scales = self.base * np.exp(self.drift * np.cos(np.pi * time + self.phases[0]))
        scales *= 1 + self.law.modulation * np.sin(2 * np.pi * time + self.phases[1])
        scales *= self.law.range_factor**time / np.sqrt((scales**2).mean())
        return np.asarray(scales, np.float32)

    def shift_at(self, time: float) -> Array:
        """The shift of each channel, float32 (channels,)."""
        wave = np.sin(2 * np.pi * time + self.phases[2])
        return np.asarray(self.law.shift * self.law.range_factor**time * wave, np.float32)


def _anchors(scales: Array, statistics: np.random.Generator) -> Array:
    """The vectors that tokens share, of rms 1 once scaled: float32 (1 + PHRASES, channels)."""
    vectors = statistics.standard_normal((1 + PHRASES, len(scales)))
    energy = (vectors**2 * scales**2).sum(axis=1, keepdims=True)
    vectors *= np.sqrt((scales**2).sum() / energy)
    return np.asarray(vectors, np.float32)


def _with_roles(values: Array, roles: Array, vectors: Array) -> Array:
    """The field's tokens, masked and repeated ones replaced."""
    masked = np.flatnonzero(roles == 1)
    values[masked] *= np.float32(OWN)
    values[masked] += (np.float32((1 - OWN**2) ** 0.5) * vectors[0])[:, None]
    repeated = np.flatnonzero(roles > 1)
    values[repeated] = vectors[roles[repeated] - 1][:, :, None]
    return values
