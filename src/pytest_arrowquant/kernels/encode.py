"""From values to packed codes: the range of a group, its scale and zero, its codes.

Every kernel takes x as (rows, columns) float32 and cuts each row into groups of `size`, the last
one ragged. A code is

    u = clip(rint((x - minimum) * (1 / scale)) + zero_point, lowest, 2^bits - 1)

and bits [i * bits, (i + 1) * bits) of a row of `codes` hold its element i, low bits first.
Which of the three kinds of zero is meant follows from the arrays handed over: `minimum` filled
(a float minimum), `zero_point` filled (an integer), or both empty (symmetric: the zero point is
2^(bits - 1), never stored). `lowest` is 0, and 1 for symmetric codes of 4 and 8 bits.
"""

import numpy as np

from ._jit import kernel

MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = np.int32(0x7F800000)
NEGATIVE_INFINITY = np.int32(-0x00800000)
TINY = np.float32(2.0**-126)  # smallest normal float32: a smaller scale has no finite inverse
MOST = np.float32(np.finfo(np.float32).max * (1 - 2.0**-10))  # rounding cannot overflow from here
HALF_MOST = np.float32(MOST / 2)

# Loops over a group run in chunks of a literal length, which LLVM vectorises without a remainder:
# a length known at run time only was measured to cost half the speed at 64 weights. Shorter
# chunks LLVM unrolls into scalar code. Indices are unsigned, as a signed one might count from
# the end.
CHUNK = 64
BLOCK = 1024  # weights taken through each step together: groups overlap, and memory keeps up

# What codes take besides multiplying and rounding, (minimum, floor, ceiling); each takes a tenth
# of the time, so that it is left out where it changes nothing.
PLAIN = (False, False, False)
MINIMUM = (True, False, False)
CEILING = (False, False, True)


@kernel(inline=True)
def _chunk_peak(words, start, count):
    """The largest magnitude, as the bits of a float32 whose sign was moved to the lowest bit.

    Integers vectorise, and NaN and infinity win; of equal magnitudes, the negative.
    """
    peak = np.uint32(0)
    for i in range(count):
        word = np.int32(words[start + np.uint64(i)]).view(np.uint32)
        peak = max(
            peak, np.uint32(np.uint32(word << np.uint32(1)) | np.uint32(word >> np.uint32(31)))
        )
    return peak


