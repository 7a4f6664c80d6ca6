"""The float minimum of a group by half-quadratic splitting; its scale stays.

With y = (x - minimum) / scale, the place of x on the grid, and a shift o of the zero, both in
steps, Badri & Shaji 2023 lower sum |error|^p by turns:

    q = clip(rint(y + o), 0, highest),  e = y + o - q
    shrunk e = sign(e) max(|e| - |e|^(p-1) / beta, 0)
    o <- o - mean(e - shrunk e)

Up to the threshold t = beta^(-1/(2-p)) an error is shrunk to nothing; beyond it, what is left,

    e - shrunk e = sign(e) t (|e| / t)^(p-1),

falls with |e|, so that outliers hardly move the zero. Where a group would still be worse than one
set to zero, as outliers make the grid coarse and 0 is not on it, 0 is put on it: then no error
exceeds its weight. Errors enter the sums as integers, which are exact in any order: they vectorise
and yet come out the same everywhere.
"""

import numpy as np

from ._jit import kernel

FIXED_POINT = np.float32(2.0**16)
COARSE = np.float32(2.0**8)  # places of 8 bits, squared, summed over 2^31 weights, fit an int64
SETTLED = 2.0**-13  # of a step: `power` is no more exact than that
SMALLEST_SCALE = np.float32(2.0**-100)  # beyond these float32 would run out
LARGEST_SCALE = np.float32(2.0**100)

MANTISSA = np.int32(0x007FFFFF)
ONE = np.int32(0x3F800000)
MANTISSA_BITS = np.int32(23)
BIAS = np.int32(127)
LOG2 = np.array([1.44261568, -0.71706393, 0.44227418, -0.22771264, 0.05994559], np.float32)
EXP2 = np.array([0.99989669, 0.69639055, 0.22451634, 0.0790857], np.float32)


@kernel()
def power(base, exponent):
    """base^exponent to 2e-4 of itself, for base >= 1 and -1 <= exponent <= 0.

    2^(exponent * log2(base)) with a polynomial for each of the two: that of the C library is no
    loop that vectorises, and differs from machine to machine.
    """
    bits = np.int32(np.float32(base).view(np.int32))
    fraction = np.int32(np.int32(bits & MANTISSA) | ONE).view(np.float32) - np.float32(1)
    log = LOG2[3] + fraction * LOG2[4]
    log = LOG2[0] + fraction * (LOG2[1] + fraction * (LOG2[2] + fraction * log))
    whole = np.float32(np.int32(np.int32(bits >> MANTISSA_BITS) - BIAS))
    log = (whole + fraction * log) * exponent
    floor = np.floor(log)
    fraction = log - floor
    value = EXP2[0] + fraction * (EXP2[1] + fraction * (EXP2[2] + fraction * EXP2[3]))
    scaled = np.int32(np.float32(value).view(np.int32)) + np.int32(np.int32(floor) << MANTISSA_BITS)
    return np.int32(scaled).view(np.float32)


@kernel()
def _spread(y):
    """The standard deviation of the places."""
    total, squares = np.int64(0), np.int64(0)
    for i in range(y.size):
        place = np.int64(np.int32(np.rint(y[i] * COARSE)))
        total += place
        squares += place * place
    mean = np.float64(total) / np.float64(y.size)
    variance = np.float64(squares) / np.float64(y.size) - mean * mean
    return np.float32(np.sqrt(max(variance, 0.0)) / np.float64(COARSE))


@kernel()
def errors(y, shift, highest, threshold, exponent):
    """(sum |e|, sum of what shrinking leaves of e), both in fixed point."""
    inverse = np.float32(1) / threshold
    total, left = np.int64(0), np.int64(0)
    for i in range(y.size):
        place = y[i] + shift
        code = np.rint(place)
        code = code if code > np.float32(0) else np.float32(0)
        code = code if code < highest else highest
        error = place - code
        size = abs(error)
        ratio = size * inverse
        beyond = threshold * power(ratio if ratio > np.float32(1) else np.float32(1), exponent)
        kept = size if ratio <= np.float32(1) else beyond
        total += np.int64(np.int32(np.rint(size * FIXED_POINT)))
        left += np.int64(np.int32(np.rint(np.copysign(kept, error) * FIXED_POINT)))
    return total, left


@kernel()
def _best_shift(y, highest, thresholds, exponent):
    """The shift of the least sum |e| on the way; none of it is the first."""
    spread = _spread(y)
    shift, best = np.float32(0), np.float32(0)
    if spread == np.float32(0):
        return best
    least = np.int64(0)
    for k in range(thresholds.size):
        total, left = errors(y, shift, highest, thresholds[k] * spread, exponent)
        if k == 0 or total < least:
            least, best = total, shift
        move = np.float64(left) / (np.float64(y.size) * np.float64(FIXED_POINT))
        if abs(move) < SETTLED:
            break
        shift = np.float32(np.float64(shift) - move)
    return best


@kernel()
def _worse_than_zero(group, scale, minimum, highest):
    """True where the squared error of a group exceeds its energy."""
    inverse = np.float32(1) / scale
    error, energy = 0.0, 0.0
    for i in range(group.size):
        code = np.rint((group[i] - minimum) * inverse)
        code = code if code > np.float32(0) else np.float32(0)
        code = code if code < highest else highest
        w = np.float64(group[i])
        difference = w - np.float64(code * scale + minimum)
        error += difference * difference
        energy += w * w
    return error > energy


@kernel()
def refine(x, size, highest, thresholds, exponent, scale, minimum):
    """Move the minimum of every group, in place, from round-to-nearest's.

    highest: the largest code. thresholds: of each iteration, in standard deviations of a group.
    exponent: p - 1.
    """
    buffer = np.empty(min(size, x.shape[1]), np.float32)
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            group = x[r, j * size : min(j * size + size, x.shape[1])]
            s, m = scale[r, j], minimum[r, j]
            if not SMALLEST_SCALE < s < LARGEST_SCALE:
                continue
            inverse = np.float32(1) / s
            y = buffer[: group.size]
            for i in range(group.size):
                y[i] = (group[i] - m) * inverse
            shift = _best_shift(y, highest, thresholds, exponent)
            moved = np.float32(np.float64(m) - np.float64(shift) * np.float64(s))
            if _worse_than_zero(group, s, moved, highest):
                zero = np.rint(-m * inverse)
                zero = zero if zero > np.float32(0) else np.float32(0)
                moved = -(zero if zero < highest else highest) * s
            minimum[r, j] = moved
