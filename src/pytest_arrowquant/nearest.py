"""Round-to-nearest as the yardstick of a tensor: what it loses, at any width or onto a table."""

from dataclasses import dataclass
from functools import lru_cache

import ml_dtypes
import numpy as np

from .arrays import Array
from .kernels import decode, encode, structure, tables
from .row_blocks import rows_of
from .scheme import GroupSize, Zero, rows_and_columns

TINY = np.float32(2.0**-126)  # a smaller scale has no finite inverse
FORMATS = {  # of floats: bits of the mantissa, smallest positive value
    ml_dtypes.float8_e4m3fn: (3, 2.0**-9),
    ml_dtypes.float8_e5m2: (2, 2.0**-16),
}
MX_GROUP = 32
E2M1 = np.array([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


@dataclass(frozen=True, slots=True)
class Nearest:
    """A kind of round-to-nearest.

    bits, zero: as of a Grid. group_size: weights that share parameters, "channel" for a row,
    "tensor" for all. table: what may be restored, () for the integers; its scale takes the largest
    magnitude of the weights to that of the table, or, as a power of two, into its binade, where it
    may clip (OCP Microscaling Formats 1.0, section 6.3).
    """

    bits: int
    zero: Zero = "none"
    group_size: GroupSize = "channel"
    table: tuple[float, ...] = ()
    power_of_two: bool = False

    def restored(self, rows: Array, low: Array, high: Array) -> Array:
        """What it makes of float32 rows. low, high: of their ranges; of all rows per tensor."""
        if self.table and isinstance(self.group_size, int):
            padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % self.group_size)))
            groups = padded.reshape(-1, self.group_size)
            restored = self._onto_table(groups, *extents(groups)).reshape(padded.shape)
            return np.ascontiguousarray(restored[:, : rows.shape[1]])
        if self.table:
            return self._onto_table(rows, low, high)
        out = np.empty_like(rows)
        columns = rows.shape[1]
        size = self.group_size if isinstance(self.group_size, int) else columns
        integer, floating = self.zero == "integer", self.zero == "float"
        shape = (3, len(rows), -(-columns // size))
        if self.group_size == "tensor":
            fitted = encode.parameters(low.min(), high.max(), self.bits, integer, floating)
            scale, zero_point, minimum = (np.full(shape[1:], p, np.float32) for p in fitted)
        else:
            scale, zero_point, minimum = np.empty(shape, np.float32)
            encode.fit(rows, size, self.bits, integer, floating, scale, zero_point, minimum)
        lowest = np.float32(self.zero == "none" and self.bits > 2)
        decode.round_trip(rows, size, self.bits, lowest, scale, zero_point, minimum, out)
        return out

    def errors(self, rows: Array, low: Array, high: Array) -> Array:
        """The squared error of each row."""
        errors = np.empty(len(rows))
        levels = _levels(self.table)[0]
        if self.group_size == "channel" and 0 < levels.size <= tables.FEW:
            scale = self._scale(np.maximum(-low, high))
            few = np.pad(levels, (0, tables.FEW - levels.size), "edge")
            tables.errors_of_levels(rows, scale, few, errors)
            return errors
        tables.squared_errors(rows, self.restored(rows, low, high), errors)
        return errors

    def of_largest(self, low: Array, high: Array) -> Array:
        """The most that rounding the largest value of each row adds to the error, for a table.

        Its own scale spares it that, another one (of a group, a block) does not.
        """
        levels = _levels(self.table)[0]
        step = float(levels[-1] - levels[-2]) / float(np.abs(levels).max())
        return (np.maximum(-low, high).astype(np.float64) * step / 2) ** 2

    def predicted(self, low: Array, high: Array, columns: int) -> Array:
        """columns * step^2 / 12 of each row, for the step of integers over its range."""
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        if self.group_size == "tensor":
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        if self.zero == "none":
            steps = 2 ** (self.bits - 1) - (self.bits > 2)
            step = np.maximum(-low, high).astype(np.float64) / steps
        else:
            step = (high.astype(np.float64) - low) / (2**self.bits - 1)
        predicted: Array = columns * step**2 / 12
        return predicted

    def _onto_table(self, rows: Array, low: Array, high: Array) -> Array:
        levels, floating = _levels(self.table)
        scale, out = self._scale(np.maximum(-low, high)), np.empty_like(rows)
        if self.group_size == "tensor":
            scale = np.full(len(rows), scale.max())
        if floating:
            mantissa, quantum = floating
            tables.onto_floats(rows, scale, mantissa, np.float32(quantum), levels[-1], out)
        else:
            tables.onto_levels(rows, scale, levels, out)
        return out

    def _scale(self, peaks: Array) -> Array:
        largest = np.abs(_levels(self.table)[0]).max()
        scale: Array = peaks / largest
        if self.power_of_two:
            exponents = np.frexp(peaks)[1] - np.frexp(largest)[1]
            scale = np.ldexp(np.float32(1), exponents)
        return np.maximum(scale, TINY)


@lru_cache(maxsize=16)
def _levels(table: tuple[float, ...]) -> tuple[Array, tuple[int, float] | None]:
    """(the values of a table, ascending; the format of floats that they are, if they are one)."""
    levels = _ascending(np.array(table, np.float32))
    for dtype, known in FORMATS.items():
        every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
        if np.array_equal(levels, _ascending(every)):
            return levels, known
    return levels, None


def microscaled(table: tuple[float, ...], group_size: GroupSize | None) -> bool:
    """True of MXFP4 and MXFP8: floats in groups of 32, whose scale is a power of two."""
    levels, floating = _levels(table)
    return group_size == MX_GROUP and (floating is not None or np.array_equal(levels, E2M1))


def _ascending(values: Array) -> Array:
    return np.unique(values[np.isfinite(values)])


@dataclass(frozen=True, slots=True, eq=False)
class NearestWeight:
    """What round-to-nearest makes of a reference, as a StoredWeight without codes.

    low, high: float32 (rows,), of the range of each row of the reference.
    """

    reference: Array
    kind: Nearest
    low: Array
    high: Array

    def codes(self, start: int, stop: int) -> None:
        """None."""

    def restore(self, start: int, stop: int) -> Array:
        """The values of rows start to stop."""
        columns = rows_and_columns(self.reference.shape)[1]
        rows = rows_of(self.reference, start, stop, np.empty((stop - start, columns), np.float32))
        whole = slice(None) if self.kind.group_size == "tensor" else slice(start, stop)
        return self.kind.restored(rows, self.low[whole], self.high[whole])


def extents(rows: Array) -> tuple[Array, Array]:
    """(smallest, largest) of each row, float32."""
    low, high = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    structure.extents(rows, low, high)
    return low, high
