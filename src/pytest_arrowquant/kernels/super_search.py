"""The search for scales and minima of least squared error as super-blocks store them.

The format is that of super_blocks.py. A super-block is taken as y (elements of a group, groups),
in units of a power of two: the inner loops run over its groups, so that they vectorise while every
sum keeps its order, and the results are the same bits everywhere.

Each group gets the least-squares line that explains most of it, over a few shrunk grids. Steps and
offset are such that codes can hold all these lines. Then, while the true squared error of the
super-block falls, each group moves to the best pair of codes around its own, and both steps are
refitted to all groups by least squares.
"""

import numpy as np

from ._jit import kernel

TINY = np.float32(2.0**-126)  # smallest normal float32: a smaller scale has no finite inverse
# Bounds middles and half the ranges of grids, so that both ends of every grid stay finite.
LARGEST = np.float32(2.0**127 * (1 - 2.0**-6))
EXPONENT = np.int32(0x7F800000)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
INFINITY = np.float32(np.inf)
MOST_OFFSET = np.float32(32000)  # well within 16 bits
REACH = 2  # how far around a pair of codes is looked
ROUNDS = 3
VECTOR = 16  # float32 of the widest vectors


@kernel()
def _unit(largest):
    """The power of two at or below a magnitude, and at least TINY."""
    return max(np.int32(np.float32(largest).view(np.int32) & EXPONENT).view(np.float32), TINY)


