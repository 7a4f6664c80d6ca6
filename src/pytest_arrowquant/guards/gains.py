"""Guards of errors that go with the values: a wrong scale, an offset."""

from dataclasses import replace
from math import sqrt

import numpy as np

from ..arrays import Array
from ..case import EXCUSE, SHORTEST_FLOORED_ROW, Case, Finding, excused
from ..metrics import Deviation

GAIN_PER_NOISE, GAIN_SIGMAS = 1.5, 4
FED_BACK_PER_NOISE = 1.0
GAIN_SLACK = 0.004  # one scale rounded to bfloat16
LEAST_OUTPUTS = 16  # output channels
ROW_GAIN, ROW_GAIN_SIGMAS = 0.1, 6
BIAS, LEAST_BIASED = 0.75, 256  # bound; fewer weights share a sign by chance


def gain(case: Case) -> Finding | None:
    """A wrong scale: the best multiple of the restored tensor is not itself.

    An unbiased error e takes it to <w, r> / <r, r> = 1 - (1 - cos^2), least squares to 1; by
    chance it moves by sqrt((1 - cos^2) / weights). Outputs of alike inputs move together: there,
    by the standard error of a ratio over the output channels, which are independent; so few that it
    is unknown are not judged. So do floats, whose largest values err the most. Fed-back errors are
    unbiased or shrink: their gain is not below 1 - (1 - cos^2).
    """
    if not case.by_weights and len(case.judged.row_sums) < LEAST_OUTPUTS:
        return None
    sums = case.judged.sums
    noise = max(0.0, 1 - sums.cosine**2)
    chance = sqrt(noise / sums.weights)
    if not case.by_weights or (case.grid and case.grid.table):
        chance = max(chance, _ratio_error(case.judged.row_sums, sums.gain))
    chance *= GAIN_SIGMAS
    per_noise = FED_BACK_PER_NOISE if case.fed_back and sums.gain < 1 else GAIN_PER_NOISE
    bound = per_noise * noise + GAIN_SLACK + chance
    finding = Finding("gain", "within", bound, sums.gain)
    error = sums.error_energy

    def of(nearest: Deviation) -> float:  # of an error that much smaller, and as much aligned
        return abs(nearest.sums.gain - 1) * sqrt(error / nearest.sums.error_energy)

    return excused(case, finding, of)


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
    """A constant offset in the tensor or its blocks: a zero point or code off by one.

    Of the weights, also where the outputs are judged as well: inputs of mixed signs cancel it.
    """
    found = [_bias(case)]
    if not case.by_weights:
        found.append(_bias(replace(case, judge="weights")))
    return min(filter(None, found), key=lambda finding: finding.margin, default=None)


def _bias(case: Case) -> Finding | None:
    known = case.by_weights or case.width is not None  # inputs with a mean bias all outputs
    if case.judged.sums.weights < LEAST_BIASED or not known:
        return None
    finding = Finding("bias", "<=", BIAS, case.judged.sums.bias)
    return excused(case, finding, lambda nearest: nearest.sums.bias)
