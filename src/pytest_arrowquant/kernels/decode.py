"""From packed codes back to values, and how far the values are from a reference.

    restored = (u - zero_point) * scale + minimum        (Jacob et al. 2018, equation 1)

Arrays are laid out as in encode.py. Deviations are sums in float64, a row each:

    sums[r] = sum w^2, sum restored^2, sum (w - restored)^2, max |w - restored|

from which <w, restored> follows as half of the first two less the third, to the rounding of the
larger energy; that saves an accumulator.
"""

import numpy as np

from ._jit import kernel

MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)

# Chunks of a literal length, blocks and unsigned indices: for the reasons that encode.py gives.
CHUNK = 64
BLOCK = 1024

# The kinds of zero, (integer, floating, add); literals, for loops without a choice in them. A scale
# of 2 bits may be negative, and its zero would be -0 if none were added.
PLAIN = (False, False, False)
SIGNED = (False, False, True)
INTEGER = (True, False, False)
FLOAT = (False, True, True)


@kernel(inline=True)
def _unpack_int4(packed, at, count, pairs):
    """Each byte as two codes of a byte, one little-endian number."""
    for k in range(count):
        byte = np.uint16(packed[at + k])
        pairs[k] = np.uint16(np.uint16(byte | np.uint16(byte << np.uint16(4))) & np.uint16(0x0F0F))


@kernel(inline=True)
def _unpack_int2(packed, at, count, fours):
    """Each byte as four codes of a byte, one little-endian number."""
    for k in range(count):
        byte = np.uint32(packed[at + k])
        pairs = np.uint32(byte | np.uint32(byte << np.uint32(12)))
        fours[k] = np.uint32(
            np.uint32(pairs | np.uint32(pairs << np.uint32(6))) & np.uint32(0x03030303)
        )


@kernel(inline=True)
def _chunk_values(codes, at, count, scale, zero, minimum, add, out, to):
    """A code less its zero point is a whole number, so it is the same in integers, and faster."""
    for i in range(count):
        value = np.float32(np.int32(np.int32(codes[at + np.uint64(i)]) - zero)) * scale
        out[to + np.uint64(i)] = value + minimum if add else value


