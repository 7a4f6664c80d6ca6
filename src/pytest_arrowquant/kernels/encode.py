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
# chunks than these LLVM unrolls into scalar code. Indices are unsigned, as a signed one might
# count from the end.
CHUNK = 64
CODE_CHUNK = 32
BLOCK = 1024  # weights taken through each step together: groups overlap, and memory keeps up


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


@kernel(inline=True)
def _peak(words, start, stop):
    """(finite, low, high) where one of the two is the value of largest magnitude, the other 0."""
    peak = np.uint32(0)
    for at in range(start, stop, CHUNK):
        if stop - at >= CHUNK:
            peak = max(peak, _chunk_peak(words, np.uint64(at), CHUNK))
        else:
            peak = max(peak, _chunk_peak(words, np.uint64(at), min(stop - at, CHUNK)))
    bits = np.int32(peak >> np.uint32(1))
    sign = np.int32(np.uint32(peak << np.uint32(31)).view(np.int32))
    value = np.int32(bits | sign).view(np.float32)
    low = value if sign else np.float32(0)
    return bits < INFINITY, low, value - low


@kernel(inline=True)
def _extent(words, start, stop):
    """(finite, smallest, largest)."""
    lowest = MAGNITUDE
    highest = np.int32(-MAGNITUDE)
    for at in range(start, stop, CHUNK):
        if stop - at >= CHUNK:
            low, high = _chunk_extent(words, np.uint64(at), CHUNK)
        else:
            low, high = _chunk_extent(words, np.uint64(at), min(stop - at, CHUNK))
        lowest = min(lowest, low)
        highest = max(highest, high)
    finite = highest < INFINITY and lowest > _ordered(NEGATIVE_INFINITY)
    low_bits, high_bits = _ordered(lowest), _ordered(highest)
    return finite, np.int32(low_bits).view(np.float32), np.int32(high_bits).view(np.float32)


@kernel()
def extent(words, start, stop, symmetric):
    """(finite, low, high) of x[start:stop], of which `words` are the bits as int32.

    Symmetric: the value of largest magnitude, negative where two are, and 0 as the other end.
    """
    if symmetric:
        return _peak(words, start, stop)
    return _extent(words, start, stop)


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
        negative = -low >= high  # a choice between values, as a branch would often be mispredicted
        scale = max((-low if negative else high) / half, TINY)
        return (scale if negative else -scale), half, np.float32(0)
    if integer_zero:
        low = min(low, np.float32(0))
        high = max(high, np.float32(0))
    if np.isinf(high - low):  # a range that float32 cannot hold is clipped
        low = max(low, -HALF_MOST)
        high = min(high, HALF_MOST)
    scale = max((high - low) / levels, TINY)
    if float_zero:
        return scale, np.float32(0), low
    zero_point = np.rint(-low * (np.float32(1) / scale))
    return scale, zero_point, np.float32(0)


@kernel(inline=True)
def _chunk_codes(row, start, count, inverse, zero_point, minimum, lowest, levels, out):
    """Clipped while a float, and before rounding: the bounds are whole, so it is all the same."""
    low, high, zero = lowest - zero_point, levels - zero_point, np.int32(zero_point)
    for i in range(count):
        at = start + np.uint64(i)
        place = (row[at] - minimum) * inverse
        place = place if place > low else low
        place = place if place < high else high
        out[at] = np.uint8(np.int32(np.int32(np.rint(place)) + zero))


@kernel(inline=True)
def _codes(row, start, stop, scale, zero_point, minimum, lowest, levels, out):
    """The codes of row[start:stop], a byte each."""
    inverse = np.float32(1) / scale
    for at in range(start, stop, CODE_CHUNK):
        u = np.uint64(at)
        if stop - at >= CODE_CHUNK:
            _chunk_codes(row, u, CODE_CHUNK, inverse, zero_point, minimum, lowest, levels, out)
        else:
            rest = min(stop - at, CODE_CHUNK)
            _chunk_codes(row, u, rest, inverse, zero_point, minimum, lowest, levels, out)


@kernel(inline=True)
def _pack_int4(pairs, start, stop, packed):
    """Two codes of a byte each, read as one little-endian number, into a byte."""
    for k in range(np.uint64(start), np.uint64(stop)):
        pair = pairs[k]
        packed[k] = np.uint8(np.uint16(pair | np.uint16(pair >> np.uint16(4))) & np.uint16(0xFF))


@kernel(inline=True)
def _pack_int2(fours, start, stop, packed):
    """Four codes of a byte each, read as one little-endian number, into a byte."""
    for k in range(np.uint64(start), np.uint64(stop)):
        four = fours[k]
        pairs = np.uint32(four | np.uint32(four >> np.uint32(6)))
        byte = np.uint32(pairs | np.uint32(pairs >> np.uint32(12)))
        packed[k] = np.uint8(byte & np.uint32(0xFF))


@kernel(inline=True)
def _pack(pairs, fours, start, stop, packed, bits):
    """Codes from start, the first of a byte, to stop; those of 8 bits are where they belong."""
    first, last = start * bits // 8, (stop * bits + 7) // 8
    if bits == 4:
        _pack_int4(pairs, first, last, packed)
    elif bits == 2:
        _pack_int2(fours, first, last, packed)


