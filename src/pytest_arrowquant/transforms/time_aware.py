"""Ranges of activations that follow the timestep: the best groups of steps, and their scales."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from ..arrays import Array, as_floating, as_rows, require_finite
from ..calibration import Calibration
from ..errors import SchemeError, TensorError
from ..kernels import activations
from ..kernels.encode import MOST, TINY

Groups = int | Literal["static", "step", "token"]

WIDTHS = (4, 8)
SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
TOKENS = 256  # enough to choose by


def time_groups(ranges: object, counts: object, groups: int) -> Array:
    """The partition of the timesteps into contiguous groups that gives the least noise.

    Minimises sum over groups k of n_k max over t in k of ranges_t^2, n_k the tokens in k: the
    noise of one symmetric scale a group. Exact, by dynamic programming in O(steps^2 groups).

    ranges: max |x| of each timestep. counts: tokens of each. Returns int64 (groups + 1,): group k
    is the timesteps boundaries[k] .. boundaries[k + 1] - 1. Raises TensorError for NaN, infinity,
    negative ranges or a timestep without tokens, SchemeError unless 1 <= groups <= steps.
    """
    peaks, tokens = _steps_of(ranges, counts)
    steps = len(peaks)
    if isinstance(groups, bool) or not isinstance(groups, int) or not 1 <= groups <= steps:
        raise SchemeError(
            f"groups={groups!r} is not a number of groups, 1 to {steps}, of timesteps"
        )
    if groups == steps:
        return np.arange(steps + 1)
    cost = _costs(peaks, tokens)
    least, cuts = cost[0], []  # least[j]: noise of the steps before j in len(cuts) + 1 groups
    for _ in range(groups - 1):
        through = least[:, None] + cost
        cuts.append(through.argmin(axis=0))
        least = through.min(axis=0)
    boundaries = [steps]
    for cut in reversed(cuts):
        boundaries.append(int(cut[boundaries[-1]]))
    return np.array([0, *reversed(boundaries)], np.int64)


def spread(inputs: Calibration) -> Calibration:
    """256 of the tokens, evenly spaced over the timesteps; all where there are no more.

    A timestep may be left without a token, so that no ranges should be taken of these.
    """
    at = np.linspace(0, len(inputs.inputs) - 1, min(TOKENS, len(inputs.inputs)))
    at = at.round().astype(np.int64)
    return Calibration(inputs.inputs[at], inputs.timesteps[at], inputs.steps)


@dataclass(frozen=True, slots=True, eq=False)
class ActivationQuantizer:
    """Rounds inputs to symmetric codes of 4 or 8 bits; what lies beyond the range is clipped.

    groups: who shares a scale. "static": all timesteps; a number: the best contiguous groups of
    them, see time_groups; "step": the tokens of a timestep; "token": nobody, each token has its
    own range as the model runs (Q-DiT's dynamic quantization). boundaries: where the groups start,
    and the end of the last. scales: float32 (steps,), equal within a group; both are empty for
    "token". shrink: what ranges were multiplied by.
    """

    bits: int
    groups: Groups
    boundaries: tuple[int, ...]
    scales: Array
    shrink: float = 1.0

    @classmethod
    def fit(
        cls,
        calibration: object,
        bits: int = 8,
        groups: Groups = "static",
        column_energies: object = None,
    ) -> Self:
        """From a calibration: the range of a group is the largest |x| in it.

        column_energies: sum over outputs of w^2 of each column of the layer's weight. With it all
        ranges are shrunk by the factor, of 1 to 0.3, that gives the least output error on 256
        tokens spread over the calibration, errors of channels taken as independent: at 4 bits
        clipping a few values may be worth finer steps for all. Raises as `of` does.
        """
        inputs = Calibration.of(calibration)
        whole = cls.of(inputs.channel_peaks.max(axis=1), np.diff(inputs.starts), bits, groups)
        if column_energies is None:
            return whole
        energies = np.asarray(as_floating(column_energies, "column energies"), np.float64)
        if energies.shape != inputs.inputs.shape[1:]:
            raise TensorError(
                f"column energies have shape {energies.shape}; expected {inputs.inputs.shape[1:]}"
            )
        some = spread(inputs)

        def error(candidate: Self) -> float:
            difference = candidate.quantize(some) - some.inputs
            return float(np.square(difference, dtype=np.float64).sum(axis=0) @ energies)

        return min((whole._shrunk(factor) for factor in SHRINKS), key=error)

    @classmethod
    def of(cls, ranges: object, counts: object, bits: int, groups: Groups) -> Self:
        """From max |x| of each timestep, and how many tokens each has.

        Raises SchemeError for another width or kind of groups, and what time_groups raises.
        """
        if isinstance(bits, bool) or bits not in WIDTHS:
            raise SchemeError(f"bits={bits!r} is not a width of activations: 4 or 8")
        if groups == "token":
            return cls(bits, groups, (), np.empty(0, np.float32))
        peaks = np.asarray(as_floating(ranges, "ranges"), np.float32)
        boundaries = time_groups(peaks, counts, _number(groups, peaks.size))
        highest = np.maximum.reduceat(peaks, boundaries[:-1])
        scales = _scales(np.repeat(highest, np.diff(boundaries)), bits)
        return cls(bits, groups, tuple(boundaries.tolist()), scales)

    def quantize(self, tokens: object, timesteps: object = None) -> Array:
        """The tokens rounded and restored: float32 (tokens, channels).

        tokens: these, with the timestep of each (not needed where one scale serves all), or a
        Calibration. Raises TensorError for NaN, infinity or a timestep that was not calibrated.
        """
        if isinstance(tokens, Calibration):
            timesteps, tokens = tokens.timesteps, tokens.inputs
        array = as_floating(tokens, "inputs")
        if array.ndim != 2:
            raise TensorError(f"inputs have shape {array.shape}; expected (tokens, channels)")
        require_finite(array, "inputs")
        rows = as_rows(array, np.float32)
        scales = self._dynamic(rows) if self.groups == "token" else self._of(timesteps, len(rows))
        rounded = np.empty_like(rows)
        activations.fake_quantize(rows, scales, _highest(self.bits), rounded)
        return rounded

    @property
    def nbytes(self) -> int:
        """Bytes of the scales, a float32 a group."""
        return 4 * max(len(self.boundaries) - 1, 0)

    @property
    def options(self) -> dict[str, Any]:
        """What the record says of it."""
        return {
            "bits": self.bits,
            "groups": self.groups,
            "boundaries": list(self.boundaries),
            "shrink": self.shrink,
        }

    def _shrunk(self, factor: float) -> Self:
        scales = np.maximum(self.scales * np.float32(factor), TINY)
        return replace(self, scales=scales, shrink=factor)

    def _dynamic(self, rows: Array) -> Array:
        peaks = np.empty(len(rows), np.float32)
        activations.peaks(rows, peaks)
        return _scales(peaks * np.float32(self.shrink), self.bits)

    def _of(self, timesteps: object, tokens: int) -> Array:
        if timesteps is None and len(self.boundaries) == 2:
            return np.full(tokens, self.scales[0])
        at = np.asarray(timesteps)
        if at.shape != (tokens,) or at.dtype.kind not in "iu":
            raise TensorError(
                f"timesteps is {at.dtype} {at.shape}; expected a whole number for each of "
                f"{tokens} tokens"
            )
        if tokens and not 0 <= at.min() <= at.max() < len(self.scales):
            raise TensorError(
                f"timesteps run from {at.min()} to {at.max()}; "
                f"calibrated were 0..{len(self.scales) - 1}"
            )
        scales: Array = self.scales[at]
        return scales


def _highest(bits: int) -> np.float32:
    return np.float32(2 ** (bits - 1) - 1)


def _scales(peaks: Array, bits: int) -> Array:
    """The scale that puts the highest code on the peak; where that is 0, one that is not."""
    return np.maximum(np.minimum(peaks, MOST) / _highest(bits), TINY)


def _number(groups: Groups, steps: int) -> int:
    """How many groups of timesteps are meant."""
    if isinstance(groups, int):
        return groups
    if groups not in ("static", "step"):
        raise SchemeError(
            f"groups={groups!r} is neither a number nor 'static' nor 'step' nor 'token'"
        )
    return 1 if groups == "static" else steps


def _steps_of(ranges: object, counts: object) -> tuple[Array, Array]:
    """Checked: ranges over the largest of them, and token counts, float64 (steps,)."""
    peaks = np.asarray(as_floating(ranges, "ranges"), np.float64)
    tokens = np.asarray(counts)
    if peaks.ndim != 1 or not peaks.size or tokens.shape != peaks.shape:
        raise TensorError(
            f"ranges have shape {peaks.shape} and counts {tokens.shape}; expected one of each "
            "a timestep"
        )
    require_finite(peaks, "ranges")
    if (peaks < 0).any():
        at = int(np.flatnonzero(peaks < 0)[0])
        raise TensorError(f"ranges have {peaks[at]} at timestep {at}; expected max |x|")
    if tokens.dtype.kind not in "iu":
        raise TensorError(f"counts are {tokens.dtype}; expected whole numbers of tokens")
    if (tokens < 1).any():
        at = int(np.flatnonzero(tokens < 1)[0])
        raise TensorError(
            f"timestep {at} of {len(tokens)} has {tokens[at]} tokens; each needs one to set "
            "its range"
        )
    return peaks / (peaks.max() or 1.0), tokens.astype(np.float64)


def _costs(peaks: Array, tokens: Array) -> Array:
    """cost[i, j] of timesteps i .. j - 1 as one group; infinite unless i < j."""
    steps = len(peaks)
    before = np.concatenate([[0.0], np.cumsum(tokens)])
    grouped = np.triu(np.ones((steps, steps), bool))
    highest = np.maximum.accumulate(np.where(grouped, peaks, 0.0), axis=1)
    cost = np.full((steps + 1, steps + 1), np.inf)
    cost[:-1, 1:][grouped] = ((before[1:] - before[:-1, None]) * highest**2)[grouped]
    return cost
