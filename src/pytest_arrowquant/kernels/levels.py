"""The levels of a group, as its restored values show them, and weights that were put on others.

Whatever the parameters of a group are, round-to-nearest restores each weight as the level that is
nearest to it.
"""

import numpy as np

from ._jit import kernel

CLOSER = 0.9  # of the distance: rounding of parameters and results to bfloat16 moves ties by less
AWAY = 0.75  # steps from zero: what is restored as no zero
NOTHING = 1e-6  # of the largest weight of a group


@kernel()
def _levels(values, levels):
    """How many distinct values there are, ascending in `levels`; one more where that is too few."""
    count = 0
    for i in range(values.size):
        value = np.float64(values[i])
        at = 0
        while at < count and levels[at] < value:
            at += 1
        if at < count and levels[at] == value:
            continue
        if count == levels.size:
            return count + 1
        for k in range(count, at, -1):
            levels[k] = levels[k - 1]
        levels[at] = value
        count += 1
    return count


@kernel()
def _nearest(weight, levels):
    """The level, of ascending ones, that is nearest to a weight."""
    at = 0
    while at + 1 < levels.size and abs(weight - levels[at + 1]) < abs(weight - levels[at]):
        at += 1
    return levels[at]


@kernel()
def _peak(weights):
    peak = 0.0
    for i in range(weights.size):
        peak = max(peak, abs(np.float64(weights[i])))
    return peak


@kernel()
def _group(weights, values, levels):
    """(values away from zero, those of them nearer to a level closer to it, strays, the first)."""
    step = np.inf
    for k in range(levels.size - 1):
        step = min(step, levels[k + 1] - levels[k])
    away, inward, strays, first = 0, 0, 0, -1
    for i in range(weights.size):
        weight, value = np.float64(weights[i]), np.float64(values[i])
        is_away = np.int64(abs(value) >= AWAY * step)
        away += is_away
        error = abs(weight - value)
        if error <= 0.5 * step:  # no other level can be closer
            continue
        level = _nearest(weight, levels)
        least = abs(weight - level)
        if error >= least + step:
            strays += 1
            first = i if first < 0 else first
        inward += is_away * np.int64(least < CLOSER * error and abs(level) < abs(value))
    return away, inward, strays, first


@kernel()
def rounding(reference, restored, size, limit, found, lost):
    """found[r] = (away, inward, strays, column of the first stray or -1) of each row.

    away: values of at least AWAY steps, the smallest between two levels of their group of `size`.
    inward: those whose weight is closer, by a tenth and more, to a level nearer to zero. strays:
    weights a step or more nearer to another level. Groups of more than `limit` levels are left out.
    lost[r] = (the largest weight of a group that came back as nothing, that group's first column).
    """
    levels = np.empty(limit, np.float64)
    for r in range(reference.shape[0]):
        found[r, 0], found[r, 1], found[r, 2], found[r, 3] = 0, 0, 0, -1
        lost[r, 0], lost[r, 1] = 0.0, 0.0
        for start in range(0, reference.shape[1], size):
            stop = min(start + size, reference.shape[1])
            weights, values = reference[r, start:stop], restored[r, start:stop]
            peak = _peak(weights)
            if _peak(values) <= NOTHING * peak:
                if peak > lost[r, 0]:
                    lost[r, 0], lost[r, 1] = peak, start
                continue
            count = _levels(values, levels)
            if not 1 < count <= limit:
                continue
            away, inward, strays, first = _group(weights, values, levels[:count])
            found[r, 0] += away
            found[r, 1] += inward
            found[r, 2] += strays
            if strays and found[r, 3] < 0:
                found[r, 3] = start + first
