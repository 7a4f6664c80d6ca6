"""Blocks of a flattened weight that share parameters, wherever its rows begin and end."""

from dataclasses import dataclass
from math import gcd

import numpy as np

from ..arrays import Array
from ..scheme import GroupSize


@dataclass(frozen=True, slots=True)
class FlatBlocks:
    """Weight i of a row-major weight is in block i // size; rows are of so many columns."""

    columns: int
    size: int

    @property
    def run(self) -> int:
        """How many columns lie in one block, from each multiple of it on."""
        return gcd(self.columns, self.size)

    @property
    def grain(self) -> GroupSize | None:
        """What a Grid calls it: None where blocks do not keep to the rows."""
        if self.columns % self.size:
            return None
        return "channel" if self.size == self.columns else self.size

    def of_rows(self, values: Array, start: int, stop: int) -> Array:
        """Of one value a block, those of rows start to stop: one a run, (rows, runs)."""
        runs = self.columns // self.run
        first = np.arange(start * runs, stop * runs) * self.run
        return values[first // self.size].reshape(stop - start, runs)
