"""Calibration inputs of a layer: tokens a timestep, drawn a block at a time into one array."""

from typing import Protocol

import numpy as np

from ..arrays import Array
from ..calibration import Calibration
from .features import Sampler

BLOCK = 256  # tokens drawn at a time, so that memory is that of the inputs and little more
FEWEST, HELD_OUT, HELD_OUT_A_STEP = 1024, 512, 16


class Inputs(Protocol):
    """A law of inputs: Features, Noised, TimeEmbedding or Conditioning."""

    @property
    def steps(self) -> int:
        """Timesteps."""

    @property
    def distinct(self) -> float:
        """The least share of tokens that are like no other."""

    def sampler(
        self, shape: tuple[int, ...], order: Array, statistics: np.random.Generator
    ) -> Sampler:
        """Draws tokens of the inputs of a weight of this shape."""


def calibration_tokens(law: Inputs, columns: int) -> int:
    """Tokens a timestep: at least twice as many distinct ones as columns, and 1024, in all."""
    return int(-(-max(FEWEST, 2 * columns / law.distinct) // law.steps))


def held_out_tokens(law: Inputs) -> int:
    """Tokens a timestep: at least 16, and 512 in all."""
    return max(HELD_OUT_A_STEP, -(-HELD_OUT // law.steps))


def draw_inputs(
    sample: Sampler, columns: int, steps: int, count: int, tokens: np.random.Generator
) -> Calibration:
    """Count tokens at each of the steps: float32 (steps * count, columns), read-only.

    Columns are the flattened weight's: channel by channel, and within one its window.
    """
    inputs = np.empty((steps * count, columns), np.float32)
    for step in range(steps):
        time = step / max(steps - 1, 1)
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            first = step * count + start
            inputs[first : first + size] = sample(time, size, tokens).reshape(size, columns)
    timesteps = np.repeat(np.arange(steps), count)
    for array in (inputs, timesteps):
        array.setflags(write=False)
    return Calibration(inputs, timesteps, steps)
