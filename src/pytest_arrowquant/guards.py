"""Guards: on by default, for the faults that a cosine cannot see.

Each is a function from one tensor's Case to a Finding, or None where it does not apply. The
evidence for every bound is the table in docs/guards.md. No case is of an empty tensor.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite, sqrt

import numpy as np

from .arrays import Array
from .case import EXCUSE, SHORTEST_FLOORED_ROW, Case, Finding, excused
from .kernels import structure
from .metrics import DB_PER_BIT, Deviation, decibels
from .nearest import Nearest
from .row_blocks import BLOCK

COARSE_FLOOR_DB, FLOOR_DB = -5.0, -3.0  # below 4 bits, and from there on
TABLE_FLOOR_DB = -4.0  # of floats: another scale moves where in its binade each value lies
FED_BACK_DB = -9.0  # GPTQ loses up to 6.4 dB of the weights
COARSE_ROW_DB, ROW_DB = -9.0, -7.0  # and hands the errors of an outlier on to the rest of its row
GAIN_PER_NOISE, GAIN_SIGMAS = 1.5, 4
GAIN_SLACK = 0.004  # one scale rounded to bfloat16
LEAST_OUTPUTS = 16  # output channels
ROW_GAIN, ROW_GAIN_SIGMAS = 0.1, 6
BIAS, LEAST_BIASED = 0.75, 256  # bound; fewer weights share a sign by chance
ORDER_SHARE = 0.25
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


def gain(case: Case) -> Finding | None:
    """A wrong scale: the best multiple of the restored tensor is not itself.

    An unbiased error e takes it to <w, r> / <r, r> = 1 - (1 - cos^2), least squares to 1; by
    chance it moves by sqrt((1 - cos^2) / weights). Outputs of alike inputs move together: there,
    by the standard error of a ratio over the output channels, which are independent; so few that it
    is unknown are not judged. So do floats, whose largest values err the most.
    """
    if not case.by_weights and len(case.judged.row_sums) < LEAST_OUTPUTS:
        return None
    sums = case.judged.sums
    noise = max(0.0, 1 - sums.cosine**2)
    chance = sqrt(noise / sums.weights)
    if not case.by_weights or (case.grid and case.grid.table):
        chance = max(chance, _ratio_error(case.judged.row_sums, sums.gain))
    chance *= GAIN_SIGMAS
    bound = GAIN_PER_NOISE * noise + GAIN_SLACK + chance
    finding = Finding("gain", "within", bound, sums.gain)
    return excused(case, finding, lambda nearest: abs(nearest.sums.gain - 1))


def _ratio_error(row_sums: Array, gain: float) -> float:
    """Standard error of sum <w, r> / sum <r, r> over rows."""
    reference, restored, error = row_sums.T[:3]
    residual = (reference + restored - error) / 2 - gain * restored
    return float(np.sqrt(np.square(residual).sum()) / restored.sum()) if restored.any() else 0.0


def row_gain(case: Case) -> Finding | None:
    """A wrong scale in one row, which the tensor's gain does not show. Long rows, 4 bits or more.

    value: the gain of the row that is furthest beyond its own bound. Scales that are powers of two
    clip, which is excused as far as it goes.
    """
    weights = case.weights
    if not case.fine or weights.columns < SHORTEST_FLOORED_ROW:
        return None
    gains = _row_gains(weights)
    if np.isnan(gains).all():
        return None
    noise = np.clip(1 - weights.row_cosines**2, 0, 1)
    chance = ROW_GAIN_SIGMAS * np.sqrt(noise / weights.columns)
    bounds = ROW_GAIN + 2 * GAIN_PER_NOISE * noise + chance
    if (np.abs(gains - 1) > bounds).any() and case.width is not None:
        for kind in case.kinds:
            if kind.power_of_two:
                clipped = EXCUSE * np.abs(_row_gains(case.nearest(kind)) - 1)
                bounds = np.fmax(bounds, clipped)
    row = int(np.nanargmin(bounds - np.abs(gains - 1)))
    return Finding("row_gain", "within", float(bounds[row]), float(gains[row]), f"row {row}")


def _row_gains(found: Deviation) -> Array:
    """<w, r> / <r, r> of each row; NaN where either is zero."""
    reference, restored, error = found.row_sums.T[:3]
    live = (reference > 0) & (restored > 0)
    gains = np.full(len(live), np.nan)
    np.divide(reference + restored - error, 2 * restored, out=gains, where=live)
    return gains


def bias(case: Case) -> Finding | None:
    """A constant offset in the tensor or its blocks: a zero point or code off by one."""
    known = case.by_weights or case.width is not None  # inputs with a mean bias all outputs
    if case.judged.sums.weights < LEAST_BIASED or not known:
        return None
    finding = Finding("bias", "<=", BIAS, case.judged.sums.bias)
    return excused(case, finding, lambda nearest: nearest.sums.bias)


def dead_columns(case: Case) -> Finding | None:
    """An input channel of at least median norm may not come back all zero."""
    dead = case.evidence.dead
    if dead is None:
        return None
    if not dead.any():
        return Finding("dead_columns", "<=", 0, 0)
    energy = np.zeros(dead.size)
    for _, rows in case.blocks.references():
        structure.column_energies(rows, energy)
    channels = (case.shape[1], -1)
    energy = energy.reshape(channels).sum(axis=1)
    silent: Array = np.asarray(dead.reshape(channels).all(axis=1))
    lost = np.flatnonzero((energy >= np.median(energy)) & (energy > 0) & silent)
    where = f"input channel {int(lost[0])}" if lost.size else ""
    return Finding("dead_columns", "<=", 0, int(lost.size), where)


def levels(case: Case) -> Finding | None:
    """At most 2^bits distinct values in a group, where the groups are known.

    Not where values were made of codes before our eyes: they are no more by construction.
    """
    if case.evidence.levels is None or case.bits is None:
        return None
    most, row, group = case.evidence.levels
    return Finding("levels", "<=", 2**case.bits, most, f"row {row}, group {group}")


def order(case: Case) -> Finding | None:
    """Large steps along a row keep their direction: blocks and groups are where they belong.

    Of 4 bits and more; neither judged by outputs nor fed back.
    """
    if case.evidence.order is None:
        return None
    share, start = case.evidence.order
    row, column = divmod(start, case.weights.columns)
    where = f"from row {row}, column {column} on"
    return Finding("order", "<=", ORDER_SHARE, share, where)


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
        return _fed_back_floor(case)
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


def _fed_back_floor(case: Case) -> Finding | None:
    """Error feedback loses some decibels, about as many everywhere: no row may stand out.

    Of each row, what the step of round-to-nearest predicts over its error, in decibels. value: the
    median of that over the rows, or how far the worst row is from it, whichever is nearer to its
    bound.
    """
    evidence, columns = case.evidence, case.weights.columns
    if len(evidence.low) < LEAST_FED_BACK or columns < SHORTEST_FLOORED_ROW:
        return None
    predicted = case.kinds[0].predicted(evidence.low, evidence.high, columns)
    values = _ratio_db(predicted, case.weights.row_sums[:, 2])
    median = float(np.median(values))
    if not isfinite(median):  # half of the rows are exact
        return None
    row = int(np.argmin(values))
    bound = ROW_DB if case.fine else COARSE_ROW_DB
    findings = (
        Finding("floor", ">=", FED_BACK_DB, median, "half of all rows"),
        Finding("floor", ">=", bound, float(values[row]) - median, f"row {row}, below the median"),
    )
    return min(findings, key=lambda finding: finding.margin)


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


GUARDS: dict[str, Callable[[Case], Finding | None]] = {
    guard.__name__: guard
    for guard in (
        row_sqnr_db,
        gain,
        row_gain,
        bias,
        dead_columns,
        levels,
        order,
        floor,
        ceiling,
    )
}
