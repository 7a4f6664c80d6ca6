"""Rounding to nearest onto a table of values, as floating codes of 4 and 8 bits have them.

Rows are float32; row r is scaled by scale[r], so that its largest magnitude is the table's.
"""

import numpy as np

from ._jit import kernel

MANTISSA = np.uint32(23)
FEW = 16  # levels


@kernel()
def _scaled(row, inverse, out):
    for i in range(row.size):
        out[i] = row[i] * inverse


@kernel()
def _step_up(scaled, threshold, level, out):
    for i in range(scaled.size):
        out[i] = level if scaled[i] > threshold else out[i]


@kernel()
def onto_levels(rows, scale, levels, out):
    """The level nearest to each value; `levels` ascend. One sweep a level: for a few of them."""
    scaled = np.empty(rows.shape[1], np.float32)
    for r in range(rows.shape[0]):
        _scaled(rows[r], np.float32(1) / scale[r], scaled)
        out[r, :] = levels[0]
        for k in range(1, levels.size):
            middle = np.float32(0.5) * (levels[k - 1] + levels[k])
            _step_up(scaled, middle, levels[k], out[r])
        _scaled(out[r], scale[r], out[r])


@kernel()
def _float_row(row, scale, mantissa, quantum, largest, out):
    inverse = np.float32(1) / scale
    drop = np.uint32(MANTISSA - mantissa)
    half = np.uint32((np.uint32(1) << np.uint32(drop - np.uint32(1))) - np.uint32(1))
    keep = np.uint32(~np.uint32((np.uint32(1) << drop) - np.uint32(1)))
    per_quantum = np.float32(1) / quantum
    smallest_normal = np.float32(quantum * np.float32(1 << mantissa))
    for i in range(row.size):
        value = row[i] * inverse
        value = value if value < largest else largest
        value = np.float32(value if value > -largest else -largest)
        bits = np.uint32(value.view(np.uint32))
        odd = np.uint32(np.uint32(bits >> drop) & np.uint32(1))
        normal = np.uint32(np.uint32(bits + np.uint32(half + odd)) & keep).view(np.float32)
        subnormal = np.float32(np.rint(value * per_quantum) * quantum)
        out[i] = np.float32(normal if abs(value) >= smallest_normal else subnormal) * scale


@kernel()
def onto_floats(rows, scale, mantissa, quantum, largest, out):
    """The nearest float from `quantum` to `largest` of so many mantissa bits, half to even."""
    for r in range(rows.shape[0]):
        _float_row(rows[r], scale[r], np.uint32(mantissa), quantum, largest, out[r])


@kernel(reassociate=True)
def _distance_to_levels(row, inverse, levels):
    """Squared distance of a scaled row to its nearest levels; sixteen, so that they unroll."""
    total = 0.0
    for i in range(row.size):
        value = row[i] * inverse
        nearest = abs(value - levels[0])
        for k in range(1, FEW):
            distance = abs(value - levels[k])
            nearest = distance if distance < nearest else nearest
        total += np.float64(nearest) * np.float64(nearest)
    return total


@kernel()
def errors_of_levels(rows, scale, levels, errors):
    """errors[r] = sum of the squared errors of row r onto sixteen levels, in any order."""
    for r in range(rows.shape[0]):
        distance = _distance_to_levels(rows[r], np.float32(1) / scale[r], levels)
        errors[r] = distance * np.float64(scale[r]) * np.float64(scale[r])


@kernel(reassociate=True)
def _squared_error(row, rounded):
    total = 0.0
    for i in range(row.size):
        error = np.float64(row[i]) - np.float64(rounded[i])
        total += error * error
    return total


@kernel()
def squared_errors(rows, rounded, errors):
    """errors[r] = sum of the squared errors of row r."""
    for r in range(rows.shape[0]):
        errors[r] = _squared_error(rows[r], rounded[r])
