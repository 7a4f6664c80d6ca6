"""Scales that were folded into neighbouring layers (AWQ, SmoothQuant): found and undone.

Such methods quantize W diag(s), and divide what feeds the layer by s: a norm's weight, or the rows
of the layer before. What comes back is then not the original, yet the model computes the same. A
fold is taken for one only where its inverse is found in the same checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ..arrays import Array
from ..checkpoints.weight import InBlocks, StoredWeight
from ..codes import Grid
from ..kernels import folding as kernels
from ..row_blocks import AT_A_TIME
from ..scheme import rows_and_columns

ROUNDS = 3  # of alternating least squares over row and column scales
FOLDED = 0.02  # spread of the logarithms of scales from which they count as folded
SIGMAS = 3  # and how many times their noise it must be


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """restored is near diag(rows) original diag(columns), by least squares.

    noise: what an entry of each is uncertain by, relative, from what the fit leaves. cross,
    energy: of each column, sum a w r and sum (a w)^2 over rows of scale a.
    """

    rows: Array
    columns: Array
    rows_noise: float
    columns_noise: float
    cross: Array
    energy: Array

    @property
    def in_rows(self) -> bool:
        """True where so many rows are scaled that it is no fault of a few."""
        return spread(self.rows) > max(FOLDED, SIGMAS * self.rows_noise)

    @property
    def in_columns(self) -> bool:
        """True where so many columns are scaled that it is no fault of a few."""
        return spread(self.columns) > max(FOLDED, SIGMAS * self.columns_noise)

    def gain(self, scale: Array) -> float:
        """By how much the error falls if the columns are taken to carry this very scale.

        By sum ((s - 1) w)^2 if they do; it rises by as much if there is none.
        """
        return float(2 * (scale - 1) @ self.cross - (scale**2 - 1) @ self.energy)

    def carries(self, scale: Array) -> bool:
        """True where the columns are better explained by this very scale than by none."""
        if scale.shape != self.columns.shape:
            return False
        return self.gain(scale) > float((scale - 1) ** 2 @ self.energy) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Unfolded(InBlocks):
    """A StoredWeight whose rows and columns are divided by what was folded into them.

    rows, columns: these scales, None where there is none.
    """

    weight: StoredWeight
    rows: Array | None
    columns: Array | None

    @property
    def text(self) -> str:
        """What a record says of it."""
        sides = (("columns", self.columns), ("rows", self.rows))
        return " and ".join(
            f"{side} scaled by {scale.min():.3g} to {scale.max():.3g}"
            for side, scale in sides
            if scale is not None
        )

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
        if self.columns is not None:
            values /= self.columns.astype(np.float32)
        if self.rows is not None:
            values /= self.rows[start:stop, None].astype(np.float32)
        return values


def fold_of(reference: Array, weight: StoredWeight) -> Fold | None:
    """The row and column scales by which `weight` differs from the reference, by least squares.

    None for what has no two rows and columns. What is zero on either side keeps scale 1.
    """
    rows, columns = rows_and_columns(reference.shape)
    if min(rows, columns) < 2 or weight.shape != reference.shape:
        return None
    row_scale, column_scale = np.ones(rows), np.ones(columns)
    flat = reference.reshape(rows, columns)
    by_row = np.zeros((rows, 3))
    for _ in range(ROUNDS):
        cross, energy = np.zeros(columns), np.zeros(columns)
        for start, stop, w, r in _blocks(flat, weight):
            kernels.products_by_column(w, r, row_scale[start:stop], cross, energy)
        column_scale = _ratio(cross, energy)
        for start, stop, w, r in _blocks(flat, weight):
            kernels.products_by_row(w, r, column_scale, by_row[start:stop])
        row_scale = _ratio(by_row[:, 0], by_row[:, 1])
        typical = float(np.median(row_scale))
        row_scale, column_scale = row_scale / typical, column_scale * typical
    fitted, restored = (by_row[:, 0] * row_scale * typical).sum(), by_row[:, 2].sum()
    noise = max(0.0, 1 - fitted / restored) if restored else 0.0
    if spread(row_scale) <= max(FOLDED, SIGMAS * sqrt(noise / columns)):
        cross, energy = np.zeros(columns), np.zeros(columns)
        for _, _, w, r in _blocks(flat, weight):
            kernels.products_by_column(w, r, np.ones(len(w)), cross, energy)
        column_scale = _ratio(cross, energy)
    return Fold(row_scale, column_scale, sqrt(noise / columns), sqrt(noise / rows), cross, energy)


def spread(scale: Array) -> float:
    """How far a quarter of the entries is from their median, at least, as a logarithm.

    One factor for all is no fold but a wrong scale.
    """
    return float(np.quantile(np.abs(np.log(scale / np.median(scale))), 0.75))


def rows_given(reference: Array, weight: StoredWeight, columns: Array) -> Array:
    """The row scales by which `weight` differs from the reference under these column scales."""
    flat = reference.reshape(rows_and_columns(reference.shape))
    sums = np.zeros((len(flat), 3))
    for start, stop, w, r in _blocks(flat, weight):
        kernels.products_by_row(w, r, columns, sums[start:stop])
    return _ratio(sums[:, 0], sums[:, 1])


def _ratio(cross: Array, energy: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = cross / energy
    scale: Array = np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)
    return scale


def _blocks(flat: Array, weight: StoredWeight) -> Iterator[tuple[int, int, Array, Array]]:
    step = max(1, AT_A_TIME // flat.shape[1])
    for start in range(0, len(flat), step):
        stop = min(start + step, len(flat))
        block = np.ascontiguousarray(flat[start:stop], np.float32)
        yield start, stop, block, np.ascontiguousarray(weight.restore(start, stop))
