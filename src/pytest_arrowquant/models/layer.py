"""A layer of a synthetic model: its weight and its inputs, drawn when they are asked for."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from zlib import crc32

import numpy as np

from ..arrays import Array
from ..calibration import Calibration
from .draw import KINDS, channel_order, draw
from .inputs import Inputs, calibration_tokens, draw_inputs, held_out_tokens

STATISTICS, CALIBRATION, HELD_OUT = 1, 2, 3  # purposes of seeds; weights have none


@dataclass(frozen=True, slots=True)
class SyntheticLayer:
    """One layer of a synthetic model.

    A draw depends on the seed, the family and the layer's own name alone, so that a model may
    be cut, reordered or drawn by several processes.

    shape: (output channels, input channels, *window). inputs: the law of what it is fed; None for
    a table that is looked up, never multiplied. producer: the layer whose output channels are this
    one's input channels, with nothing between them but what lets a positive factor of a channel
    through: a product, or a leaky ReLU.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    inputs: Inputs | None = None
    producer: str | None = None
    family: str = ""
    seed: int = 0
    kept: bool = False

    @property
    def weight(self) -> Array:
        """The values: float32, read-only, rows are output channels.

        Drawn anew each time, unless `kept`: layers of a small model are asked for again by every
        width and quantizer.
        """
        return _kept(self) if self.kept else self.drawn()

    def drawn(self) -> Array:
        """The values, drawn now."""
        weight = draw(self.shape, KINDS[self.kind], self._generator())
        weight.setflags(write=False)
        return weight

    @property
    def takes_inputs(self) -> bool:
        """False for a table that is looked up."""
        return self.inputs is not None

    @property
    def calibration(self) -> Calibration | None:
        """Inputs to calibrate on: (tokens, columns), ordered by timestep, as many at each.

        At least two distinct tokens a column. Columns are those of the weight as (rows, columns):
        for a convolution channel by channel, and within one its window. None for a table. Drawn
        anew each time, unless `kept`: then the last few asked for stay, with their Hessians.
        """
        return _kept_calibration(self) if self.kept else self.drawn_inputs(CALIBRATION)

    @property
    def held_out(self) -> Calibration | None:
        """Other inputs of the same statistics to judge on: 512 tokens or a few more."""
        return _kept_held_out(self) if self.kept else self.drawn_inputs(HELD_OUT)

    def drawn_inputs(self, purpose: int) -> Calibration | None:
        """The inputs for CALIBRATION or HELD_OUT, drawn now."""
        if self.inputs is None:
            return None
        columns, law = prod(self.shape[1:]), self.inputs
        order = channel_order(self.shape, self._generator())
        sample = law.sampler(self.shape, order, self._generator(STATISTICS))
        held_out = purpose == HELD_OUT
        count = held_out_tokens(law) if held_out else calibration_tokens(law, columns)
        return draw_inputs(sample, columns, law.steps, count, self._generator(purpose))

    def _generator(self, *purpose: int) -> np.random.Generator:
        key = crc32(f"{self.family}/{self.name}".encode())
        seeds = np.random.SeedSequence([self.seed, key, *purpose])
        return np.random.Generator(np.random.SFC64(seeds))


@lru_cache(maxsize=20)  # a small model has fewer layers
def _kept(layer: SyntheticLayer) -> Array:
    return layer.drawn()


@lru_cache(maxsize=3)  # a small model's largest takes 134 MB, and its Hessian as much again
def _kept_calibration(layer: SyntheticLayer) -> Calibration | None:
    return layer.drawn_inputs(CALIBRATION)


@lru_cache(maxsize=3)
def _kept_held_out(layer: SyntheticLayer) -> Calibration | None:
    return layer.drawn_inputs(HELD_OUT)
