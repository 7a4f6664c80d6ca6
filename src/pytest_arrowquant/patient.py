"""Patient: a restored weight beside its reference, and which of its rows are too far from it.

Rows are compared in decibels over what round-to-nearest at the same width and groups does to them,
so that outlier rows count like all others.
"""

from dataclasses import dataclass, replace

import numpy as np

from .arrays import Array, as_rows
from .case import FINE
from .evidence import Evidence, Wanted, gather
from .metrics import Deviation, deviation
from .nearest import Nearest, NearestWeight
from .row_blocks import RowBlocks
from .specimen import Specimen

WORST, OTHERS = 16, 48  # rows looked at closely
WIDEST = 8  # bits of round-to-nearest
LOST_DB = 60.0  # excess of a row that is not finite, and the most that any has
NEGLIGIBLE = 1e-9  # of a row's energy: errors below count as none
COARSE_DB, FINE_DB, FED_BACK_DB = 5.0, 3.0, 9.0  # as the guard `floor` allows
NEAR_DB = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """A specimen, its reference, and how they differ.

    found: their sums. allowed: the error of each row that round-to-nearest makes. excess: by how
    many decibels the error of each row exceeds it. rows, weights: rows looked at closely, the worst
    first, and for how many rows each stands.
    """

    reference: Array
    specimen: Specimen
    kind: Nearest
    evidence: Evidence
    allowed: Array
    excess: Array
    rows: Array
    weights: Array

    @classmethod
    def of(cls, blocks: RowBlocks) -> "Patient":
        """The patient of a reference and a specimen, with its sample of rows."""
        reference, specimen = blocks.reference, blocks.restored
        kind = nearest_of(specimen)
        evidence = gather(blocks, Wanted())
        yardstick = NearestWeight(reference, kind, evidence.low, evidence.high)
        allowed = deviation(reference, yardstick).row_sums[:, 2]
        excess = excess_db(evidence.weights.row_sums, allowed)
        rows, weights = _sampled(excess)
        return cls(reference, specimen, kind, evidence, allowed, excess, rows, weights)

    @property
    def found(self) -> Deviation:
        """How far the specimen is from the reference."""
        return self.evidence.weights

    @property
    def worst(self) -> Array:
        """The worst rows, worst first."""
        return self.rows[:WORST]

    @property
    def fine(self) -> bool:
        """True from 4 bits on."""
        return (self.specimen.bits or 2) >= FINE

    @property
    def tolerance(self) -> float:
        """The excess up to which a row is as it should be."""
        if self.specimen.grid is not None and self.specimen.grid.feedback:
            return FED_BACK_DB
        return FINE_DB if self.fine else COARSE_DB

    @property
    def near(self) -> float:
        """The excess up to which a row is as round-to-nearest has it, or nearly."""
        return NEAR_DB if self.tolerance < FED_BACK_DB else FED_BACK_DB

    @property
    def bad(self) -> Array:
        """The rows that are not as they should be."""
        return np.flatnonzero(self.excess > self.tolerance)

    def reference_rows(self, rows: Array) -> Array:
        """Some rows of the reference, float32."""
        return rows_at(self.reference, rows)

    def rounded(self, rows: Array) -> Array:
        """What round-to-nearest makes of these rows of the reference."""
        whole = slice(None) if self.kind.group_size == "tensor" else rows
        low, high = self.evidence.low[whole], self.evidence.high[whole]
        return self.kind.restored(self.reference_rows(rows), low, high)

    def excess_of(self, part: Specimen, rows: Array) -> Array:
        """The excess of these rows, if they were restored as `part`."""
        sums = deviation(self.reference_rows(rows), part.restore()).row_sums
        return excess_db(sums, self.allowed[rows])


def nearest_of(specimen: Specimen) -> Nearest:
    """The round-to-nearest that a specimen is held to: of its own groups, by row if unknown."""
    bits = min(max(specimen.bits or 2, 2), WIDEST)
    grid = specimen.grid
    if grid is None:
        return Nearest(bits)
    return replace(
        Nearest(bits, grid.zero or "none", table=grid.table),
        group_size=grid.group_size or "channel",
    )


def rows_at(array: Array, rows: Array) -> Array:
    """Some rows of an array, float32 (rows, columns)."""
    some = array[rows] if array.ndim > 1 else array.reshape(1, -1)[rows]
    with np.errstate(over="ignore"):
        return as_rows(some, np.float32)


def excess_db(row_sums: Array, allowed: Array) -> Array:
    """10 log10(error / allowed) of each row, within ±LOST_DB; LOST_DB where it is not finite."""
    energy, error = row_sums[:, 0], row_sums[:, 2]
    least = NEGLIGIBLE * (energy + energy.mean()) + np.finfo(np.float64).tiny
    with np.errstate(invalid="ignore"):
        excess = 10 * np.log10((error + least) / (allowed + least))
    return np.nan_to_num(excess, nan=LOST_DB, posinf=LOST_DB).clip(-LOST_DB, LOST_DB)  # type: ignore[no-any-return]


def _sampled(excess: Array) -> tuple[Array, Array]:
    """(the worst rows and some others, for how many rows each stands)."""
    order = np.argsort(-excess, kind="stable")
    worst, rest = order[:WORST], np.sort(order[WORST:])
    others = rest[np.linspace(0, len(rest) - 1, min(OTHERS, len(rest))).astype(np.int64)]
    weights = np.ones(len(worst) + len(others))
    weights[len(worst) :] = len(rest) / max(len(others), 1)
    return np.concatenate([worst, others]), weights
