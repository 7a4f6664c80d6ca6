"""A weight cut into what belongs together: runs along a row, rows, or all of it."""

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..scheme import GroupSize, rows_and_columns


@dataclass(frozen=True, slots=True)
class Units:
    """Rows of units of `size` weights, the last one of a row shorter; all of a tensor is one row.

    columns: of the weight, to say where a unit lies.
    """

    rows: int
    length: int
    size: int
    columns: int

    @classmethod
    def of(cls, shape: tuple[int, ...], granularity: GroupSize | None) -> "Units":
        """The units of a weight that is not empty; where nobody says what they are, its rows."""
        rows, columns = rows_and_columns(shape)
        if granularity == "tensor":
            return cls(1, rows * columns, rows * columns, columns)
        size = min(granularity, columns) if isinstance(granularity, int) else columns
        return cls(rows, columns, size, columns)

    def cut(self, array: Array) -> Array:
        """The values as float64 rows of units."""
        return array.astype(np.float64).reshape(self.rows, self.length)

    def largest(self, array: Array) -> Array:
        """max |x| of each unit: float64 (rows, units)."""
        return np.maximum.reduceat(np.abs(self.cut(array)), self._starts, axis=1)

    def rms(self, array: Array) -> Array:
        """The root mean square of each unit: float64 (rows, units)."""
        totals = np.add.reduceat(np.square(self.cut(array)), self._starts, axis=1)
        return np.sqrt(totals / self._counts)

    def spread(self, values: Array) -> Array:
        """A value of each unit at all of its weights: float64 (rows, length)."""
        return np.repeat(values, self._counts, axis=1)

    def each(self, array: Array) -> Array:
        """A unit a row, float64 (units, size); a short one is filled up with its last value."""
        values = np.pad(self.cut(array), ((0, 0), (0, -self.length % self.size)), "edge")
        return values.reshape(-1, self.size)

    def place(self, unit: int) -> str:
        """Where a unit lies, in words; they are counted row by row."""
        row, index = divmod(unit, len(self._starts))
        if self.size == self.length:
            return f"row {row}" if self.length == self.columns else "the tensor"
        first = index * self.size
        return f"row {row}, columns {first} to {min(first + self.size, self.length) - 1}"

    @property
    def _starts(self) -> Array:
        return np.arange(0, self.length, self.size)

    @property
    def _counts(self) -> Array:
        return np.diff(np.append(self._starts, self.length))
