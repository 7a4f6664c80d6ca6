"""Guards: on by default, for the faults that a cosine cannot see.

Each is a function from one tensor's Case to a Finding, or None where it does not apply. The
evidence for every bound is the table in docs/guards.md. No case is of an empty tensor.
"""

from collections.abc import Callable
from math import inf, sqrt

import numpy as np

from .arrays import Array
from .case import Case, Finding, excused
from .kernels import structure
from .metrics import DB_PER_BIT, decibels
from .scheme import GroupSize, Scheme
from .tensor import quantize

SHORTEST_FLOORED_ROW = 32  # weights; chance alone moves the error of shorter rows by 3 dB
FLOOR_DB = {2: -5.0, 4: -3.0, 8: -3.0}
GAIN_PER_NOISE, GAIN_SIGMAS = 1.5, 4
GAIN_SLACK = 0.004  # one scale rounded to bfloat16
LEAST_OUTPUTS = 16  # output channels
ROW_GAIN, ROW_GAIN_SIGMAS = 0.1, 6
BIAS, LEAST_BIASED = 0.75, 256  # bound; fewer weights share a sign by chance
ORDER_RUN, ORDER_STEPS, ORDER_SHARE = 32, 8, 0.25
LEAST_DEAD_ROWS = 16  # an input channel read by fewer outputs may round to zero in all of them
LEAST_CEILING = 1024  # weights
CEILING_BITS = 4  # wider codes are as fine as the float16 weights they are made from


def row_sqnr_db(case: Case) -> Finding | None:
    """No row may be worse than that row set to zero; a zero row stays zero.

    Judged by outputs from 4 bits on: at 2 bits GPTQ gives up whole rows of weights, rightly.
    """
    if not (case.by_weights or case.fine):
        return None
    sqnr_db = case.weights.row_sqnr_db
    row = int(np.argmin(sqnr_db))
    return Finding("row_sqnr_db", ">", 0.0, float(sqnr_db[row]), f"row {row}")


