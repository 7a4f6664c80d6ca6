"""What can be said of a quantized weight without its original: scales, code range, saturation."""

from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from ..arrays import Array
from ..case import Finding
from ..checkpoints.weight import InBlocks, StoredWeight
from ..codes import Codes, Grid
from ..kernels import integrity as kernels
from ..scheme import rows_and_columns

SATURATED = 0.5  # share of codes at the ends of a range of 4 bits or more; honest ones: below 0.1
WRAPPED = 0.05  # share of groups whose zero point lies at an end of the range; honest: below 0.01
LEAST_GROUPS = 64
LEAST_CODES = 1024


@dataclass(slots=True, eq=False)
class Inspected(InBlocks):
    """A StoredWeight that looks at its codes on the way: each row counts once, however often read.

    Restored values are the weight's own. `findings()` says what was seen of the rows read so far.
    """

    weight: StoredWeight
    ends: Array = field(init=False)
    largest: int = 0
    not_finite: int = 0
    first_not_finite: str = ""
    off_centre: int = 0
    first_off_centre: str = ""
    outer_zeros: Array = field(init=False)
    groups: Array = field(init=False)

    def __post_init__(self) -> None:
        rows = rows_and_columns(self.weight.shape)[0]
        self.ends = np.full(rows, -1, np.int32)
        self.outer_zeros = np.zeros(rows, np.int32)
        self.groups = np.zeros(rows, np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """See StoredWeight."""
        return self.weight.shape

    @property
    def grid(self) -> Grid:
        """See StoredWeight."""
        return self.weight.grid

    @property
    def nbytes(self) -> int:
        """See StoredWeight."""
        return self.weight.nbytes

    def codes(self, start: int, stop: int) -> Codes | None:
        """See StoredWeight."""
        codes = self.weight.codes(start, stop)
        if codes is not None and stop > start and self.ends[start] < 0:
            self._look_at(codes, start, stop)
        return codes

    def restore(self, start: int, stop: int) -> Array:
        """See StoredWeight."""
        codes = self.codes(start, stop)
        return self.weight.restore(start, stop) if codes is None else codes.restore()

    def _look_at(self, codes: Codes, start: int, stop: int) -> None:
        for what, array in (
            ("scale", codes.scale),
            ("zero", codes.zero),
            ("minimum", codes.minimum),
        ):
            finite = np.isfinite(array)
            if not finite.all():
                row, group = (int(i) for i in np.argwhere(~finite)[0])
                self.not_finite += int((~finite).sum())
                value = float(array[row, group])
                self.first_not_finite = (
                    self.first_not_finite or f"{what} {value} at row {start + row}, group {group}"
                )
        highest = 2**self.grid.bits - 1
        largest = kernels.code_use(
            codes.values, np.uint8(0), np.uint8(min(highest, 255)), self.ends[start:stop]
        )
        self.largest = max(self.largest, int(largest))
        if self.grid.zero == "none" and not self.grid.table and codes.zero.size:
            self._look_for_centre(codes.zero, start)
        if self.grid.zero == "integer" and codes.zero.size:
            outer = (codes.zero <= 0) | (codes.zero >= highest)
            self.outer_zeros[start:stop] = outer.sum(axis=1)
            self.groups[start:stop] = codes.zero.shape[1]

    def _look_for_centre(self, zero: Array, start: int) -> None:
        """Codes that are said to be symmetric have their zero in the middle of the range."""
        off = zero != 2 ** (self.grid.bits - 1)
        if off.any():
            row, group = (int(i) for i in np.argwhere(off)[0])
            self.off_centre += int(off.sum())
            where = f"{zero[row, group]:g} at row {start + row}, group {group}"
            self.first_off_centre = self.first_off_centre or where

    def findings(self, alone: bool) -> list[Finding]:
        """What the codes and scales say of themselves; none where codes are not seen.

        alone: there is no original, which could have its weights on one side of zero.
        """
        if not self.ends.size or self.ends[0] < 0:
            return []
        highest = 2**self.grid.bits - 1
        found = [Finding("finite_scales", "<=", 0, self.not_finite, self.first_not_finite)]
        if self.grid.table == ():
            found.append(Finding("code_range", "<=", highest, self.largest))
            if self.grid.zero == "none":
                where = self.first_off_centre
                found.append(Finding("symmetric_zero", "<=", 0, self.off_centre, where))
        columns = rows_and_columns(self.shape)[1]
        if self.grid.bits >= 4 and not self.grid.table and self.ends.size * columns >= LEAST_CODES:
            share = int(self.ends.sum()) / (self.ends.size * columns)
            found.append(Finding("saturated", "<=", SATURATED, share))
        groups = int(self.groups.sum())
        if alone and groups >= LEAST_GROUPS and self.grid.bits >= 4:
            share = int(self.outer_zeros.sum()) / groups
            found.append(Finding("wrapped_zero_points", "<=", WRAPPED, share))
        return [finding for finding in found if isfinite(finding.value)]
