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
AT_A_TIME = 1 << 17  # weights; of both sides they stay in the cache
SAFE_EXPONENT = 127  # of float32: beyond it squares of a float64 may overflow or vanish


class Block(NamedTuple):
    """Rows from `start` on, both C-contiguous (rows, columns) of one type.

    coded: the restored values were made of codes.
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
        peaks = [np.abs(side).max(initial=0.0) for block in blocks for side in block[1:3]]
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
        for start, stop in self._spans():
            reference = self._reference(start, stop)
            restored, coded = self._restored(start, stop)
            yield Block(start, reference, restored, coded)

    def references(self) -> Iterator[tuple[int, Array]]:
        """(start, rows) of the reference alone."""
        for start, stop in self._spans():
            yield start, self._reference(start, stop)

    def non_finite(self, restored: bool, first: int) -> str:
        """The first NaN or infinity of a side from row `first` on, in words; empty if none."""
        for start, stop in self._spans():
            if stop <= first:
                continue
            rows = self._restored(start, stop)[0] if restored else self._reference(start, stop)
            finite = np.isfinite(rows)
            if not finite.all():
                row, column = divmod(int(np.argmin(finite)), rows.shape[1])
                flat = (start + row) * rows.shape[1] + column
                index = tuple(int(i) for i in np.unravel_index(flat, self.reference.shape))
                return f"{float(rows[row, column])} at index {index}"
        return ""

    def _spans(self) -> Iterator[tuple[int, int]]:
        rows, columns = self.layout
        step = max(self.at_a_time // max(columns * self.unit, 1), 1) * self.unit
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def _reference(self, start: int, stop: int) -> Array:
        return self._scaled(rows_of(self.reference, start, stop, self.dtype))

    def _restored(self, start: int, stop: int) -> tuple[Array, bool]:
        if isinstance(self.restored, np.ndarray):
            return self._scaled(rows_of(self.restored, start, stop, self.dtype)), False
        codes = self.restored.codes(start, stop)
        rows = self.restored.restore(start, stop) if codes is None else codes.restore()
        return self._scaled(as_rows(rows, self.dtype)), codes is not None

    def _scaled(self, rows: Array) -> Array:
        return np.ldexp(rows, -self.exponent) if self.exponent else rows


def rows_of(array: Array, start: int, stop: int, dtype: type[np.floating[Any]]) -> Array:
    """Rows start to stop of an array in any layout, as C-contiguous `dtype`; no others are read."""
    rows = array[start:stop] if array.ndim > 1 else array
    if array.dtype == np.float16 and dtype is np.float32:
        bits = as_rows(rows.view(np.uint16), np.uint16)
        out = np.empty(bits.shape, np.float32)
        widen.halves(bits, out)
        return out
    return as_rows(rows, dtype)
