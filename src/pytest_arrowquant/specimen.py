"""Specimen: a quantized weight held in memory, to be broken on purpose and mended."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arrays import Array, as_rows
from .case import grid_of
from .codes import Codes, Grid, codes_of
from .metrics import restored_values, stored_bytes
from .scheme import rows_and_columns
from .tensor import QuantizedTensor


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """A StoredWeight (checkpoints/weight.py) of which codes or values may be changed.

    coded: its codes and parameters, where the quantizer shows them; else `values`, float32
    (rows, columns), are all there is. bits: its width, None where nobody says. Nothing here changes
    an array in place.
    """

    shape: tuple[int, ...]
    grid: Grid | None
    nbytes: int | None
    bits: int | None
    coded: Codes | None
    values: Array | None = None

    @classmethod
    def of(cls, restored: Any, bits: int | None = None) -> "Specimen":
        """Of a quantized tensor, a StoredWeight, or an array of what was restored."""
        grid = grid_of(restored)
        coded, values = _held(restored)
        rows = None
        if coded is None:
            with np.errstate(over="ignore"):
                rows = as_rows(values, np.float32)
        shape = values.shape if hasattr(values, "shape") else restored.shape
        width = bits if grid is None else grid.bits
        return cls(tuple(shape), grid, stored_bytes(restored), width, coded, rows)

    @property
    def layout(self) -> tuple[int, int]:
        """Rows and columns."""
        return rows_and_columns(self.shape)

    @property
    def group_size(self) -> int | None:
        """Weights along a row that share parameters; None where that is not known."""
        if self.coded is not None:
            return None if self.coded.order.size else self.coded.group_size
        size = self.grid.group_size if self.grid else None
        return size if isinstance(size, int) else None

    def codes(self, start: int, stop: int) -> Codes | None:
        """See StoredWeight."""
        return None if self.coded is None else _rows(self.coded, slice(start, stop))

    def restore(self, start: int = 0, stop: int | None = None) -> Array:
        """See StoredWeight; without arguments, of all rows."""
        part = slice(start, stop)
        if self.values is not None:
            return self.values[part]
        assert self.coded is not None
        return _rows(self.coded, part).restore()

    def dequantize(self) -> Array:
        """See StoredWeight."""
        return self.restore().reshape(self.shape)

    def take(self, rows: Array) -> "Specimen":
        """These rows, in this order."""
        if self.coded is not None:
            return self.with_codes(_rows(self.coded, rows))
        assert self.values is not None
        return self.with_values(self.values[rows])

    def with_codes(self, coded: Codes) -> "Specimen":
        """The specimen with other codes, of as many rows as they have."""
        return replace(self, shape=self._of_rows(len(coded.values)), coded=coded, values=None)

    def with_values(self, values: Array) -> "Specimen":
        """The specimen with other values and no codes, of as many rows as they have."""
        return replace(self, shape=self._of_rows(len(values)), coded=None, values=values)

    def patched(self, rows: Array, part: "Specimen") -> "Specimen":
        """The specimen with some rows in place of its own, and on their grid."""
        mine = replace(self, grid=part.grid)
        if self.coded is None or part.coded is None:
            values = np.array(self.restore())
            values[rows] = part.restore()
            return mine.with_values(values)
        arrays = {}
        for name in ("values", "scale", "zero", "minimum"):
            old, new = getattr(self.coded, name), getattr(part.coded, name)
            if old.size:
                arrays[name] = old.copy()
                arrays[name][rows] = new
        return mine.with_codes(replace(self.coded, **arrays))

    def _of_rows(self, rows: int) -> tuple[int, ...]:
        return (rows, *self.shape[1:]) if len(self.shape) > 1 else self.shape


def _held(restored: Any) -> tuple[Codes | None, Any]:
    """(codes, or None; what has the restored values)."""
    if isinstance(restored, QuantizedTensor):
        coded = codes_of(restored)
        return coded, restored if coded is not None else restored.dequantize()
    values = restored_values(restored, "restored")
    if not hasattr(values, "restore"):
        return None, values
    rows = rows_and_columns(values.shape)[0]
    coded = values.codes(0, rows)
    return coded, values if coded is not None else values.dequantize()


def _rows(coded: Codes, rows: slice | Array) -> Codes:
    """The codes of some rows."""
    arrays = {name: getattr(coded, name) for name in ("values", "scale", "zero", "minimum")}
    return replace(coded, **{name: part[rows] for name, part in arrays.items() if part.size})
