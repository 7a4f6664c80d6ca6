"""Guards of how much is lost: no less than so few bits lose, and not much more."""

from dataclasses import replace
from math import inf, isfinite

import numpy as np

from ..arrays import Array
from ..case import SHORTEST_FLOORED_ROW, Case, Finding
from ..kernels import structure
from ..metrics import DB_PER_BIT, decibels
from ..nearest import Nearest
from ..row_blocks import BLOCK

COARSE_FLOOR_DB, FLOOR_DB = -5.0, -3.0  # below 4 bits, and from there on
TABLE_FLOOR_DB = -4.0  # of floats: another scale moves where in its binade each value lies
FED_BACK_DB = -9.0  # GPTQ loses up to 6.4 dB of the weights
COARSE_ROW_DB, ROW_DB = -9.0, -7.0  # and hands the errors of an outlier on to the rest of its row
SHORTEST_FED_BACK_ROW = 4  # weights; of fewer, rounding alone may put one so far below others
LEAST_FED_BACK = 16  # rows, of which a median says something
LEAST_CEILING = 1024  # weights
CEILING_BITS = 4  # wider codes are as fine as the float16 weights they are made from


def row_sqnr_db(case: Case) -> Finding | None:
    """No row may be worse than that row set to zero; a zero row stays zero.

    Judged by outputs, or fed back, from 4 bits on: at 2 bits GPTQ gives up whole rows of weights,
    rightly.
    """
    if not case.fine and (case.fed_back or not case.by_weights):
        return None
    sqnr_db = case.weights.row_sqnr_db
    row = int(np.argmin(sqnr_db))
    return Finding("row_sqnr_db", ">", 0.0, float(sqnr_db[row]), f"row {row}")


def floor(case: Case) -> Finding | None:
    """SQNR not far below round-to-nearest at the same width on the same weights.

    Each row where the groups are known and rows are long enough, else the tensor. Integers: the
    error that the step of round-to-nearest predicts (step^2 / 12 a weight), and where that does
    not suffice its own error, if it is more: weights which happen to lie on its grid accuse
    nobody.
    """
    if case.width is None:
        return None
    if case.fed_back:
        return min(_fed_back_floors(case), key=lambda finding: finding.margin, default=None)
    if not case.by_weights:
        found = [_round_to_nearest_floor(case), _unfolded_floor(case)]
        return min(filter(None, found), key=lambda finding: finding.margin)
    return _round_to_nearest_floor(case)


def _round_to_nearest_floor(case: Case) -> Finding:
    """Against round-to-nearest of the kinds that the quantizer may be."""
    by_tensor = case.grid is None or case.grid.group_size in (None, "tensor")
    long = case.weights.columns >= SHORTEST_FLOORED_ROW
    by_row = case.by_weights and not by_tensor and long
    for kind in case.kinds:  # the next only where it could excuse
        kind = replace(kind, group_size="tensor") if by_tensor else kind
        finding = _floor(case, kind, by_row)
        if finding.passed:
            break
    return finding


def _floor(case: Case, kind: Nearest, by_row: bool) -> Finding:
    evidence = case.evidence
    if not case.by_weights:
        return _held(case, case.nearest(kind).row_sums[:, 2], by_row)
    if kind.table:
        gathered = evidence.rounded if kind == case.kinds[0] else None
        allowed = case.nearest(kind).row_sums[:, 2] if gathered is None else gathered
        spared = kind.of_largest(evidence.low, evidence.high) if by_row else 0
        return _held(case, allowed + spared, by_row)
    predicted = kind.predicted(evidence.low, evidence.high, case.weights.columns)
    finding = _held(case, predicted, by_row)
    if finding.passed:
        return finding
    return _held(case, np.maximum(case.nearest(kind).row_sums[:, 2], predicted), by_row)


