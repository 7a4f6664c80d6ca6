"""The search for the smoothing of a layer: the alpha of least output error, none among them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np

from ..arrays import Array, as_floating, require_finite
from ..calibration import Calibration
from ..errors import TensorError
from .basis import Identity, Transform, rows_of
from .equalization import equalization_scale, nearest_powers
from .smoothing import LIMIT, Smoothing, smoothing_scale
from .time_aware import TOKENS, ActivationQuantizer, Groups

ALPHAS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
ROWS = 512  # output channels, evenly spaced, that errors are measured on


def smooth(
    weight: object,
    calibration: object,
    quantize: Callable[[Array], Array],
    bits: int | None = 8,
    groups: Groups = "static",
    *,
    producer: object = None,
    powers_of_two: bool = False,
) -> Transform:
    """The smoothing of least output error, out of a grid of alphas; Identity where none gains.

    Errors are measured on up to 512 output channels, evenly spaced, and up to 256 tokens of the
    calibration, see `held_back`: weights restored by `quantize(rows)`, inputs rounded to `bits`
    (None: left alone) by the ranges of `groups`, as ActivationQuantizer does. Alphas are compared
    with all ranges taken from the other tokens, for a scale that fits its own tokens closely clips
    others. The scale of the best is then made from all tokens, and taken if it is no worse than
    Identity on the same ones.

    weight: (output channels, input channels, *window), a convolution's in its own shape: its
    window shares a channel's scale. producer: the ranges of the rows of the weight before, one an
    input channel, where only a linear function or a (leaky) ReLU lies between: the scale of
    cross-layer equalization is then tried as well. Layers fed by the same inputs share a scale:
    stack their rows. Raises TensorError for weights and inputs that do not fit together.
    """
    search = SmoothingSearch.of(weight, calibration, producer, powers_of_two)
    return search.best(quantize, bits, groups)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothingSearch:
    """The search on one layer; what does not depend on widths is made once for all of them.

    candidates: by rule, the smoothings with scales of the tokens that are not measured on.
    """

    family: "_Family"
    trial: "_Trial"
    peaks: Array
    candidates: dict[float | str | None, "_Candidate"]

    @classmethod
    def of(
        cls, weight: object, calibration: object, producer: object, powers_of_two: bool = False
    ) -> Self:
        """For a weight and what it is fed; see smooth."""
        array = as_floating(weight, "weight")
        require_finite(array, "weight")
        if not array.size:
            raise TensorError(f"weight has shape {array.shape}; expected (outputs, inputs, ...)")
        inputs = Calibration.of(calibration)
        inputs.require_channels(array.shape)
        columns, window = inputs.inputs.shape[1], prod(array.shape[2:])
        rows = rows_of(array.reshape(-1, columns), columns, "weight")
        some = rows[:: -(-len(rows) // ROWS)]
        ranges = _by_channel(np.abs(rows), window)
        equal = None if producer is None else equalization_scale(producer, ranges)
        family = _Family(ranges, window, equal, powers_of_two)
        trial, apart = _Trial.of(some, inputs)
        candidates = {
            rule: trial.candidate(family.member(rule, apart), apart) for rule in family.rules
        }
        return cls(family, trial, inputs.channel_peaks, candidates)

    def best(
        self,
        quantize: Callable[[Array], Array],
        bits: int | None = 8,
        groups: Groups = "static",
    ) -> Transform:
        """The smoothing of least output error for this quantizer and these ranges; see smooth."""

        def error(candidate: _Candidate) -> float:
            return self.trial.error(candidate, quantize, bits, groups)

        rule = min(self.candidates, key=lambda rule: error(self.candidates[rule]))
        pair = (Identity(), self.family.member(rule, self.peaks))
        whole = (self.trial.candidate(transform, self.peaks) for transform in pair)
        return min(whole, key=error).transform


def held_back(inputs: Calibration) -> Array:
    """Which tokens a smoothing is measured on: one in n // 256, and at most every other.

    The first of each timestep stays with those that set ranges. Where there are no others, all.
    """
    count = len(inputs.inputs)
    later = np.delete(np.arange(count), inputs.starts[:-1])
    return later[:: max(2, -(-count // TOKENS))] if later.size else np.arange(count)


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """The smoothings that are tried on one weight: by a rule, from the peaks of its inputs.

    ranges: max |w| of each input channel. equal: the scale of equalization, if it is known.
    """

    ranges: Array
    window: int
    equal: Array | None
    powers_of_two: bool

    @property
    def rules(self) -> list[float | str | None]:
        """None, then alphas, then "equalization"."""
        return [None, *ALPHAS, *([] if self.equal is None else ["equalization"])]

    def member(self, rule: float | str | None, peaks: Array) -> Transform:
        """The one of this rule, for peaks (steps, channels * window)."""
        if rule is None:
            return Identity()
        if isinstance(rule, str):
            assert self.equal is not None
            scale, name = np.clip(self.equal, 1 / LIMIT, LIMIT), rule
        else:
            scale = smoothing_scale(_by_channel(peaks, self.window), self.ranges, rule)
            name = f"alpha={rule:g}"
        if self.powers_of_two:
            scale = nearest_powers(scale)
        return Smoothing(np.repeat(scale.astype(np.float32), self.window), name)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A smoothing, what it makes of the weights and tokens, and max |x| of each timestep."""

    transform: Transform
    rows: Array
    tokens: Array
    ranges: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What a candidate is measured on: weights and some of the tokens, and what those give.

    counts: how many tokens a timestep has in all.
    """

    rows: Array
    tokens: Array
    timesteps: Array
    outputs: Array
    counts: Array

    @classmethod
    def of(cls, rows: Array, inputs: Calibration) -> tuple[Self, Array]:
        """Of weight rows and what they are fed; and max |x| of the other tokens.

        These are float32 (steps, channels).
        """
        at = held_back(inputs)
        tokens, others = inputs.inputs[at], np.ones(len(inputs.inputs), bool)
        others[at] = len(at) == len(others)
        steps = zip(inputs.by_step(), np.split(others, inputs.starts[1:-1]), strict=True)
        peaks = np.stack([np.abs(step[kept]).max(axis=0) for step, kept in steps])
        counts, outputs = np.diff(inputs.starts), tokens @ rows.T
        return cls(rows, tokens, inputs.timesteps[at], outputs, counts), peaks

    def candidate(self, transform: Transform, peaks: Array) -> _Candidate:
        """A transform, with ranges of the tokens that have these peaks.

        max |x / s| is max |x| / s: the ranges need no more than the peaks.
        """
        rows, tokens = transform.weight(self.rows), transform.inputs(self.tokens)
        return _Candidate(transform, rows, tokens, transform.inputs(peaks).max(axis=1))

    def error(
        self,
        candidate: _Candidate,
        quantize: Callable[[Array], Array],
        bits: int | None,
        groups: Groups,
    ) -> float:
        """|X W^T - Q(X T^-T) Q(W T)^T|^2 over the tokens."""
        weight = quantize(candidate.rows)
        if np.shape(weight) != self.rows.shape:
            raise TensorError(
                f"quantize returned shape {np.shape(weight)}; expected {self.rows.shape}"
            )
        tokens = candidate.tokens
        if bits is not None:
            rounding = ActivationQuantizer.of(candidate.ranges, self.counts, bits, groups)
            tokens = rounding.quantize(tokens, self.timesteps)
        difference = tokens @ weight.T - self.outputs
        error = float(np.square(difference, dtype=np.float64).sum())
        if not np.isfinite(error):
            raise TensorError("the outputs of the weight that quantize returned are not finite")
        return error


def _by_channel(values: Array, window: int) -> Array:
    """max |values| of each channel over rows and window: float64 (channels,)."""
    peaks: Array = values.max(axis=0).reshape(-1, window).max(axis=1)
    return peaks.astype(np.float64)