@kernel(inline=True)
def _quantize(x, size, codes, scale, zero_point, minimum, bits):
    """Round each group to nearest; False where one holds NaN or infinity."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    symmetric = not (integer_zero or float_zero)
    lowest = np.float32(1) if symmetric and bits > 2 else np.float32(0)
    levels = np.float32((1 << bits) - 1)
    columns, groups = x.shape[1], scale.shape[1]
    step = max(BLOCK // size, 1)
    all_words = x.view(np.int32)
    low, high = np.empty(groups, np.float32), np.empty(groups, np.float32)
    zero, least = np.empty(groups, np.float32), np.empty(groups, np.float32)
    buffer = np.zeros((columns + 7) // 8 * 8, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    for r in range(x.shape[0]):
        row, words, packed = x[r], all_words[r], codes[r]
        unpacked = packed if bits == 8 else buffer
        for first in range(0, groups, step):
            last = min(first + step, groups)
            for j in range(first, last):
                stop = min(j * size + size, columns)
                if symmetric:
                    finite, low[j], high[j] = _peak(words, j * size, stop)
                else:
                    finite, low[j], high[j] = _extent(words, j * size, stop)
                if not finite:
                    return False
            for j in range(first, last):
                s, z, m = parameters(low[j], high[j], bits, integer_zero, float_zero)
                scale[r, j], zero[j], least[j] = s, z, m
                if integer_zero:
                    zero_point[r, j] = np.uint8(z)
                if float_zero:
                    minimum[r, j] = m
            for j in range(first, last):
                stop = min(j * size + size, columns)
                s, z, m = scale[r, j], zero[j], least[j]
                _codes(row, j * size, stop, s, z, m, lowest, levels, unpacked)
            _pack(pairs, fours, first * size, min(last * size, columns), packed, bits)
    return True


@kernel(inline=True)
def _encode(x, size, scale, zero_point, minimum, codes, bits):
    """Codes under the parameters that are given."""
    symmetric = not (zero_point.size or minimum.size)
    default_zero = np.float32(1 << (bits - 1)) if symmetric else np.float32(0)
    lowest = np.float32(1) if symmetric and bits > 2 else np.float32(0)
    levels = np.float32((1 << bits) - 1)
    columns = x.shape[1]
    buffer = np.zeros((columns + 7) // 8 * 8, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    for r in range(x.shape[0]):
        row = x[r]
        unpacked = codes[r] if bits == 8 else buffer
        for j in range(scale.shape[1]):
            stop = min(j * size + size, columns)
            z = np.float32(zero_point[r, j]) if zero_point.size else default_zero
            m = minimum[r, j] if minimum.size else np.float32(0)
            _codes(row, j * size, stop, scale[r, j], z, m, lowest, levels, unpacked)
        _pack(pairs, fours, 0, columns, codes[r], bits)


@kernel()
def fit(x, size, bits, integer_zero, float_zero, scale, zero_point, minimum):
    """The parameters of every group of finite rows, float32 (rows, groups), at any width."""
    symmetric = not (integer_zero or float_zero)
    for r in range(x.shape[0]):
        words = x[r].view(np.int32)
        for j in range(scale.shape[1]):
            _, low, high = extent(words, j * size, min(j * size + size, x.shape[1]), symmetric)
            s, z, m = parameters(low, high, bits, integer_zero, float_zero)
            scale[r, j] = s
            zero_point[r, j] = z
            minimum[r, j] = m


@kernel(inline=True)
def _round_group(group, scale, zero_point, minimum, lowest, levels, out):
    """What the codes of one group stand for, without making them."""
    inverse = np.float32(1) / scale
    for i in range(group.size):
        code = np.rint((group[i] - minimum) * inverse) + zero_point
        code = code if code > lowest else lowest
        code = code if code < levels else levels
        out[i] = (code - zero_point) * scale + minimum


@kernel()
def round_trip(x, size, bits, lowest, scale, zero_point, minimum, out):
    """Every value of x as its nearest code restores it, at any width."""
    levels = np.float32((1 << bits) - 1)
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            start = j * size
            stop = min(start + size, x.shape[1])
            s, z, m = scale[r, j], zero_point[r, j], minimum[r, j]
            _round_group(x[r, start:stop], s, z, m, lowest, levels, out[r, start:stop])


@kernel()
def quantize_int2(x, size, codes, scale, zero_point, minimum):
    return _quantize(x, size, codes, scale, zero_point, minimum, 2)


@kernel()
def quantize_int4(x, size, codes, scale, zero_point, minimum):
    return _quantize(x, size, codes, scale, zero_point, minimum, 4)


@kernel()
def quantize_int8(x, size, codes, scale, zero_point, minimum):
    return _quantize(x, size, codes, scale, zero_point, minimum, 8)


@kernel()
def encode_int2(x, size, scale, zero_point, minimum, codes):
    _encode(x, size, scale, zero_point, minimum, codes, 2)


@kernel()
def encode_int4(x, size, scale, zero_point, minimum, codes):
    _encode(x, size, scale, zero_point, minimum, codes, 4)


@kernel()
def encode_int8(x, size, scale, zero_point, minimum, codes):
    _encode(x, size, scale, zero_point, minimum, codes, 8)


# A literal width lets LLVM unroll; one passed as a variable was measured 45 times slower.
QUANTIZE = {2: quantize_int2, 4: quantize_int4, 8: quantize_int8}
ENCODE = {2: encode_int2, 4: encode_int4, 8: encode_int8}
