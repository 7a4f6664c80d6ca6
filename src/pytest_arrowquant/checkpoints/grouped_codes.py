"""Rows of codes whose parameters lie in groups along them: what most formats come down to."""

from dataclasses import dataclass, field

import numpy as np

from ..arrays import Array
from ..codes import NO_ORDER, NO_TABLE, NO_VALUES, Codes
from ..kernels import bitstream


@dataclass(frozen=True, slots=True, eq=False)
class GroupedCodes:
    """The codes of a weight as a file holds them, and their parameters.

    packed: uint8 or uint32 (rows, ...), low bits first, `bits` a code, as they are mapped.
    offset: what a code counts from 0 is more than what is stored, which may be negative, of so
    many bits. scale, zero, minimum: float32 (rows // rows_a_scale, groups), as of Codes, of zeros
    with the offset in them. by_column: float32, by which columns are multiplied afterwards; empty
    if they are not. order: the group of each column, as of Codes.
    """

    packed: Array
    columns: int
    bits: int
    scale: Array
    group_size: int
    rows_a_scale: int = 1
    offset: int = 0
    zero: Array = field(default_factory=lambda: NO_VALUES)
    minimum: Array = field(default_factory=lambda: NO_VALUES)
    table: tuple[float, ...] = ()
    by_column: Array = field(default_factory=lambda: NO_TABLE)
    order: Array = field(default_factory=lambda: NO_ORDER)

    def read(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop."""
        parameters = [self._rows(p, start, stop) for p in (self.scale, self.zero, self.minimum)]
        group_size, order = self.group_size, self.order
        if self.by_column.size:
            scale, zero, minimum = (self._a_column_each(p) for p in parameters)
            minimum = minimum * self.by_column if minimum.shape[1] else minimum
            parameters, group_size, order = [scale * self.by_column, zero, minimum], 1, NO_ORDER
        scale, zero, minimum = parameters
        table = np.array(self.table, np.float32)
        return Codes(self._values(start, stop), scale, group_size, zero, minimum, table, order)

    def _values(self, start: int, stop: int) -> Array:
        packed = np.require(self.packed[start:stop], requirements=["C", "A"])
        values = np.empty((len(packed), self.columns), np.uint8)
        bitstream.unpack_rows(packed, self.bits, values)
        if self.offset:
            values += np.uint8(self.offset)
            values &= np.uint8(2**self.bits - 1)
        return values

    def _rows(self, parameter: Array, start: int, stop: int) -> Array:
        if self.rows_a_scale == 1 or not parameter.size:
            return np.ascontiguousarray(parameter[start:stop])
        return parameter[np.arange(start, stop) // self.rows_a_scale]

    def _a_column_each(self, parameter: Array) -> Array:
        if not parameter.shape[1]:
            return parameter
        columns = self.order if self.order.size else np.arange(self.columns) // self.group_size
        return np.ascontiguousarray(parameter[:, columns])
