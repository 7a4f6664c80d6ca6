"""What metrics and guards look at: sums, blocks, ranges, order, columns, distinct values.

Blocks and runs are of the flattened array, so short rows (convolutions) fill them too. What is
found of a row or a unit of rows does not depend on the rows that it is handed over with.
"""

import numpy as np

from ._jit import kernel

BLOCK = 32  # weights
HALF_OF_MEAN = np.float32(0.499 / 32)  # a little less than half, for the rounding of float32
INFINITY = np.float32(np.inf)
MAGNITUDE = np.int32(0x7FFFFFFF)
LOW_HALF = np.uint64(0xFFFFFFFF)
FIBONACCI = np.uint64(0x9E3779B9)  # 2^32 over the golden ratio: spreads what it multiplies
FEW = 64  # levels that are counted faster by striking them


@kernel(reassociate=True)
def _sums(reference, restored, quads):
    """(sum w^2, sum restored^2, sum e^2, max |e|, sum of e after the last whole four) of a run.

    e = w - restored, in float64. quads[i] is the sum of the e of 4 i to 4 i + 3. The largest is
    sought among squares, whose bits order like integers; the root of a square is exact.
    """
    reference_energy = 0.0
    restored_energy = 0.0
    error_energy = 0.0
    largest = np.int64(0)
    whole = reference.size // 4
    for i in range(whole):
        w0, v0 = np.float64(reference[4 * i]), np.float64(restored[4 * i])
        w1, v1 = np.float64(reference[4 * i + 1]), np.float64(restored[4 * i + 1])
        w2, v2 = np.float64(reference[4 * i + 2]), np.float64(restored[4 * i + 2])
        w3, v3 = np.float64(reference[4 * i + 3]), np.float64(restored[4 * i + 3])
        e0, e1, e2, e3 = w0 - v0, w1 - v1, w2 - v2, w3 - v3
        reference_energy += (w0 * w0 + w1 * w1) + (w2 * w2 + w3 * w3)
        restored_energy += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
        s0, s1, s2, s3 = e0 * e0, e1 * e1, e2 * e2, e3 * e3
        error_energy += (s0 + s1) + (s2 + s3)
        first = max(np.float64(s0).view(np.int64), np.float64(s1).view(np.int64))
        second = max(np.float64(s2).view(np.int64), np.float64(s3).view(np.int64))
        largest = max(largest, max(first, second))
        quads[i] = (e0 + e1) + (e2 + e3)
    rest = 0.0
    for i in range(4 * whole, reference.size):
        w, v = np.float64(reference[i]), np.float64(restored[i])
        e = w - v
        reference_energy += w * w
        restored_energy += v * v
        error_energy += e * e
        largest = max(largest, np.float64(e * e).view(np.int64))
        rest += e
    peak = np.sqrt(np.int64(largest).view(np.float64))
    return reference_energy, restored_energy, error_energy, peak, rest


@kernel()
def _add_fours(parts, sums):
    """sums[i] = the sum of parts 4 i to 4 i + 3."""
    for i in range(sums.size):
        sums[i] = (parts[4 * i] + parts[4 * i + 1]) + (parts[4 * i + 2] + parts[4 * i + 3])