@kernel(inline=True)
def _whole_values(codes, at, size, groups, scale, zero_point, minimum, group, half, kinds, out, to):
    """Groups of whole chunks, whose parameters start at `group`, into out[to] and on."""
    integer, floating, add = kinds
    for j in range(group, group + groups):
        zero = np.int32(zero_point[j]) if integer else (np.int32(0) if floating else half)
        s, m = scale[j], (minimum[j] if floating else np.float32(0))
        for _ in range(size // CHUNK):
            _chunk_values(codes, at, CHUNK, s, zero, m, add, out, to)
            at += np.uint64(CHUNK)
            to += np.uint64(CHUNK)


@kernel(inline=True)
def _values(codes, at, size, weights, scale, zero_point, minimum, group, half, out, to):
    """Groups of any size, the last of which may be cut short."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    for start in range(np.uint64(0), weights, size):
        zero = np.int32(0) if float_zero else half
        if integer_zero:
            zero = np.int32(zero_point[group])
        s, m = scale[group], (minimum[group] if float_zero else np.float32(0))
        count = min(size, weights - start)
        _chunk_values(codes, at + start, count, s, zero, m, True, out, to + start)
        group += np.uint64(1)


@kernel(reassociate=True, fuse=True, inline=True)
def _deviations(reference, at, restored, count):
    """The four sums of `count` values of restored against reference[at] and on.

    The bits of a float64 without its sign order like an integer, whose maximum vectorises where
    that of floats does not.
    """
    reference_energy, restored_energy, error_energy = 0.0, 0.0, 0.0
    largest = np.int64(0)
    for i in range(count):
        w, v = np.float64(reference[at + i]), np.float64(restored[i])
        error = w - v
        reference_energy += w * w
        restored_energy += v * v
        error_energy += error * error
        largest = max(largest, np.int64(np.float64(error).view(np.int64) & MAGNITUDE))
    return reference_energy, restored_energy, error_energy, np.int64(largest).view(np.float64)


@kernel(inline=True)
def _add(sums, r, first, deviations):
    """To the sums of row r, or in the place of them if these are its first."""
    energy, restored, error, largest = deviations
    sums[r, 0] = energy if first else sums[r, 0] + energy
    sums[r, 1] = restored if first else sums[r, 1] + restored
    sums[r, 2] = error if first else sums[r, 2] + error
    sums[r, 3] = largest if first else max(sums[r, 3], largest)


@kernel()
def deviate(reference, restored, sums):
    """The sums of two arrays of one dtype."""
    rows, columns = reference.shape
    start, count = np.uint64(0), np.uint64(columns)
    for r in range(rows):
        _add(sums, r, True, _deviations(reference[r], start, restored[r], count))


@kernel(inline=True)
def _read(codes, size, bits, s, z, m, out, compared, reference, sums):
    """All values into `out`; where `compared`, a block at a time to the front of it, for its sums.

    s, z, m: scale, zero point and minimum. reference: of the shape of the values.
    """
    rows, columns = reference.shape
    groups = s.shape[1]
    if not compared and groups * size == columns and columns * bits % 8 == 0:
        rows, columns, groups = min(rows, 1), rows * columns, rows * groups  # see encode.py
    step, row_bytes = max(BLOCK // size, 1), (columns * bits + 7) // 8
    codes, out, reference = codes.reshape(-1), out.reshape(-1), reference.reshape(-1)
    s, z, m = s.reshape(-1), z.reshape(-1), m.reshape(-1)
    buffer = np.empty((step * size + 7) // 8 * 8, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    unpacked = codes if bits == 8 else buffer
    half, usize = np.int32(1 << (bits - 1)), np.uint64(size)
    for r in range(rows):
        for first in range(0, groups, step):
            start, group = np.uint64(r * columns + first * size), np.uint64(r * groups + first)
            weights = np.uint64(min(step * size, columns - first * size))
            at = np.uint64(r * row_bytes + first * size * bits // 8)
            if bits == 4:
                _unpack_int4(codes, at, (weights + np.uint64(1)) // np.uint64(2), pairs)
            elif bits == 2:
                _unpack_int2(codes, at, (weights + np.uint64(3)) // np.uint64(4), fours)
            place, to = (at if bits == 8 else np.uint64(0)), (np.uint64(0) if compared else start)
            count = weights // usize
            if size % CHUNK or weights % usize:
                _values(unpacked, place, usize, weights, s, z, m, group, half, out, to)
            elif m.size:
                _whole_values(unpacked, place, usize, count, s, z, m, group, half, FLOAT, out, to)
            elif z.size:
                _whole_values(unpacked, place, usize, count, s, z, m, group, half, INTEGER, out, to)
            elif bits == 2:
                _whole_values(unpacked, place, usize, count, s, z, m, group, half, SIGNED, out, to)
            else:
                _whole_values(unpacked, place, usize, count, s, z, m, group, half, PLAIN, out, to)
            if compared:
                _add(sums, r, first == 0, _deviations(reference, start, out, weights))


@kernel()
def dequantize(codes, size, bits, scale, zero_point, minimum, out):
    """Fill `out`, float32 (rows, columns)."""
    _read(codes, size, bits, scale, zero_point, minimum, out, False, out, np.empty((0, 4)))


@kernel()
def compare(reference, codes, size, bits, scale, zero_point, minimum, sums):
    """The sums of packed codes against the reference; only one block is ever restored."""
    block = np.empty((1, max(BLOCK // size, 1) * size), np.float32)
    _read(codes, size, bits, scale, zero_point, minimum, block, True, reference, sums)


@kernel(inline=True)
def _chunk_rounded(x, at, count, scale, zero_point, minimum, by, bounds, out, to):
    """What codes would restore; `by`: whether to add the minimum, a literal.

    Clipped before rounding, as the bounds are whole numbers.
    """
    inverse = np.float32(1) / scale
    low, high = bounds[0] - zero_point, bounds[1] - zero_point
    for i in range(count):
        place = (x[at + np.uint64(i)] - minimum) * inverse
        place = place if place > low else low
        place = place if place < high else high
        value = np.rint(place) * scale
        out[to + np.uint64(i)] = value + minimum if by else value


@kernel(inline=True)
def _whole_rounded(x, at, groups, size, scale, zero_point, minimum, group, by, bounds, out, to):
    """Groups of whole chunks, whose parameters start at `group`, into out[to] and on."""
    for j in range(group, group + groups):
        s, z, m = scale[j], zero_point[j], (minimum[j] if by else np.float32(0))
        for _ in range(size // CHUNK):
            _chunk_rounded(x, at, CHUNK, s, z, m, by, bounds, out, to)
            at += np.uint64(CHUNK)
            to += np.uint64(CHUNK)


@kernel(inline=True)
def _rounded(x, at, weights, size, scale, zero_point, minimum, group, bounds, out, to):
    """Groups of any size, the last of which may be cut short."""
    for start in range(np.uint64(0), weights, size):
        s, z, m = scale[group], zero_point[group], minimum[group]
        count = min(size, weights - start)
        _chunk_rounded(x, at + start, count, s, z, m, True, bounds, out, to + start)
        group += np.uint64(1)


@kernel()
def round_trip(x, size, bits, lowest, scale, zero_point, minimum, out):
    """Every value of x as its nearest code restores it, at any width."""
    bounds = (np.float32(lowest), np.float32((1 << bits) - 1))
    columns, groups, usize = x.shape[1], scale.shape[1], np.uint64(size)
    rows, x, out, scale = x.shape[0], x.reshape(-1), out.reshape(-1), scale.reshape(-1)
    zero_point, minimum = zero_point.reshape(-1), minimum.reshape(-1)
    for r in range(rows):
        at, group, weights = np.uint64(r * columns), np.uint64(r * groups), np.uint64(columns)
        _rounded(x, at, weights, usize, scale, zero_point, minimum, group, bounds, out, at)


@kernel()
def compare_rounded(reference, x, size, bits, lowest, by, scale, zero_point, minimum, sums):
    """The sums of x, as its nearest codes would restore it, against the reference.

    by: whether minima are to be looked at; where not, they are 0.
    """
    bounds = (np.float32(lowest), np.float32((1 << bits) - 1))
    columns, groups, usize = x.shape[1], scale.shape[1], np.uint64(size)
    rows, x, reference, scale = x.shape[0], x.reshape(-1), reference.reshape(-1), scale.reshape(-1)
    zero_point, minimum = zero_point.reshape(-1), minimum.reshape(-1)
    step = max(BLOCK // size, 1)
    block, to = np.empty(step * size, np.float32), np.uint64(0)
    for r in range(rows):
        for first in range(0, groups, step):
            at, group = np.uint64(r * columns + first * size), np.uint64(r * groups + first)
            weights = np.uint64(min(step * size, columns - first * size))
            n, p, q, m = weights // usize, scale, zero_point, minimum
            if size % CHUNK or weights % usize:
                _rounded(x, at, weights, usize, p, q, m, group, bounds, block, to)
            elif by:
                _whole_rounded(x, at, n, usize, p, q, m, group, True, bounds, block, to)
            else:
                _whole_rounded(x, at, n, usize, p, q, m, group, False, bounds, block, to)
            _add(sums, r, first == 0, _deviations(reference, at, block, weights))