@kernel(inline=True)
def _ordered(bits):
    """An integer that orders like the float with these bits; its own inverse."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & MAGNITUDE))


@kernel(inline=True)
def _chunk_extent(words, start, count):
    """Smallest and largest x as ordered integers; NaN lies beyond the infinities."""
    lowest = MAGNITUDE
    highest = np.int32(-MAGNITUDE)
    for i in range(count):
        key = _ordered(words[start + np.uint64(i)])
        lowest = min(lowest, key)
        highest = max(highest, key)
    return lowest, highest


# A loop over groups is a function of its own, without a choice in it: numba would count references
# in every block, which takes as long as the codes of a group. Each takes `count` groups from
# `start` on, and keeps what it makes of group j at j; the last may be cut short at `end`.


@kernel(inline=True)
def _whole_peaks(words, start, size, count, ends):
    """The peak of groups that are whole chunks."""
    for j in range(count):
        peak = np.uint32(0)
        for _ in range(size // CHUNK):
            peak = max(peak, _chunk_peak(words, start, CHUNK))
            start += np.uint64(CHUNK)
        ends[0, j] = np.int32(peak)


@kernel(inline=True)
def _peaks(words, start, size, count, end, ends):
    for j in range(count):
        at = start + j * size
        ends[0, j] = np.int32(_chunk_peak(words, at, min(size, end - at)))


@kernel(inline=True)
def _whole_extents(words, start, size, count, ends):
    """The extent of groups that are whole chunks."""
    for j in range(count):
        lowest, highest = MAGNITUDE, np.int32(-MAGNITUDE)
        for _ in range(size // CHUNK):
            least, most = _chunk_extent(words, start, CHUNK)
            lowest, highest = min(lowest, least), max(highest, most)
            start += np.uint64(CHUNK)
        ends[0, j], ends[1, j] = lowest, highest


@kernel(inline=True)
def _extents(words, start, size, count, end, ends):
    for j in range(count):
        at = start + j * size
        ends[0, j], ends[1, j] = _chunk_extent(words, at, min(size, end - at))


@kernel(inline=True)
def _float(bits):
    return np.int32(bits).view(np.float32)


@kernel(inline=True)
def _finite_range(low, high, symmetric):
    """(finite, low, high) of what the loops over groups found.

    Symmetric: one of the two is the value of largest magnitude, the other 0.
    """
    if symmetric:
        peak = np.uint32(low)
        bits = np.int32(peak >> np.uint32(1))
        value = _float(bits | np.int32(peak << np.uint32(31)))
        least = min(value, np.float32(0))
        return bits < INFINITY, least, value - least
    finite = high < INFINITY and low > _ordered(NEGATIVE_INFINITY)
    return finite, _float(_ordered(low)), _float(_ordered(high))


@kernel()
def extent(words):
    """(finite, smallest, largest) of the values of which `words` are the bits as int32."""
    low, high = _chunk_extent(words, np.uint64(0), np.uint64(words.size))
    return _finite_range(low, high, False)


@kernel(inline=True)
def parameters(low, high, bits, integer_zero, float_zero):
    """(scale, zero point, minimum) of round-to-nearest for values from low to high.

    Symmetric: 4 and 8 bits use +-(2^(bits-1) - 1); 2 bits use all of -2..1 under a signed scale
    whose -2 meets the largest magnitude. Integer: the range includes 0. Float: minimum = low.
    """
    levels = np.float32((1 << bits) - 1)
    low = max(low, -MOST)
    high = min(high, MOST)
    if not (integer_zero or float_zero):
        half = np.float32(1 << (bits - 1))
        if bits > 2:
            return max(max(-low, high) / (half - np.float32(1)), TINY), half, np.float32(0)
        negative = -low >= high
        scale = max((-low if negative else high) / half, TINY)
        return (scale if negative else -scale), half, np.float32(0)
    if integer_zero:
        low = min(low, np.float32(0))
        high = max(high, np.float32(0))
    most = HALF_MOST if np.isinf(high - low) else MOST  # of what float32 can hold as a range
    low = max(low, -most)
    high = min(high, most)
    scale = max((high - low) / levels, TINY)
    if float_zero:
        return scale, np.float32(0), low
    zero_point = np.rint(-low * (np.float32(1) / scale))
    return scale, zero_point, np.float32(0)


@kernel(inline=True)
def _fit(ends, count, bits, integer_zero, float_zero, p):
    """Fill the parameters of groups whose ranges were found.

    Returns whether all are finite, and whether all are small enough for any range to be so.
    """
    finite, small = True, True
    symmetric = not (integer_zero or float_zero)
    for j in range(count):
        good, low, high = _finite_range(ends[0, j], ends[1, j], symmetric)
        finite &= good
        small &= low >= -HALF_MOST
        small &= high <= HALF_MOST
        p[0, j], p[1, j], p[2, j] = parameters(low, high, bits, integer_zero, float_zero)
    return finite, small


@kernel(inline=True)
def _chunk_codes(x, at, count, inverse, zero_point, minimum, bounds, floor, ceiling, out, to):
    """A byte each, from out[to] on.

    Clipped while a float, and before rounding: the bounds are whole, so it is all the same.
    """
    low, high, zero = bounds[0] - zero_point, bounds[1] - zero_point, np.int32(zero_point)
    for i in range(count):
        place = (x[at + np.uint64(i)] - minimum) * inverse
        if floor:
            place = place if place > low else low
        if ceiling:
            place = place if place < high else high
        out[to + np.uint64(i)] = np.uint8(np.int32(np.int32(np.rint(place)) + zero))


@kernel(inline=True)
def _whole_codes(x, at, size, count, p, bounds, how, out, to):
    """how: whether to subtract a minimum, to clip from below, and to clip from above."""
    subtract, floor, ceiling = how
    for j in range(count):
        inverse = np.float32(1) / p[0, j]
        z, m = (np.float32(0), p[2, j]) if subtract else (p[1, j], np.float32(0))
        for _ in range(size // CHUNK):
            _chunk_codes(x, at, CHUNK, inverse, z, m, bounds, floor, ceiling, out, to)
            at += np.uint64(CHUNK)
            to += np.uint64(CHUNK)


@kernel(inline=True)
def _codes(x, start, size, count, end, p, bounds, out, to):
    for j in range(count):
        inverse, z, m, at = np.float32(1) / p[0, j], p[1, j], p[2, j], start + j * size
        length = min(size, end - at)
        _chunk_codes(x, at, length, inverse, z, m, bounds, True, True, out, to + j * size)


@kernel(inline=True)
def _pack_int4(pairs, packed, to, count):
    """Two codes of a byte each, read as one little-endian number, into a byte."""
    for k in range(count):
        pair = pairs[k]
        byte = np.uint16(pair | np.uint16(pair >> np.uint16(4)))
        packed[to + k] = np.uint8(byte & np.uint16(0xFF))


@kernel(inline=True)
def _pack_int2(fours, packed, to, count):
    """Four codes of a byte each, read as one little-endian number, into a byte."""
    for k in range(count):
        four = fours[k]
        pair = np.uint32(four | np.uint32(four >> np.uint32(6)))
        byte = np.uint32(pair | np.uint32(pair >> np.uint32(12)))
        packed[to + k] = np.uint8(byte & np.uint32(0xFF))


@kernel(inline=True)
def _long_rows(rows, columns, size, groups, bits):
    """(rows, columns, groups of a row), where rows of whole groups and bytes are taken for one."""
    if groups * size == columns and columns * bits % 8 == 0:
        return min(rows, 1), rows * columns, rows * groups
    return rows, columns, groups


@kernel(inline=True)
def _bounds(bits, symmetric):
    """The lowest code and the highest."""
    lowest = np.float32(1) if symmetric and bits > 2 else np.float32(0)
    return lowest, np.float32((1 << bits) - 1)


@kernel()
def quantize(x, size, bits, codes, scale, zero_point, minimum):
    """Round each group to nearest; False where one holds NaN or infinity."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    symmetric = not (integer_zero or float_zero)
    bounds = _bounds(bits, symmetric)
    rows, columns, groups = _long_rows(x.shape[0], x.shape[1], size, scale.shape[1], bits)
    step = max(BLOCK // size, 1)
    row_bytes = (columns * bits + 7) // 8
    x, codes = x.reshape(-1), codes.reshape(-1)
    words, scale, zero_point = x.view(np.int32), scale.reshape(-1), zero_point.reshape(-1)
    minimum = minimum.reshape(-1)
    ends, p = np.empty((2, step), np.int32), np.empty((3, step), np.float32)
    buffer = np.zeros((step * size + 7) // 8 * 8, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    out = codes if bits == 8 else buffer
    for r in range(rows):
        for first in range(0, groups, step):
            usize, count = np.uint64(size), np.uint64(min(step, groups - first))
            at, end = np.uint64(r * columns + first * size), np.uint64((r + 1) * columns)
            whole = size % CHUNK == 0 and at + count * usize <= end
            if symmetric and whole:
                _whole_peaks(words, at, usize, count, ends)
            elif symmetric:
                _peaks(words, at, usize, count, end, ends)
            elif whole:
                _whole_extents(words, at, usize, count, ends)
            else:
                _extents(words, at, usize, count, end, ends)
            finite, small = _fit(ends, count, bits, integer_zero, float_zero, p)
            if not finite:
                return False
            # Between the ends of a range of finite width none is below the lowest code; above the
            # highest only an end without a level: of 2 bits, or of a zero point that is rounded.
            to = np.uint64(r * row_bytes + first * size * bits // 8)
            place = to if bits == 8 else np.uint64(0)
            if not (whole and small):
                _codes(x, at, usize, count, end, p, bounds, out, place)
            elif float_zero:
                _whole_codes(x, at, usize, count, p, bounds, MINIMUM, out, place)
            elif symmetric and bits > 2:
                _whole_codes(x, at, usize, count, p, bounds, PLAIN, out, place)
            else:
                _whole_codes(x, at, usize, count, p, bounds, CEILING, out, place)
            weights = min(count * usize, end - at)
            for k in range(weights, (weights + np.uint64(3)) // np.uint64(4) * np.uint64(4)):
                buffer[k] = np.uint8(0)  # of a last byte, what no code fills
            if bits == 4:
                _pack_int4(pairs, codes, to, (weights + np.uint64(1)) // np.uint64(2))
            elif bits == 2:
                _pack_int2(fours, codes, to, (weights + np.uint64(3)) // np.uint64(4))
            group = np.uint64(r * groups + first)
            for j in range(count):
                scale[group + j] = p[0, j]
            for j in range(count if integer_zero else np.uint64(0)):
                zero_point[group + j] = np.uint8(p[1, j])
            for j in range(count if float_zero else np.uint64(0)):
                minimum[group + j] = p[2, j]
    return True


@kernel()
def encode(x, size, bits, scale, zero_point, minimum, codes):
    """Codes under the parameters that are given."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    bounds, how = _bounds(bits, not (integer_zero or float_zero)), (float_zero, True, True)
    half = np.float32(1 << (bits - 1))
    rows, columns, groups = _long_rows(x.shape[0], x.shape[1], size, scale.shape[1], bits)
    step = max(BLOCK // size, 1)
    row_bytes = (columns * bits + 7) // 8
    x, codes, scale = x.reshape(-1), codes.reshape(-1), scale.reshape(-1)
    zero_point, minimum = zero_point.reshape(-1), minimum.reshape(-1)
    p = np.empty((3, step), np.float32)
    buffer = np.zeros((step * size + 7) // 8 * 8, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    out = codes if bits == 8 else buffer
    for r in range(rows):
        for first in range(0, groups, step):
            usize, count = np.uint64(size), np.uint64(min(step, groups - first))
            at, end = np.uint64(r * columns + first * size), np.uint64((r + 1) * columns)
            group = np.uint64(r * groups + first)
            for j in range(count):
                p[0, j], p[1, j], p[2, j] = scale[group + j], half, np.float32(0)
                if integer_zero:
                    p[1, j] = np.float32(zero_point[group + j])
                if float_zero:
                    p[1, j], p[2, j] = np.float32(0), minimum[group + j]
            to = np.uint64(r * row_bytes + first * size * bits // 8)
            place = to if bits == 8 else np.uint64(0)
            if size % CHUNK == 0 and at + count * usize <= end:
                _whole_codes(x, at, usize, count, p, bounds, how, out, place)
            else:
                _codes(x, at, usize, count, end, p, bounds, out, place)
            weights = min(count * usize, end - at)
            for k in range(weights, (weights + np.uint64(3)) // np.uint64(4) * np.uint64(4)):
                buffer[k] = np.uint8(0)  # of a last byte, what no code fills
            if bits == 4:
                _pack_int4(pairs, codes, to, (weights + np.uint64(1)) // np.uint64(2))
            elif bits == 2:
                _pack_int2(fours, codes, to, (weights + np.uint64(3)) // np.uint64(4))


@kernel()
def fit(x, size, bits, integer_zero, float_zero, scale, zero_point, minimum):
    """The parameters of every group, float32 (rows, groups), at any width.

    False where a value is NaN or infinity.
    """
    symmetric = not (integer_zero or float_zero)
    rows, columns, groups = _long_rows(x.shape[0], x.shape[1], size, scale.shape[1], 8)
    step = max(BLOCK // size, 1)
    words, scale = x.reshape(-1).view(np.int32), scale.reshape(-1)
    zero_point, minimum = zero_point.reshape(-1), minimum.reshape(-1)
    ends, p = np.empty((2, step), np.int32), np.empty((3, step), np.float32)
    for r in range(rows):
        for first in range(0, groups, step):
            usize, count = np.uint64(size), np.uint64(min(step, groups - first))
            at, end = np.uint64(r * columns + first * size), np.uint64((r + 1) * columns)
            whole = size % CHUNK == 0 and at + count * usize <= end
            if symmetric and whole:
                _whole_peaks(words, at, usize, count, ends)
            elif symmetric:
                _peaks(words, at, usize, count, end, ends)
            elif whole:
                _whole_extents(words, at, usize, count, ends)
            else:
                _extents(words, at, usize, count, end, ends)
            finite, _ = _fit(ends, count, bits, integer_zero, float_zero, p)
            if not finite:
                return False
            group = np.uint64(r * groups + first)
            for j in range(count):
                scale[group + j], zero_point[group + j] = p[0, j], p[1, j]
                minimum[group + j] = p[2, j]
    return True
