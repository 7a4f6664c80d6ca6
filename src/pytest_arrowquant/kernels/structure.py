"""What the guards look at beyond the sums: blocks, order, columns, distinct values.

Blocks and runs are of the flattened array, so short rows (convolutions) fill them too.
"""

import numpy as np

from ._jit import kernel

LOW_HALF = np.uint64(0xFFFFFFFF)
FIBONACCI = np.uint64(0x9E3779B9)  # 2^32 over the golden ratio: spreads what it multiplies


@kernel(reassociate=True)
def _block_sums(reference, restored):
    """(sum w, sum w^2, sum error) of a block."""
    total = 0.0
    energy = 0.0
    error = 0.0
    for i in range(reference.size):
        w = np.float64(reference[i])
        total += w
        energy += w * w
        error += w - np.float64(restored[i])
    return total, energy, error


@kernel()
def blocks(reference, restored, size):
    """(sum of errors, energy of the block means of the error, energy of w about its block means).

    The second is sum over blocks of (sum of errors)^2 / block length.
    """
    errors = 0.0
    error_of_means = 0.0
    detail = 0.0
    for start in range(0, reference.size, size):
        stop = min(start + size, reference.size)
        total, energy, error = _block_sums(reference[start:stop], restored[start:stop])
        count = np.float64(stop - start)
        errors += error
        error_of_means += error * error / count
        detail += max(energy - total * total / count, 0.0)
    return errors, error_of_means, detail


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
def worst_order(reference, restored, columns, size, least_steps):
    """(largest inverted share of any run, where that run starts in the flattened array)."""
    worst = 0.0
    where = 0
    for start in range(0, reference.size, size):
        stop = min(start + size, reference.size)
        share = _inverted_share(
            reference[start:stop], restored[start:stop], start, columns, least_steps
        )
        if share > worst:
            worst = share
            where = start
    return worst, where


@kernel()
def column_energies(reference, restored, energy, alive):
    """energy[c] += sum w[:, c]^2; alive[c] counts restored values of the column that are not 0."""
    for r in range(reference.shape[0]):
        row, back = reference[r], restored[r]
        for c in range(row.size):
            w = np.float64(row[c])
            energy[c] += w * w
            alive[c] += back[c] != 0


@kernel()
def most_levels(restored, size, limit, slots):
    """(most distinct values in any group, its row, its group), counted no further than limit + 1.

    slots: log2 of the entries of the hash table, well above that of the limit.
    """
    seen = np.zeros(1 << slots, np.float64)
    group_of = np.full(1 << slots, -1, np.int64)  # which group an entry is of: never cleared
    mask, shift = np.int64((1 << slots) - 1), np.uint64(32 - slots)
    most, at_row, at_group, serial = 0, 0, 0, 0
    for r in range(restored.shape[0]):
        for j in range((restored.shape[1] + size - 1) // size):
            serial += 1
            count = 0
            for i in range(j * size, min(j * size + size, restored.shape[1])):
                if count > limit:
                    break
                value = np.float64(restored[r, i]) + 0.0  # -0.0 is 0.0
                bits = np.float64(value).view(np.uint64)
                folded = np.uint64((bits ^ (bits >> np.uint64(32))) & LOW_HALF)
                slot = np.int64(np.uint64(folded * FIBONACCI) >> shift) & mask
                while group_of[slot] == serial and seen[slot] != value:
                    slot = (slot + 1) & mask
                count += group_of[slot] != serial
                group_of[slot] = serial
                seen[slot] = value
            if count > most:
                most, at_row, at_group = count, r, j
    return most, at_row, at_group
