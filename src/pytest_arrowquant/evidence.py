"""All that guards look at, found in one pass over a tensor, a block of rows at a time."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .arrays import Array
from .kernels import levels, structure
from .metrics import Deviation, Summing
from .nearest import Nearest
from .row_blocks import Block, RowBlocks

SAMPLED = 1 << 14  # weights whose rounding is looked at
LEAST_SAMPLED = 4  # rows
LEAST_LOST = 0.125  # of the largest weight: scales of few bits leave smaller groups at zero
SHORT_ROW = 32  # weights; all of such rows are looked at, as no other guard does row by row
LEAST_STEPS = 8  # large steps of a run of 32; of fewer, chance turns a quarter


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pass gathers beyond the sums.

    order, columns: whether. group_size, limit: the distinct values of groups, counted to one more
    than the limit, where values are not made of codes; None where not. rounded: a yardstick for
    each row that takes no second pass. rounding: whether, of sampled rows; where groups are known.
    """

    order: bool = False
    columns: bool = False
    group_size: int | Literal["tensor"] | None = None
    limit: int = 0
    rounded: Nearest | None = None
    rounding: bool = False


@dataclass(frozen=True, slots=True)
class Rounding:
    """How the weights of sampled rows were rounded, as kernels/levels.py counts it.

    strays: and rows with a group that came back as nothing, although it has a weight of an eighth
    of the largest. where: row and column of the first.
    """

    away: int
    inward: int
    strays: int
    where: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a pass gathered; None where it was not wanted.

    low, high: float32 (rows,), the range of each row of the reference. order: the largest share of
    large steps of a run that changed direction, and where that run starts in the flattened array.
    dead: columns restored as zero throughout, bool (columns,). levels: the most distinct values of
    a group, its row and its number. rounded: the squared error of each row under that yardstick.
    rounding: of integers.
    """

    weights: Deviation
    low: Array
    high: Array
    order: tuple[float, int] | None
    dead: Array | None
    levels: tuple[int, int, int] | None
    rounded: Array | None
    rounding: Rounding | None


def gather(blocks: RowBlocks, wanted: Wanted) -> Evidence:
    """The evidence of one pass."""
    gathering = _Gathering(blocks, wanted)
    for block in blocks:
        gathering.add(block)
    return gathering.evidence()


class _Gathering:
    def __init__(self, blocks: RowBlocks, wanted: Wanted) -> None:
        rows, self.columns = blocks.layout
        self.wanted, self.summing = wanted, Summing(blocks)
        self.low, self.high = np.empty((2, rows), np.float32)
        self.order = (0.0, 0)
        self.dead = np.ones(self.columns, np.uint8)
        self.some_dead = wanted.columns
        self.levels: tuple[int, int, int] | None = None
        self.distinct = np.empty(0)
        self.rounded = np.empty(rows) if wanted.rounded else None
        rounding = wanted.rounding and isinstance(wanted.group_size, int)
        self.sampled = _sampled(rows, self.columns) if rounding else np.empty(0, np.int64)
        self.rounding = np.zeros((len(self.sampled), 4), np.int64)
        self.lost = np.zeros((len(self.sampled), 2))

    def add(self, block: Block) -> None:
        """What one block shows."""
        self.summing.add(block)
        at = slice(block.start, block.start + len(block.reference))
        structure.extents(block.reference, self.low[at], self.high[at])
        if self.wanted.order:
            self._add_order(block, self.summing.row_sums[at, 3])
        if self.some_dead:
            self.some_dead = structure.clear_alive(block.restored, self.dead) > 0
        if self.wanted.group_size is not None and not block.coded:
            self._add_levels(block)
        if self.rounded is not None and self.wanted.rounded is not None:
            rows = np.asarray(block.reference, np.float32)
            self.rounded[at] = self.wanted.rounded.errors(rows, self.low[at], self.high[at])
        if self.sampled.size:
            self._add_rounding(block)

    def evidence(self) -> Evidence:
        """All of it."""
        wanted = self.wanted
        return Evidence(
            self.summing.deviation(),
            self.low,
            self.high,
            self.order if wanted.order else None,
            self.dead.astype(bool) if wanted.columns else None,
            self.levels,
            self.rounded,
            self._rounding() if self.sampled.size else None,
        )

    def _add_order(self, block: Block, peaks: Array) -> None:
        unit = self.summing.unit
        share, where = structure.worst_order(
            block.reference, block.restored, unit, peaks, LEAST_STEPS
        )
        if share > self.order[0]:
            self.order = (float(share), block.start * self.columns + int(where))

    def _add_rounding(self, block: Block) -> None:
        among = slice(
            *np.searchsorted(self.sampled, (block.start, block.start + len(block.reference)))
        )
        rows = self.sampled[among] - block.start
        if not rows.size:
            return
        assert isinstance(self.wanted.group_size, int)
        levels.rounding(
            np.ascontiguousarray(block.reference[rows]),
            np.ascontiguousarray(block.restored[rows]),
            self.wanted.group_size,
            self.wanted.limit,
            self.rounding[among],
            self.lost[among],
        )

    def _rounding(self) -> Rounding:
        away, inward, strays = (int(part) for part in self.rounding[:, :3].sum(axis=0))
        peak = max(-float(self.low.min()), float(self.high.max()))
        lost = self.lost[:, 0] > LEAST_LOST * peak
        first = int(np.argmax((self.rounding[:, 2] > 0) | lost))
        column = self.lost[first, 1] if lost[first] else self.rounding[first, 3]
        where = (int(self.sampled[first]), int(column))
        return Rounding(away, inward, strays + int(lost.sum()), where)

    def _add_levels(self, block: Block) -> None:
        size, limit = self.wanted.group_size, self.wanted.limit
        if size == "tensor":
            self.distinct = np.union1d(self.distinct, block.restored)[: limit + 1]
            self.levels = (self.distinct.size, 0, 0)
            return
        found = structure.most_levels(block.restored, size, limit)
        most, row, group = (int(part) for part in found)
        if self.levels is None or most > self.levels[0]:
            self.levels = (most, block.start + row, group)


def _sampled(rows: int, columns: int) -> Array:
    """Rows spread evenly: as many as SAMPLED weights have, LEAST_SAMPLED at least."""
    count = max(LEAST_SAMPLED, SAMPLED // max(columns, 1)) if columns >= SHORT_ROW else rows
    return np.unique(np.linspace(0, rows - 1, min(count, rows)).astype(np.int64))
