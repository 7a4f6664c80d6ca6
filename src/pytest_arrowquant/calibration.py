"""What a layer is fed: its inputs a timestep, and the sums over them that quantizers need."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from .arrays import Array, as_floating, require_finite
from .errors import TensorError
from .factor import Factor, factorize

BLOCK = 2048  # tokens whose outer products are summed at a time; fewer spend their time adding


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs of one layer: float32 (tokens, input channels), and the timestep of each token.

    timesteps: int64 (tokens,), ascending from 0, each of 0 .. steps - 1 at least once. Build it
    with `of`, which checks what it is given.
    """

    inputs: Array
    timesteps: Array
    steps: int
    _factors: dict[tuple[float, bool], Factor] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls, inputs: object, timesteps: object = None, steps: int | None = None
    ) -> "Calibration":
        """From arrays of (tokens, input channels) and (tokens,); without timesteps, one step.

        Axes before the last are tokens. steps: how many there are, if not the largest plus one.
        Raises TensorError for no tokens, NaN or infinity, timesteps that do not fit, or a
        timestep without a token.
        """
        if isinstance(inputs, Calibration):
            if timesteps is not None or steps is not None:
                raise TensorError("inputs is a Calibration, which has its own timesteps")
            return inputs
        array = as_floating(inputs, "calibration inputs")
        require_finite(array, "calibration inputs")
        if array.ndim < 2 or not array.size:
            raise TensorError(
                f"calibration inputs has shape {array.shape}; expected (tokens, input channels)"
            )
        with np.errstate(over="ignore"):
            tokens = np.ascontiguousarray(array.reshape(-1, array.shape[-1]), np.float32)
        require_finite(tokens, "calibration inputs as float32")
        at = np.zeros(len(tokens), np.int64) if timesteps is None else _whole(timesteps, tokens)
        count = int(at.max()) + 1 if steps is None else steps
        if not isinstance(count, int) or count < 1:
            raise TensorError(f"steps={steps!r} is not a whole number of at least 1")
        if at.min() < 0 or at.max() >= count:
            raise TensorError(f"timesteps run from {at.min()} to {at.max()}, not in 0..{count - 1}")
        empty = np.flatnonzero(np.bincount(at, minlength=count) == 0)
        if empty.size:
            raise TensorError(
                f"timestep {empty[0]} of {count} has no token; each needs one to set its range"
            )
        by_step = np.argsort(at, kind="stable")
        if timesteps is not None and not np.array_equal(by_step, np.arange(len(at))):
            tokens, at = tokens[by_step], at[by_step]
        return cls(tokens, at, count)

    def require_channels(self, shape: tuple[int, ...], name: str = "weight") -> None:
        """Raise TensorError unless these are inputs of a weight of this shape."""
        columns = prod(shape[1:]) if len(shape) > 1 else prod(shape)
        if self.inputs.shape[1] != columns:
            raise TensorError(
                f"calibration inputs has {self.inputs.shape[1]} channels; "
                f"{name} of shape {shape} takes {columns}"
            )

    @property
    def starts(self) -> Array:
        """Where each timestep's tokens start, and where the last ones end: (steps + 1,)."""
        return np.searchsorted(self.timesteps, np.arange(self.steps + 1))

    def by_step(self) -> Iterator[Array]:
        """The tokens of each timestep in turn."""
        for first, last in pairwise(self.starts):
            yield self.inputs[first:last]

    @cached_property
    def channel_peaks(self) -> Array:
        """max |x| of each channel at each timestep: float32 (steps, channels)."""
        return np.stack([np.abs(tokens).max(axis=0) for tokens in self.by_step()])

    @cached_property
    def energies(self) -> Array:
        """Mean of x^2 of each channel: float64 (channels,); the diagonal of the Hessian."""
        total = np.zeros(self.inputs.shape[1])
        for block in self._blocks():
            total += np.einsum("tc,tc->c", block, block)
        return total / len(self.inputs)

    @cached_property
    def hessian(self) -> Array:
        """H = X^T X / tokens, float64 (channels, channels), summed in blocks of tokens.

        Half of the Hessian of the squared output error in a row of the weight (Frantar et al.
        2022); GPTQ is indifferent to its scale. Kept, so that every width and recipe shares it.
        """
        channels = self.inputs.shape[1]
        total, product = np.zeros((channels, channels)), np.empty((channels, channels))
        for block in self._blocks():
            total += np.matmul(block.T, block, out=product)
        total /= len(self.inputs)
        return total

    def factor(self, damping: float = 0.01, act_order: bool = True) -> Factor:
        """The factored Hessian, see factorize; made once for each damping and order."""
        key = (damping, act_order)
        if key not in self._factors:
            self._factors[key] = factorize(self.hessian, damping, act_order)
        return self._factors[key]

    def _blocks(self) -> Iterator[Array]:
        """The tokens in float64; each block overwrites the one before, as memory is slow to get."""
        spare = np.empty((min(BLOCK, len(self.inputs)), self.inputs.shape[1]))
        for start in range(0, len(self.inputs), BLOCK):
            tokens = self.inputs[start : start + BLOCK]
            block = spare[: len(tokens)]
            np.copyto(block, tokens)
            yield block


def _whole(timesteps: Any, tokens: Array) -> Array:
    at = np.asarray(timesteps)
    if at.shape != (len(tokens),) or at.dtype.kind not in "iu":
        raise TensorError(
            f"timesteps is {at.dtype} {at.shape}; expected a whole number for each of "
            f"{len(tokens)} tokens"
        )
    return at.astype(np.int64)
