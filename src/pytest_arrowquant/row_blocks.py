"""A reference and what was restored of it, some rows at a time, as often as they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, as_rows, common_dtype
from .kernels import widen
from .scheme import rows_and_columns

BLOCK = 32  # weights; the run within which errors must not share a sign
AT_A_TIME = 1 << 18  # weights; a MiB of each side
SAFE_EXPONENT = 127  # of float32: beyond it squares of a float64 may overflow or vanish


class Block(NamedTuple):
    """Rows from `start` on, both C-contiguous (rows, columns) of one type.

    coded: the restored values were made of codes. Both sides are overwritten by the next block.
    """

    start: int
    reference: Array
    restored: Array
    coded: bool


@dataclass(frozen=True, slots=True, eq=False)
class RowBlocks:
    """Blocks of rows of two tensors of one shape, a whole number of units each but the last.

    restored: an array, or a StoredWeight (checkpoints/weight.py). dtype: float32, or float64 if
    the reference or the array is. exponent: both are divided by 2 to this power; 0 unless a
    float64 leaves the range of float32. at_a_time: about how many weights a block has.
    """

    reference: Array
    restored: Any
    dtype: type[np.floating[Any]]
    exponent: int = 0
    at_a_time: int = AT_A_TIME

    @classmethod
    def of(cls, reference: Array, restored: Any, at_a_time: int = AT_A_TIME) -> "RowBlocks":
        """Both sides, scaled where squares of their float64 would leave its range."""
        sides = [side for side in (reference, restored) if isinstance(side, np.ndarray)]
        blocks = cls(reference, restored, common_dtype(*sides), 0, at_a_time)
        if blocks.dtype is np.float32:
            return blocks
        ends = [(side.min(initial=0.0), side.max(initial=0.0)) for b in blocks for side in b[1:3]]
        peaks = [max(-low, high) for low, high in ends]
        exponent = int(np.frexp(max(peaks, default=0.0))[1])
        scaled = exponent if abs(exponent) > SAFE_EXPONENT else 0
        return cls(reference, restored, blocks.dtype, scaled, at_a_time)

    @property
    def layout(self) -> tuple[int, int]:
        """Rows and columns."""
        return rows_and_columns(self.reference.shape)

    @property
    def unit(self) -> int:
        """The fewest rows that are a whole number of blocks of 32 weights: 1 to 32."""
        return BLOCK // gcd(BLOCK, self.layout[1])

    def __iter__(self) -> Iterator[Block]:
        spare = self._spare()
        for start, stop, reference in self._references():
            restored, coded = self._restored(start, stop, spare)
            yield Block(start, reference, restored, coded)

    def references(self) -> Iterator[tuple[int, Array]]:
        """(start, rows) of the reference alone."""
        for start, _, reference in self._references():
            yield start, reference

    def _references(self) -> Iterator[tuple[int, int, Array]]:
        spare = self._spare()
        for start, stop in self._spans():
            yield start, stop, self._scaled(rows_of(self.reference, start, stop, spare))

    def non_finite(self, restored: bool, first: int) -> str:
        """The first NaN or infinity of a side from row `first` on, in words; empty if none."""
        for start, stop in self._spans():
            if stop <= first:
                continue
            if restored:
                rows = self._restored(start, stop, self._spare())[0]
            else:
                rows = self._scaled(rows_of(self.reference, start, stop, self._spare()))
            finite = np.isfinite(rows)
            if not finite.all():
                row, column = divmod(int(np.argmin(finite)), rows.shape[1])
                flat = (start + row) * rows.shape[1] + column
                index = tuple(int(i) for i in np.unravel_index(flat, self.reference.shape))
                return f"{float(rows[row, column])} at index {index}"
        return ""

    @property
    def _step(self) -> int:
        rows, columns = self.layout
        return min(max(self.at_a_time // max(columns * self.unit, 1), 1) * self.unit, rows)

    def _spans(self) -> Iterator[tuple[int, int]]:
        rows, step = self.layout[0], self._step
        for start in range(0, rows, max(step, 1)):
            yield start, min(start + step, rows)

    def _spare(self) -> Array:
        """Room for a block: asking for memory anew each time was measured to cost half a pass."""
        return np.empty((self._step, self.layout[1]), self.dtype)

    def _restored(self, start: int, stop: int, spare: Array) -> tuple[Array, bool]:
        if isinstance(self.restored, np.ndarray):
            return self._scaled(rows_of(self.restored, start, stop, spare)), False
        codes = self.restored.codes(start, stop)
        if codes is None:
            rows = self.restored.restore(start, stop)
        elif self.dtype is np.float32:
            rows = codes.restore(spare[: stop - start])
        else:
            rows = codes.restore()
        return self._scaled(as_rows(rows, self.dtype)), codes is not None

    def _scaled(self, rows: Array) -> Array:
        return np.ldexp(rows, -self.exponent) if self.exponent else rows


def rows_of(array: Array, start: int, stop: int, spare: Array) -> Array:
    """Rows start to stop of an array in any layout, C-contiguous and of the type of `spare`.

    A view where they are already, else in `spare`. No others are read.
    """
    rows = array[start:stop] if array.ndim > 1 else array
    dtype = spare.dtype.type
    if array.dtype == spare.dtype and rows.flags.c_contiguous and rows.flags.aligned:
        return as_rows(rows, dtype)
    out = spare[: stop - start]
    if rows.ndim == 2 and rows.strides[0] < rows.strides[1]:
        # Transposed: a cast across cache lines was measured to take ten times as long.
        columns = rows.T
        np.copyto(out, rows_of(columns, 0, len(columns), np.empty(columns.shape, dtype)).T)
        return out
    if array.dtype == np.float16 and dtype is np.float32:
        widen.halves(as_rows(rows.view(np.uint16), np.uint16), out)
    else:
        np.copyto(out.reshape(rows.shape), np.ascontiguousarray(rows))
    return out
