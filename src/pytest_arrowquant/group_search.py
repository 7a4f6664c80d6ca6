"""A group size for each layer, under a budget on their mean (Chen et al. 2024, Q-DiT, section 3.2).

Q-DiT searches by evolution, since its objective is the quality of images. Here it is the sum over
layers of the relative squared error of round-to-nearest, which adds up, so that the best choice is
found exactly, by dynamic programming.
"""

import numpy as np

from .arrays import Array
from .errors import SchemeError
from .quantizers import Rtn

SIZES = (32, 64, 128, 256, 512)
MEAN_SIZE = 128  # Q-DiT's budget


def relative_errors(rows: Array, bits: int) -> list[float]:
    """|w - q|^2 / |w|^2 of a weight, float32 (rows, columns), at each of SIZES."""
    energy = float(np.square(rows, dtype=np.float64).sum()) or 1.0
    return [
        float(Rtn(size, "integer").quantize(rows, bits).compare(rows)[:, 2].sum()) / energy
        for size in SIZES
    ]


def best_group_sizes(errors: list[list[float]], mean_size: int = MEAN_SIZE) -> tuple[int, ...]:
    """The size of each layer, of SIZES, of least total error where their mean is at least this.

    errors: a list a layer, its error at each of SIZES. Raises SchemeError for a mean that no
    choice has, and for a layer with another number of errors.
    """
    if not 0 < mean_size <= SIZES[-1]:
        raise SchemeError(f"mean_size={mean_size!r} is not from 1 to {SIZES[-1]}")
    needed = mean_size * len(errors)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}  # by the sum of sizes so far
    for layer in errors:
        further: dict[int, tuple[float, tuple[int, ...]]] = {}
        for reached, (total, sizes) in best.items():
            for size, error in zip(SIZES, layer, strict=True):
                sum_of_sizes = min(reached + size, needed)  # more than needed is as good
                choice = (total + error, (*sizes, size))
                if sum_of_sizes not in further or choice < further[sum_of_sizes]:
                    further[sum_of_sizes] = choice
        best = further
    return best[needed][1]