@kernel()
def _step(wanted, unit, most):
    """A step, wanted in units, as the nearest bfloat16, half to even.

    At least TINY, and at most what `most` steps keep finite.
    """
    step = max(min(np.float32(wanted) * unit, LARGEST / most), TINY)
    bits = np.int64(np.float32(step).view(np.int32))
    return np.int32((bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF).view(np.float32)


@kernel()
def _group(x, size, k):
    """Group k of x, counted along the rows."""
    a_row = (x.shape[1] + size - 1) // size
    start = k % a_row * size
    return x[k // a_row, start : min(start + size, x.shape[1])]


@kernel()
def _load(x, size, first, last, y, weight, known):
    """Fill y with groups first to last; known: count, middle of range, range, sum of y - middle.

    Elements that a group lacks weigh 0. Returns the unit.
    """
    largest = ZERO
    for k in range(first, last):
        for value in _group(x, size, k):
            largest = max(largest, abs(value))
    unit = _unit(largest)
    inverse = ONE / unit
    for g in range(y.shape[1]):
        known[0, g], known[1, g], known[2, g], known[3, g] = ONE, ZERO, ZERO, ZERO
        for i in range(y.shape[0]):
            y[i, g], weight[i, g] = ZERO, ZERO
    for k in range(first, last):
        group, g = _group(x, size, k), k - first
        low = high = group[0] * inverse
        for i in range(group.size):
            value = group[i] * inverse
            y[i, g], weight[i, g] = value, ONE
            low, high = min(low, value), max(high, value)
        known[0, g], known[1, g], known[2, g] = group.size, (low + high) * HALF, high - low
        for i in range(group.size):
            known[3, g] += y[i, g] - known[1, g]
    return unit


@kernel()
def _code(value, minimum, inverse, highest):
    code = np.rint((value - minimum) * inverse)
    code = code if code > ZERO else ZERO
    return code if code < highest else highest


@kernel()
def _errors(y, weight, grid, highest, inverse, errors):
    """errors[g] = sum weight (y - restored)^2, under grid: scale, minimum."""
    for g in range(y.shape[1]):
        inverse[g] = ONE / grid[0, g]
        errors[g] = ZERO
    for i in range(y.shape[0]):
        for g in range(y.shape[1]):
            code = _code(y[i, g], grid[1, g], inverse[g], highest)
            error = y[i, g] - (code * grid[0, g] + grid[1, g])
            errors[g] += weight[i, g] * (error * error)


@kernel()
def _sums(y, weight, origin, grid, highest, inverse, sums):
    """sums[:, g] = sum l, sum l^2, sum l (y - origin), of levels l counted from the middle."""
    half = highest * HALF
    for g in range(y.shape[1]):
        inverse[g] = ONE / grid[0, g]
        sums[0, g] = sums[1, g] = sums[2, g] = ZERO
    for i in range(y.shape[0]):
        for g in range(y.shape[1]):
            level = (_code(y[i, g], grid[1, g], inverse[g], highest) - half) * weight[i, g]
            sums[0, g] += level
            sums[1, g] += level * level
            sums[2, g] += level * (y[i, g] - origin[g])


@kernel()
def _fit_lines(y, weight, known, shrinks, highest, scratch, lines):
    """Fill lines: slope and middle of the least-squares line that explains most of each group.

    The grids span each of `shrinks` of the range, at its lower end, its middle, its upper end; a
    line of y on its levels explains cov(l, y)^2 / var(l).
    """
    most, inverse, grid, sums = scratch[0], scratch[1], scratch[2:4], scratch[4:7]
    count, origin, extent, total = known[0], known[1], known[2], known[3]
    half = highest * HALF
    for g in range(y.shape[1]):
        most[g], lines[0, g], lines[1, g] = -ONE, ZERO, origin[g]
    for shrink in shrinks:
        for place in range(-1, 2):
            shift = np.float32(place) * (ONE - shrink) * HALF
            for g in range(y.shape[1]):
                grid[0, g] = max(extent[g] * shrink / highest, TINY)
                grid[1, g] = origin[g] + shift * extent[g] - half * grid[0, g]
            _sums(y, weight, origin, grid, highest, inverse, sums)
            for g in range(y.shape[1]):
                mean = sums[0, g] / count[g]
                variance = sums[1, g] - sums[0, g] * mean
                covariance = sums[2, g] - total[g] * mean
                slope = covariance / variance if variance > ZERO else ZERO
                middle = origin[g] + (total[g] / count[g] - slope * mean)
                better = slope * covariance > most[g]  # selects vectorise, a branch does not
                most[g] = slope * covariance if better else most[g]
                lines[0, g] = slope if better else lines[0, g]
                lines[1, g] = middle if better else lines[1, g]


@kernel()
def _first_steps(lines, groups, unit, highest, last_code):
    """(scale step, middle step, offset) with which codes can hold all lines."""
    steepest, lowest, uppermost = ZERO, lines[1, 0], lines[1, 0]
    for g in range(groups):
        steepest = max(steepest, lines[0, g])
        lowest, uppermost = min(lowest, lines[1, g]), max(uppermost, lines[1, g])
    scale_step = _step(steepest / last_code, unit, last_code * highest * HALF)
    farthest = max(abs(lowest), abs(uppermost)) / MOST_OFFSET
    middle_step = _step(max((uppermost - lowest) / last_code, farthest), unit, last_code)
    most = min(np.floor(LARGEST / middle_step) - last_code, MOST_OFFSET)
    middle = (lowest + uppermost) * HALF / _in_units(middle_step, unit)
    return scale_step, middle_step, min(max(np.rint(middle - last_code * HALF), -most), most)


@kernel()
def _in_units(step, unit):
    return max(step / unit, TINY)


@kernel()
def _first_codes(lines, steps, last_code, codes):
    """Round the lines to codes."""
    scale_step, middle_step, offset = steps
    for g in range(codes.shape[1]):
        codes[0, g] = min(max(np.rint(lines[0, g] / scale_step), ZERO), last_code)
        codes[1, g] = min(max(np.rint(lines[1, g] / middle_step) - offset, ZERO), last_code)


@kernel()
def _expand(codes, steps, highest, grid):
    """Fill grid, scale and minimum of each group, from its codes."""
    scale_step, middle_step, offset = steps
    half = highest * HALF
    for g in range(codes.shape[1]):
        scale = scale_step * codes[0, g]
        grid[0, g] = max(scale, TINY)
        grid[1, g] = middle_step * (codes[1, g] + offset) - half * scale


@kernel()
def _best_around(y, weight, steps, last_code, highest, scratch, codes):
    """Move each group to the best pair of codes within REACH; returns the squared error of all."""
    best, errors, inverse, grid = scratch[0], scratch[1], scratch[2], scratch[3:5]
    around, trial = scratch[5:7], scratch[7:9]
    for g in range(codes.shape[1]):
        best[g], around[0, g], around[1, g] = INFINITY, codes[0, g], codes[1, g]
    for a in range(-REACH, REACH + 1):
        for b in range(-REACH, REACH + 1):
            for g in range(codes.shape[1]):
                trial[0, g] = min(max(around[0, g] + np.float32(a), ZERO), last_code)
                trial[1, g] = min(max(around[1, g] + np.float32(b), ZERO), last_code)
            _expand(trial, steps, highest, grid)
            _errors(y, weight, grid, highest, inverse, errors)
            for g in range(codes.shape[1]):
                if errors[g] < best[g]:
                    best[g], codes[0, g], codes[1, g] = errors[g], trial[0, g], trial[1, g]
    total = 0.0
    for g in range(codes.shape[1]):
        total += np.float64(best[g])
    return total


@kernel()
def _refitted(y, weight, known, groups, codes, steps, highest, scratch):
    """(scale step, middle step) of least squares, float64, for the codes that y has now.

    y = scale_step * (scale_code * l) + middle_step * (middle_code + offset), l from the middle.
    """
    inverse, grid, sums = scratch[0], scratch[1:3], scratch[3:6]
    count, origin, total = known[0], known[1], known[3]
    _expand(codes, steps, highest, grid)
    _sums(y, weight, origin, grid, highest, inverse, sums)
    ss, sm, mm, sy, my = 0.0, 0.0, 0.0, 0.0, 0.0
    for g in range(groups):
        s, m = np.float64(codes[0, g]), np.float64(codes[1, g]) + np.float64(steps[2])
        levels, n, at = np.float64(sums[0, g]), np.float64(count[g]), np.float64(origin[g])
        ss += s * s * np.float64(sums[1, g])
        sm += s * m * levels
        mm += m * m * n
        sy += s * (np.float64(sums[2, g]) + at * levels)
        my += m * (np.float64(total[g]) + at * n)
    determinant = ss * mm - sm * sm
    if determinant <= 0.0:  # all weights of a group alike, in all groups
        return np.float64(steps[0]), np.float64(steps[1])
    return (sy * mm - my * sm) / determinant, (my * ss - sy * sm) / determinant


@kernel()
def search(x, size, starts, bits, code_bits, shrinks, scale_codes, middle_codes, steps, offsets):
    """Fill the codes of every group, and the steps (blocks, 2) and offset of every super-block."""
    lanes = np.int64(0)
    for b in range(offsets.size):
        lanes = max(lanes, starts[b + 1] - starts[b])
    lanes = (lanes + VECTOR - 1) // VECTOR * VECTOR  # those beyond the groups weigh nothing
    width = min(size, x.shape[1])
    y, weight = np.empty((width, lanes), np.float32), np.empty((width, lanes), np.float32)
    known, scratch = np.empty((4, lanes), np.float32), np.empty((9, lanes), np.float32)
    lines, codes = np.empty((2, lanes), np.float32), np.empty((2, lanes), np.float32)
    highest, last_code = np.float32((1 << bits) - 1), np.float32((1 << code_bits) - 1)
    for b in range(offsets.size):
        first, last = starts[b], starts[b + 1]
        unit = _load(x, size, first, last, y, weight, known)
        _fit_lines(y, weight, known, shrinks, highest, scratch, lines)
        scale_step, middle_step, offset = _first_steps(
            lines, last - first, unit, highest, last_code
        )
        least = np.inf
        for r in range(ROUNDS):
            now = (_in_units(scale_step, unit), _in_units(middle_step, unit), offset)
            if r == 0:
                _first_codes(lines, now, last_code, codes)
            error = _best_around(y, weight, now, last_code, highest, scratch, codes)
            if not error < least:
                break
            least = error
            steps[b, 0], steps[b, 1], offsets[b] = scale_step, middle_step, np.int16(offset)
            for k in range(first, last):
                scale_codes[k] = np.uint8(codes[0, k - first])
                middle_codes[k] = np.uint8(codes[1, k - first])
            scale_wanted, middle_wanted = _refitted(
                y, weight, known, last - first, codes, now, highest, scratch
            )
            scale_step = _step(scale_wanted, unit, last_code * highest * HALF)
            middle_step = _step(middle_wanted, unit, abs(offset) + last_code)
