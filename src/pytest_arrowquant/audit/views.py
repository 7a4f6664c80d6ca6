"""The original's values in the order of the quantized rows, and the part of a weight they are."""

from dataclasses import dataclass
from math import prod

import numpy as np

from ..arrays import Array
from ..checkpoints.pairing import Pair
from ..checkpoints.weight import InBlocks, StoredWeight
from ..codes import Codes, Grid
from ..errors import CheckpointError


@dataclass(frozen=True, slots=True, eq=False)
class Rows(InBlocks):
    """Some rows of a StoredWeight as a weight of their own: an expert of a stack."""

    weight: StoredWeight
    first_row: int
    shape: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        """See StoredWeight."""
        return self.weight.grid

    @property
    def nbytes(self) -> int:
        """Its share of the bytes of the whole."""
        return self.weight.nbytes * prod(self.shape) // prod(self.weight.shape)

    def codes(self, start: int, stop: int) -> Codes | None:
        """See StoredWeight."""
        return self.weight.codes(self.first_row + start, self.first_row + stop)

    def restore(self, start: int, stop: int) -> Array:
        """See StoredWeight."""
        return self.weight.restore(self.first_row + start, self.first_row + stop)


def reference_of(found: Pair, shape: tuple[int, ...] | None = None) -> Array:
    """The original's values as the quantized weight should restore them; a view where it can be.

    shape: of that weight; an original of stacked experts is seen as their rows, one after another.
    """
    assert found.original is not None
    reference = found.original.array
    if found.transposed:
        reference = reference.T
    if found.heads:
        reference = _interleaved(reference, found.heads)
    if found.shift:
        wide = np.float16 if reference.dtype == np.float16 else np.float32
        reference = reference.astype(wide) + np.asarray(found.shift, wide)
    if shape is not None and shape == (prod(reference.shape[:-1]), reference.shape[-1]):
        reference = reference.reshape(shape)
    return reference


def _interleaved(array: Array, heads: int) -> Array:
    """Rows of each head as GGUF keeps them for rotary embeddings: halves interleaved."""
    shape = (heads, 2, len(array) // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(array.reshape(shape).swapaxes(1, 2)).reshape(array.shape)


def loaded(found: Pair) -> StoredWeight:
    """The quantized weight of a pair, or its part of one; CheckpointError if unreadable."""
    if found.entry is None or found.entry.load is None:
        raise CheckpointError(f"{found.name!r} is not quantized")
    weight = found.entry.load()
    if found.original is None or not found.rows:
        return weight
    shape = found.original.shape
    rows, columns = prod(weight.shape[:-1]), weight.shape[-1]
    if found.first_row + found.rows > rows or found.rows * columns != prod(shape):
        raise CheckpointError(
            f"{found.entry.name!r} has {rows} rows of {columns}; {found.name!r} {shape} should be "
            f"its rows {found.first_row} to {found.first_row + found.rows}"
        )
    return Rows(weight, found.first_row, shape[::-1] if found.transposed else shape)