def _held(case: Case, allowed: Array, by_row: bool) -> Finding:
    """The error of each row, or of all, against what is allowed there."""
    error, bound = case.judged.row_sums[:, 2], FLOOR_DB if case.fine else COARSE_FLOOR_DB
    if case.grid and case.grid.table:
        bound = min(bound, TABLE_FLOOR_DB)
    if not by_row:
        return Finding("floor", ">=", bound, decibels(float(allowed.sum()), float(error.sum())))
    values = _ratio_db(allowed, error)
    row = int(np.argmin(values))
    return Finding("floor", ">=", bound, float(values[row]), f"row {row}")


def _ratio_db(allowed: Array, error: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, inf, 10 * np.log10(allowed / error))


def _unfolded_floor(case: Case) -> Finding | None:
    """Judged by outputs, no row of weights may stand out either, unless more was folded into them.

    Folded scales or rotations take all rows far below the bound of the median.
    """
    found = _fed_back_floors(case) if case.fine and not (case.grid and case.grid.table) else ()
    return found[1] if found and found[0].passed else None


def _fed_back_floors(case: Case) -> tuple[Finding, ...]:
    """Error feedback loses some decibels, about as many everywhere: no row may stand out.

    Of each row, what the step of round-to-nearest predicts over its error, in decibels: the median
    of that over the rows, and how far the worst row is from it; nothing of few or short rows.
    """
    evidence, columns = case.evidence, case.weights.columns
    if len(evidence.low) < LEAST_FED_BACK or columns < SHORTEST_FED_BACK_ROW:
        return ()
    predicted = case.kinds[0].predicted(evidence.low, evidence.high, columns)
    values = _ratio_db(predicted, case.weights.row_sums[:, 2])
    median = float(np.median(values))
    if not isfinite(median):  # half of the rows are exact
        return ()
    row = int(np.argmin(values))
    bound = ROW_DB if case.fine else COARSE_ROW_DB
    return (
        Finding("floor", ">=", FED_BACK_DB, median, "half of all rows"),
        Finding("floor", ">=", bound, float(values[row]) - median, f"row {row}, below the median"),
    )


def ceiling(case: Case) -> Finding | None:
    """More detail than so few bits can hold: the width is only a label.

    The bound is the Gaussian rate-distortion limit at the stored bits per weight, and at least at
    two bits above the width: real weights are no Gaussian, and may take fewer bits. Detail is the
    energy about the means of blocks of 32; looked at only where all energy would be too much.
    Not for references that have few distinct values themselves: those may be stored exactly.
    """
    weights, sums = case.weights.sums.weights, case.weights.sums
    if case.bits is None or case.bits > CEILING_BITS or weights < LEAST_CEILING:
        return None
    rate = case.bits + 2.0
    if case.nbytes is not None:
        rate = max(rate, case.nbytes * 8 / weights)
    elif case.weights.columns < 2 * BLOCK:
        return None
    bound = DB_PER_BIT * rate
    value = decibels(sums.reference_energy, sums.error_energy)
    if value > bound:
        detail, few_valued = _detail(case)
        value = decibels(detail, sums.error_energy)
        if value > bound and few_valued:
            return None
    return Finding("ceiling", "<=", bound, value)


def _detail(case: Case) -> tuple[float, bool]:
    """(energy about block means, whether half of the blocks repeat values, on average)."""
    details, counts = [], np.zeros(BLOCK + 1, np.int64)
    unit = case.blocks.unit
    for _, rows in case.blocks.references():
        found = np.empty(-(-len(rows) // unit))
        structure.detail(rows, unit, found)
        details.append(found)
        runs = np.sort(rows.reshape(-1)[: rows.size // BLOCK * BLOCK].reshape(-1, BLOCK), axis=1)
        distinct = 1 + np.count_nonzero(np.diff(runs, axis=1), axis=1)
        counts += np.bincount(distinct, minlength=BLOCK + 1)
    few = counts[: BLOCK // 2 + 1].sum() * 2 >= counts.sum()
    return float(np.concatenate(details).sum()), bool(few)