@kernel(reassociate=True)
def _of_pairs(parts):
    """(sum of all parts, sum of squares of the sums of two)."""
    total = 0.0
    squares = 0.0
    for i in range(parts.size // 2):
        both = parts[2 * i] + parts[2 * i + 1]
        total += both
        squares += both * both
    return total, squares


@kernel()
def _block_sums(quads, rest, size, sixteenths):
    """(sum of errors, energy of the block means of the error) of `size` weights in blocks of 32.

    quads, rest: as _sums leaves them.
    """
    blocks = size // BLOCK
    _add_fours(quads, sixteenths[: 2 * blocks])
    error, squares = _of_pairs(sixteenths[: 2 * blocks])
    energy = squares / np.float64(BLOCK)
    if size % BLOCK:
        for i in range(8 * blocks, size // 4):
            rest += quads[i]
        error += rest
        energy += rest * rest / np.float64(size % BLOCK)
    return error, energy


@kernel()
def sums(reference, restored, unit, row_sums, unit_sums):
    """Fill the sums of each row, and those of each unit of rows, a whole number of blocks.

    row_sums: (rows, 4), as kernels/decode.py says. unit_sums: (units, 2): the sum of errors, and
    the sum over blocks of 32 of (sum of errors)^2 / block length.
    """
    rows, columns = reference.shape
    quads = np.empty(unit * columns // 4, np.float64)
    sixteenths = np.empty(unit * columns // 16, np.float64)
    for u in range(unit_sums.shape[0]):
        start, stop = u * unit, min(u * unit + unit, rows)
        rest = 0.0
        for r in range(start, stop):
            found = _sums(reference[r], restored[r], quads)
            for k in range(4):
                row_sums[r, k] = found[k]
            rest = found[4]
        if unit > 1:  # blocks run on from row to row
            flat, back = reference[start:stop].reshape(-1), restored[start:stop].reshape(-1)
            rest = _sums(flat, back, quads)[4]
        size = (stop - start) * columns
        unit_sums[u, 0], unit_sums[u, 1] = _block_sums(quads, rest, size, sixteenths)


@kernel()
def _ordered(bits):
    """An integer that orders like the float with these bits; its own inverse."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & MAGNITUDE))


@kernel()
def _row_extent(row):
    lowest = MAGNITUDE
    highest = np.int32(-MAGNITUDE)
    for i in range(row.size):
        key = _ordered(np.float32(row[i]).view(np.int32))
        lowest = min(lowest, key)
        highest = max(highest, key)
    return lowest, highest


@kernel()
def extents(rows, low, high):
    """low[r], high[r]: the smallest and the largest value of each row, float32."""
    for r in range(rows.shape[0]):
        lowest, highest = _row_extent(rows[r])
        low[r] = np.int32(_ordered(lowest)).view(np.float32)
        high[r] = np.int32(_ordered(highest)).view(np.float32)


@kernel(reassociate=True)
def _detail(run):
    """Energy of a run about its mean."""
    total = 0.0
    energy = 0.0
    for i in range(run.size):
        w = np.float64(run[i])
        total += w
        energy += w * w
    return max(energy - total * total / np.float64(run.size), 0.0)


@kernel()
def detail(rows, unit, details):
    """details[u]: the energy of each unit of rows about the means of its blocks of 32."""
    for u in range(details.size):
        flat = rows[u * unit : min(u * unit + unit, rows.shape[0])].reshape(-1)
        total = 0.0
        for start in range(0, flat.size, BLOCK):
            total += _detail(flat[start : min(start + BLOCK, flat.size)])
        details[u] = total


@kernel(reassociate=True)
def _mean_magnitude(values):
    total = 0.0
    for i in range(values.size):
        total += abs(np.float64(values[i]))
    return total / values.size


@kernel()
def _large_steps(reference, restored, large):
    """(steps of the reference larger than `large`, those that the restored run inverts)."""
    steps = np.int64(0)
    inverted = np.int64(0)
    for i in range(reference.size - 1):
        step = np.float64(reference[i + 1]) - np.float64(reference[i])
        restored_step = np.float64(restored[i + 1]) - np.float64(restored[i])
        is_large = abs(step) > large
        steps += np.int64(is_large)
        inverted += np.int64(is_large & (restored_step * step < 0.0))
    return steps, inverted


@kernel()
def _inverted_share(reference, restored, first, columns, least_steps):
    """The share of a run's large steps along a row that the restored run takes the other way.

    Large: more than the run's mean magnitude. 0 where fewer than `least_steps` are.
    """
    large = _mean_magnitude(reference)
    steps = np.int64(0)
    inverted = np.int64(0)
    start = 0
    stop = columns - first % columns
    while start < reference.size:  # the pieces of rows in this run
        stop = min(stop, reference.size)
        more = _large_steps(reference[start:stop], restored[start:stop], large)
        steps += more[0]
        inverted += more[1]
        start = stop
        stop += columns
    return inverted / steps if steps >= least_steps else 0.0


@kernel()
def _magnitudes(flat, fours, sixteenths):
    """The sum of magnitudes of each half block, float32, in `sixteenths`."""
    for i in range(fours.size):
        first = abs(np.float32(flat[4 * i])) + abs(np.float32(flat[4 * i + 1]))
        second = abs(np.float32(flat[4 * i + 2])) + abs(np.float32(flat[4 * i + 3]))
        fours[i] = first + second
    _add_fours(fours, sixteenths)


@kernel()
def _largest_error(run, back):
    largest = np.int32(0)
    for i in range(run.size):
        error = np.float32(np.float32(run[i]) - np.float32(back[i]))
        largest = max(largest, np.int32(error.view(np.int32) & MAGNITUDE))
    return np.int32(largest).view(np.float32)


@kernel()
def worst_order(reference, restored, unit, peaks, least_steps):
    """(largest inverted share of any run of 32, where that run starts in the flattened array).

    peaks: the largest error of each row. A step larger than the mean magnitude of its run changes
    direction only where one of its two errors is more than half of that, which few runs have to
    be looked at for; in float32, with room for its rounding.
    """
    rows, columns = reference.shape
    fours = np.empty(unit * columns // 4, np.float32)
    sixteenths = np.empty(unit * columns // 16, np.float32)
    worst = 0.0
    where = 0
    for first in range(0, rows, unit):
        last = min(first + unit, rows)
        flat, back = reference[first:last].reshape(-1), restored[first:last].reshape(-1)
        peak = np.float32(peaks[first:last].max())
        blocks = flat.size // BLOCK
        _magnitudes(flat, fours[: 8 * blocks], sixteenths[: 2 * blocks])
        for k in range((flat.size + BLOCK - 1) // BLOCK):
            least = np.float32(0)
            if k < blocks:
                least = (sixteenths[2 * k] + sixteenths[2 * k + 1]) * HALF_OF_MEAN
            if peak < least < INFINITY:
                continue
            run = flat[k * BLOCK : min(k * BLOCK + BLOCK, flat.size)]
            opposite = back[k * BLOCK : k * BLOCK + run.size]
            if _largest_error(run, opposite) < least < INFINITY:
                continue
            share = _inverted_share(run, opposite, k * BLOCK, columns, least_steps)
            if share > worst:
                worst = share
                where = first * columns + k * BLOCK
    return worst, where


@kernel()
def _rows_dead(row, dead):
    """Clear dead[c] where the row is not 0; how many stay."""
    left = np.int32(0)
    for c in range(row.size):
        dead[c] = dead[c] & np.uint8(row[c] == 0)
        left += np.int32(dead[c])
    return left


@kernel()
def clear_alive(restored, dead):
    """Clear dead[c] (uint8) of every column with a value other than 0; how many stay."""
    left = np.int32(dead.size)
    for r in range(restored.shape[0]):
        left = _rows_dead(restored[r], dead)
        if left == 0:
            break
    return left


@kernel()
def column_energies(rows, energy):
    """energy[c] += sum w[:, c]^2, row after row."""
    for r in range(rows.shape[0]):
        row = rows[r]
        for c in range(row.size):
            w = np.float64(row[c])
            energy[c] += w * w


@kernel(inline=True)
def _strike(values, level, struck):
    """Strike all values that are the level; how many are left."""
    left = np.int32(0)
    for i in range(values.size):
        struck[i] = struck[i] | np.int32(values[i] == level)
        left += np.int32(1) - struck[i]
    return left


@kernel(inline=True)
def _levels_by_striking(group, limit, most, struck):
    """How many distinct values; no more than `most` if there cannot be more."""
    struck[:] = 0
    left, count, first = np.int32(group.size), 0, 0
    while count <= limit and count + left > most and left > 0:
        while struck[first]:
            first += 1
        struck[first] = 1  # NaN, too, which is not even itself
        left = _strike(group, group[first], struck)
        count += 1
    return count


@kernel(inline=True)
def _levels_by_hashing(group, limit, seen, group_of, serial, shift):
    """How many distinct values. group_of: which group an entry is of, so none is ever cleared."""
    mask = np.uint64(seen.size - 1)
    count = 0
    for value in group:
        if count > limit:
            break
        level = np.float64(value) + 0.0  # -0.0 is 0.0
        bits = np.float64(level).view(np.uint64)
        folded = np.uint64((bits ^ np.uint64(bits >> np.uint64(32))) & LOW_HALF)
        slot = np.uint64(np.uint64(folded * FIBONACCI) >> shift) & mask
        while group_of[slot] == serial and seen[slot] != level:
            slot = (slot + np.uint64(1)) & mask
        count += group_of[slot] != serial
        group_of[slot] = serial
        seen[slot] = level
    return count


@kernel()
def most_levels(restored, size, limit):
    """(most distinct values in any group, its row, its group), counted no further than limit + 1.

    Of few levels all values alike are struck at once, a pass over the group each. A group is left
    when it cannot have more than the most.
    """
    columns = restored.shape[1]
    struck = np.empty(min(size, columns), np.int32)
    slots = 4  # log2 of the entries of a table that stays three quarters empty
    while 1 << slots < 4 * limit:
        slots += 1
    seen, group_of = np.zeros(1 << slots, np.float64), np.full(1 << slots, -1, np.int64)
    shift = np.uint64(32 - slots)
    most, at_row, at_group, serial = 0, 0, 0, 0
    for r in range(restored.shape[0]):
        for j in range((columns + size - 1) // size):
            group = restored[r, j * size : min(j * size + size, columns)]
            serial += 1
            if min(limit, group.size) <= FEW:
                count = _levels_by_striking(group, limit, most, struck[: group.size])
            else:
                count = _levels_by_hashing(group, limit, seen, group_of, serial, shift)
            if count > most:
                most, at_row, at_group = count, r, j
            if most > limit:
                return most, at_row, at_group
    return most, at_row, at_group
