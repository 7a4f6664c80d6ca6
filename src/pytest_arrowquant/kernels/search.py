"""The scale, and float minimum, of least squared error in each group.

Starts from round-to-nearest's own parameters (s0, z0, m0) and works on y = (x - m0) / s0, the
place of x on its grid. A candidate of `step` t and `offset` o has the levels

    l = clip(rint((y - o) / t), low, high)

and is worth what least squares of y on l explains: <l, y>^2 / <l, l>, or with a float minimum
cov(l, y)^2 / var(l). The candidates are round-to-nearest's grid shrunk by each of `shrinks`, with
a float minimum towards its lower end, its middle and its upper end; the best is refitted and
rounded again until it gains nothing. What is kept at last is the smaller of the two true squared
errors, so a group is never worse than round-to-nearest.

y enters the sums as a fixed-point integer: integer sums are exact in any order, so they
vectorise and yet come out the same on every machine.
"""

import numpy as np

from ._jit import kernel

FIXED_POINT = np.float32(2.0**16)
SMALLEST_SCALE = np.float32(2.0**-100)  # beyond these, fixed point and float32 would run out
LARGEST_SCALE = np.float32(2.0**100)
REFITS = 6
CHUNK = 64


@kernel(inline=True)
def _chunk_sums(y, fixed, start, count, inverse, offset, low, high):
    """sum l, sum l^2, sum l y of a chunk: exact."""
    total, squares, product = np.int32(0), np.int32(0), np.int64(0)
    for i in range(count):
        at = start + np.uint64(i)
        place = np.rint((y[at] - offset) * inverse)
        place = place if place > low else low
        level = np.int32(place if place < high else high)
        total += level
        squares += np.int32(level * level)
        product += np.int64(level) * np.int64(fixed[at])
    return total, squares, product


@kernel(inline=True)
def _sums(y, fixed, step, offset, low, high):
    """sum l, sum l^2, sum l y under a candidate: exact."""
    inverse = np.float32(1) / step
    total, squares, product = np.int64(0), np.int64(0), np.int64(0)
    for start in range(0, y.size, CHUNK):
        if y.size - start >= CHUNK:
            found = _chunk_sums(y, fixed, np.uint64(start), CHUNK, inverse, offset, low, high)
        else:
            rest = min(y.size - start, CHUNK)
            found = _chunk_sums(y, fixed, np.uint64(start), rest, inverse, offset, low, high)
        total += np.int64(found[0])
        squares += np.int64(found[1])
        product += found[2]
    return total, squares, product


@kernel(inline=True)
def _fit(y, fixed, step, offset, low, high, fixed_total, centred):
    """(explained sum of squares, step, offset) of the least-squares line of y on the levels."""
    total, squares, product = _sums(y, fixed, step, offset, low, high)
    count = np.float64(y.size)
    covariance = np.float64(product)
    variance = np.float64(squares)
    if centred:
        covariance -= np.float64(total) * np.float64(fixed_total) / count
        variance -= np.float64(total) * np.float64(total) / count
    if variance <= 0.0:
        return -1.0, 0.0, 0.0
    step = covariance / variance
    offset = (np.float64(fixed_total) - step * np.float64(total)) / count if centred else 0.0
    unit = 1.0 / np.float64(FIXED_POINT)
    return covariance * step, step * unit, offset * unit


@kernel(inline=True)
def _squared_error(x, scale, zero_point, minimum, low, high):
    """The true squared error of a group under these parameters, as encode and decode make it."""
    inverse = np.float32(1) / scale
    total = 0.0
    for i in range(x.size):
        code = np.rint((x[i] - minimum) * inverse) + zero_point
        code = code if code > low else low
        code = code if code < high else high
        error = np.float64(x[i]) - np.float64((code - zero_point) * scale + minimum)
        total += error * error
    return total


@kernel(inline=True)
def _best_fit(y, fixed, shrinks, both_signs, low, high, centred):
    """(step, offset) of the best candidate after refits, in units of round-to-nearest's step."""
    fixed_total = np.int64(0)
    for i in range(fixed.size):
        fixed_total += np.int64(fixed[i])
    most, step, offset = -1.0, 1.0, 0.0
    for sign in range(2 if both_signs else 1):
        for k in range(shrinks.size):
            shrink = -shrinks[k] if sign else shrinks[k]
            room = (np.float32(1) - shrink) * high if centred else np.float32(0)
            for place in range(3 if room > np.float32(0) else 1):
                start = room * np.float32(0.5) * np.float32(place)
                explained, fitted, shifted = _fit(
                    y, fixed, shrink, start, low, high, fixed_total, centred
                )
                if explained > most:
                    most, step, offset = explained, fitted, shifted
    for _ in range(REFITS):
        if step == 0.0:
            break
        explained, fitted, shifted = _fit(
            y, fixed, np.float32(step), np.float32(offset), low, high, fixed_total, centred
        )
        if explained <= most:
            break
        most, step, offset = explained, fitted, shifted
    return step, offset


@kernel()
def refine(x, size, bits, shrinks, scale, zero_point, minimum):
    """Lower the squared error of every group, in place, from round-to-nearest's parameters."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    symmetric = not (integer_zero or float_zero)
    highest = np.float32((1 << bits) - 1)
    lowest = np.float32(1) if symmetric and bits > 2 else np.float32(0)
    width = min(size, x.shape[1])
    y, fixed = np.empty(width, np.float32), np.empty(width, np.int32)
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            group = x[r, j * size : min(j * size + size, x.shape[1])]
            s = scale[r, j]
            if not SMALLEST_SCALE < abs(s) < LARGEST_SCALE:
                continue
            z = np.float32(1 << (bits - 1)) if symmetric else np.float32(0)
            if integer_zero:
                z = np.float32(zero_point[r, j])
            m = minimum[r, j] if float_zero else np.float32(0)
            inverse = np.float32(1) / s
            count = group.size
            for i in range(count):
                y[i] = (group[i] - m) * inverse
                fixed[i] = np.int32(np.rint(y[i] * FIXED_POINT))
            step, offset = _best_fit(
                y[:count],
                fixed[:count],
                shrinks,
                symmetric and bits == 2,
                lowest - z,
                highest - z,
                float_zero,
            )
            new_s = np.float32(step * np.float64(s))
            new_m = np.float32(np.float64(m) + offset * np.float64(s)) if float_zero else m
            if not SMALLEST_SCALE < abs(new_s) < LARGEST_SCALE:
                continue
            error = _squared_error(group, new_s, z, new_m, lowest, highest)
            if error < _squared_error(group, s, z, m, lowest, highest):
                scale[r, j] = new_s
                if float_zero:
                    minimum[r, j] = new_m
