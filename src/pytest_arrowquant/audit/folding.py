"""Scales that were folded into neighbouring layers (AWQ, SmoothQuant): found and undone.

Such methods quantize W diag(s), and divide what feeds the layer by s: a norm's weight, or the rows
of the layer before. What comes back is then not the original, yet the model computes the same. A
fold is taken for one only where its inverse is found in the same checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..checkpoints.weight import StoredWeight
from ..codes import Grid
from ..kernels import folding as kernels
from ..scheme import rows_and_columns

BLOCK = 1 << 18  # weights restored at a time
ROUNDS = 3  # of alternating least squares over row and column scales
FOLDED = 0.02  # spread of the logarithms of scales from which they count as folded


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """restored is near diag(rows) original diag(columns); None where that side is not folded."""

    rows: Array | None
    columns: Array | None

    @property
    def text(self) -> str:
        """What a record says of it."""
        sides = [
            f"{side} scaled by {scale.min():.3g} to {scale.max():.3g}"
            for side, scale in (("columns", self.columns), ("rows", self.rows))
            if scale is not None
        ]
        return " and ".join(sides)


@dataclass(frozen=True, slots=True, eq=False)
class Unfolded:
    """A StoredWeight whose fold is undone."""

    weight: StoredWeight
    fold: Fold

    @property
    def shape(self) -> tuple[int, ...]:
        """See StoredWeight."""
        return self.weight.shape

    @property
    def grid(self) -> Grid:
        """Unfolded columns lie on no common grid, and may have been fed back."""
        grid = self.weight.grid
        return Grid(grid.bits, grid.zero, None, (), feedback=True)

    @property
    def nbytes(self) -> int:
        """See StoredWeight."""
        return self.weight.nbytes

    def codes(self, start: int, stop: int) -> None:
        """None: unfolded values have no codes."""

    def restore(self, start: int, stop: int) -> Array:
        """See StoredWeight."""
        values = np.array(self.weight.restore(start, stop))
        if self.fold.columns is not None:
            values /= self.fold.columns.astype(np.float32)
        if self.fold.rows is not None:
            values /= self.fold.rows[start:stop, None].astype(np.float32)
        return values

    def dequantize(self) -> Array:
        """See StoredWeight."""
        return self.restore(0, rows_and_columns(self.shape)[0]).reshape(self.shape)


def fold_of(reference: Array, weight: StoredWeight) -> Fold | None:
    """The row and column scales by which `weight` differs from the reference, by least squares.

    None where there are none to speak of. Columns that are zero on either side keep scale 1.
    """
    rows, columns = rows_and_columns(reference.shape)
    if min(rows, columns) < 2 or weight.shape != reference.shape:
        return None
    row_scale, column_scale = np.ones(rows), np.ones(columns)
    flat = reference.reshape(rows, columns)
    for _ in range(ROUNDS):
        cross, energy = np.zeros(columns), np.zeros(columns)
        for start, stop, w, r in _blocks(flat, weight):
            kernels.products_by_column(w, r, row_scale[start:stop], cross, energy)
        column_scale = _ratio(cross, energy)
        cross, energy = np.zeros(rows), np.zeros(rows)
        for start, stop, w, r in _blocks(flat, weight):
            kernels.products_by_row(w, r, column_scale, cross[start:stop], energy[start:stop])
        row_scale = _ratio(cross, energy)
        typical = float(np.exp(np.median(np.log(row_scale))))
        row_scale, column_scale = row_scale / typical, column_scale * typical
    found = Fold(_folded(row_scale), _folded(column_scale))
    return found if found.rows is not None or found.columns is not None else None


def _ratio(cross: Array, energy: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = cross / energy
    scale: Array = np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)
    return scale


def _folded(scale: Array) -> Array | None:
    """The scale, if so many of its entries differ that it is no fault of a few."""
    spread = np.quantile(np.abs(np.log(scale)), 0.75)
    return scale if spread > FOLDED else None


def _blocks(flat: Array, weight: StoredWeight) -> Iterator[tuple[int, int, Array, Array]]:
    step = max(1, BLOCK // flat.shape[1])
    for start in range(0, len(flat), step):
        stop = min(start + step, len(flat))
        block = np.ascontiguousarray(flat[start:stop], np.float32)
        yield start, stop, block, np.ascontiguousarray(weight.restore(start, stop))