def gain(case: Case) -> Finding | None:
    """A wrong scale: the best multiple of the restored tensor is not itself.

    An unbiased error e takes it to <w, r> / <r, r> = 1 - (1 - cos^2), least squares to 1; by
    chance it moves by sqrt((1 - cos^2) / weights). Outputs of alike inputs move together: there,
    by the standard error of a ratio over the output channels, which are independent; so few that it
    is unknown are not judged.
    """
    if not case.by_weights and len(case.judged.reference) < LEAST_OUTPUTS:
        return None
    sums = case.judged.sums
    noise = max(0.0, 1 - sums.cosine**2)
    chance = sqrt(noise / sums.weights)
    if not case.by_weights:
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

    value: the gain of the row that is furthest beyond its own bound.
    """
    if not case.fine or case.weights.reference.shape[1] < SHORTEST_FLOORED_ROW:
        return None
    reference, restored, error = case.weights.row_sums[:, :3].T
    live = (reference > 0) & (restored > 0)
    if not live.any():
        return None
    gains = (reference[live] + restored[live] - error[live]) / 2 / restored[live]
    noise = np.clip(1 - case.weights.row_cosines[live] ** 2, 0, 1)
    chance = ROW_GAIN_SIGMAS * np.sqrt(noise / case.weights.reference.shape[1])
    bounds = ROW_GAIN + 2 * GAIN_PER_NOISE * noise + chance
    worst = int(np.argmin(bounds - np.abs(gains - 1)))
    where = f"row {int(np.flatnonzero(live)[worst])}"
    return Finding("row_gain", "within", float(bounds[worst]), float(gains[worst]), where)


def bias(case: Case) -> Finding | None:
    """A constant offset in the tensor or its blocks: a zero point or code off by one."""
    known = case.by_weights or case.width is not None  # inputs with a mean bias all outputs
    if case.judged.sums.weights < LEAST_BIASED or not known:
        return None
    finding = Finding("bias", "<=", BIAS, case.judged.sums.bias)
    return excused(case, finding, lambda nearest: nearest.sums.bias)


def dead_columns(case: Case) -> Finding | None:
    """An input channel of at least median norm may not come back all zero."""
    shape, weights = case.reference.shape, case.weights.reference
    if len(shape) < 2 or shape[0] < LEAST_DEAD_ROWS or not case.fine:
        return None
    energy, alive = np.zeros(weights.shape[1]), np.zeros(weights.shape[1], np.int64)
    structure.column_energies(weights, case.weights.restored, energy, alive)
    channels = (shape[1], -1)
    energy, alive = energy.reshape(channels).sum(axis=1), alive.reshape(channels).sum(axis=1)
    dead = np.flatnonzero((energy >= np.median(energy)) & (energy > 0) & (alive == 0))
    where = f"input channel {int(dead[0])}" if dead.size else ""
    return Finding("dead_columns", "<=", 0, int(dead.size), where)


def levels(case: Case) -> Finding | None:
    """At most 2^bits distinct values in a group, where the groups are known."""
    if case.scheme is None or case.bits is None:
        return None
    limit, restored = 2**case.bits, case.weights.restored
    size = case.scheme.layout(case.reference.shape).group_size
    if case.scheme.group_size == "tensor":
        restored, size = restored.reshape(1, -1), restored.size
    most, row, group = structure.most_levels(restored, size, limit, case.bits + 3)
    return Finding("levels", "<=", limit, int(most), f"row {row}, group {group}")


def order(case: Case) -> Finding | None:
    """Large steps along a row keep their direction: blocks and groups are where they belong."""
    if not case.by_weights or not case.fine:
        return None
    w, r = case.weights.reference, case.weights.restored
    share, start = structure.worst_order(
        w.reshape(-1), r.reshape(-1), w.shape[1], ORDER_RUN, ORDER_STEPS
    )
    row, column = divmod(int(start), w.shape[1])
    where = f"from row {row}, column {column} on"
    return Finding("order", "<=", ORDER_SHARE, float(share), where)


def floor(case: Case) -> Finding | None:
    """SQNR not far below round-to-nearest at the same width on the same weights.

    Each row where the groups are known and rows are long enough, else the tensor. Round-to-
    nearest's error counts as at least what its step predicts (step^2 / 12 a weight), so that
    weights which happen to lie on its grid accuse nobody.
    """
    if case.width is None:
        return None
    by_tensor = case.scheme is None or case.scheme.group_size == "tensor"
    group_size: GroupSize = "tensor" if by_tensor else "channel"
    long = case.weights.reference.shape[1] >= SHORTEST_FLOORED_ROW
    by_row = case.by_weights and not by_tensor and long
    for zero in case.zeros:  # the next only where it could excuse
        finding = _floor(case, Scheme(case.width, zero, group_size), by_row)
        if finding.passed:
            break
    return finding


def _floor(case: Case, baseline: Scheme, by_row: bool) -> Finding:
    error = case.judged.row_sums[:, 2]
    if case.by_weights:
        allowed = quantize(case.reference, baseline).compare(case.reference)[:, 2]
        allowed = np.maximum(allowed, _predicted_error(case.weights.reference, baseline))
    else:
        allowed = case.nearest(baseline.zero, baseline.group_size).row_sums[:, 2]
    bound = FLOOR_DB[baseline.bits]
    if not by_row:
        return Finding("floor", ">=", bound, decibels(float(allowed.sum()), float(error.sum())))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(error == 0, inf, 10 * np.log10(allowed / error))
    row = int(np.argmin(values))
    return Finding("floor", ">=", bound, float(values[row]), f"row {row}")


def _predicted_error(reference: Array, baseline: Scheme) -> Array:
    """columns * step^2 / 12 of each row, for the step of round-to-nearest."""
    rows, columns = reference.shape
    low = reference.min(axis=1, initial=0.0)
    high = reference.max(axis=1, initial=0.0)
    if baseline.group_size == "tensor":
        low, high = low.min(initial=0.0), high.max(initial=0.0)
    if baseline.symmetric:
        steps = 2 ** (baseline.bits - 1) - (baseline.bits > 2)
        step = np.maximum(-low, high).astype(np.float64) / steps
    else:
        step = (high.astype(np.float64) - low) / (2**baseline.bits - 1)
    return np.broadcast_to(columns * step**2 / 12, (rows,))


def ceiling(case: Case) -> Finding | None:
    """More detail than so few bits can hold: the width is only a label.

    The bound is the Gaussian rate-distortion limit at the stored bits per weight, and at least at
    two bits above the width: real weights are no Gaussian, and may take fewer bits.
    Not for references that have few distinct values themselves: those may be stored exactly.
    """
    weights = case.weights.reference
    if case.bits is None or case.bits > CEILING_BITS or weights.size < LEAST_CEILING:
        return None
    rate = case.bits + 2.0
    if case.nbytes is not None:
        rate = max(rate, case.nbytes * 8 / weights.size)
    elif weights.shape[1] < 2 * ORDER_RUN:
        return None
    value = decibels(case.weights.detail_energy, case.weights.sums.error_energy)
    if value > DB_PER_BIT * rate and _few_valued(weights.reshape(-1)):
        return None
    return Finding("ceiling", "<=", DB_PER_BIT * rate, value)


def _few_valued(weights: Array, run: int = 64) -> bool:
    """True where half of the runs have each value twice or more, on average."""
    runs = np.sort(weights[: weights.size // run * run].reshape(-1, run), axis=1)
    distinct = 1 + np.count_nonzero(np.diff(runs, axis=1), axis=1)
    return bool(np.median(distinct) <= run // 2)


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
