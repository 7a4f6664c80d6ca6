"""A group size for each layer, under a budget on their mean (Chen et al. 2024, Q-DiT, section 3.2).

Q-DiT searches by evolution, since its objective is the quality of images. Here it is the sum over
layers of the relative squared error of round-to-nearest, which adds up, so that the best choice is
found by dynamic programming. The mean is over weights: many small layers buy nothing for a large.
"""

from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .errors import SchemeError
from .quantizers import Rtn

SIZES = (32, 64, 128, 256, 512)
MEAN_SIZE = 128  # Q-DiT's budget
SHARES = 1000  # parts of all weights, to which the share of a layer is rounded


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """What each of SIZES costs in one layer of so many weights, in rows of so many columns."""

    weights: int
    columns: int
    errors: tuple[float, ...]

    @classmethod
    def of(cls, rows: Array, bits: int, weights: int) -> "LayerErrors":
        """|w - q|^2 / |w|^2 of rows, float32 (rows, columns), of a layer of so many weights."""
        energy = float(np.square(rows, dtype=np.float64).sum()) or 1.0
        quantized = (Rtn(size, "integer").quantize(rows, bits) for size in SIZES)
        errors = tuple(float(q.compare(rows)[:, 2].sum()) / energy for q in quantized)
        return cls(weights, rows.shape[1], errors)

    @property
    def units(self) -> tuple[int, ...]:
        """How many times SIZES[0] a group is at each size; none is longer than the row."""
        return tuple(min(size, self.columns) // SIZES[0] for size in SIZES)


def best_group_sizes(layers: list[LayerErrors], mean_size: int = MEAN_SIZE) -> tuple[int, ...]:
    """The size of each layer, of SIZES, of least total error where their mean is at least this.

    Rows shorter than the mean count as if it were theirs. Raises SchemeError for a mean that no
    choice has.
    """
    if not 0 < mean_size <= SIZES[-1]:
        raise SchemeError(f"mean_size={mean_size!r} is not from 1 to {SIZES[-1]}")
    total = sum(layer.weights for layer in layers)
    shares = [max(1, round(SHARES * layer.weights / total)) for layer in layers]
    needed = sum(
        share * (min(mean_size, layer.columns) // SIZES[0])
        for share, layer in zip(shares, layers, strict=True)
    )
    least = np.full(needed + 1, np.inf)  # least[u]: error of the layers so far that reach u units
    least[0] = 0.0
    history = []
    for share, layer in zip(shares, layers, strict=True):
        further = np.full((len(SIZES), needed + 1), np.inf)
        for k, error in enumerate(layer.errors):
            step = min(share * layer.units[k], needed)
            further[k, step:] = least[: needed + 1 - step] + error
            further[k, needed] = least[needed - step :].min() + error  # more is as good
        history.append((least, further.argmin(axis=0)))
        least = further.min(axis=0)
    sizes, units = [], needed
    for share, layer, (before, chosen) in reversed(list(zip(shares, layers, history, strict=True))):
        k = int(chosen[units])
        step = min(share * layer.units[k], needed)
        if units == needed:
            units = needed - step + int(before[needed - step :].argmin())
        else:
            units -= step
        sizes.append(SIZES[k])
    return tuple(reversed(sizes))
