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

SIGN_OFF = np.uint32(0x7FFFFFFF)
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = np.int32(0x7F800000)
NEGATIVE_INFINITY = np.int32(-0x00800000)
TINY = np.float32(2.0**-126)  # smallest normal float32: a smaller scale has no finite inverse
MOST = np.float32(np.finfo(np.float32).max * (1 - 2.0**-10))  # rounding cannot overflow from here
HALF_MOST = np.float32(MOST / 2)


@kernel()
def _largest_magnitude(bits):
    """max |x| as the bits of a float32: integers vectorise, and NaN and infinity win."""
    largest = np.uint32(0)
    for i in range(bits.size):
        largest = max(largest, np.uint32(bits[i] & SIGN_OFF))
    return np.int32(largest)


@kernel()
def _ordered(bits):
    """An integer that orders like the float with these bits; its own inverse."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & MAGNITUDE))


@kernel()
def _ordered_extent(bits):
    """Smallest and largest x as ordered integers; NaN lies beyond the infinities."""
    lowest = MAGNITUDE
    highest = np.int32(-MAGNITUDE)
    for i in range(bits.size):
        key = _ordered(bits[i])
        lowest = min(lowest, key)
        highest = max(highest, key)
    return lowest, highest


@kernel()
def extent(group, magnitude_only):
    """(finite, low, high) of a group; (-max |x|, max |x|) where that is all that is needed."""
    if magnitude_only:
        largest = _largest_magnitude(group.view(np.uint32))
        high = np.int32(largest).view(np.float32)
        return largest < INFINITY, -high, high
    lowest, highest = _ordered_extent(group.view(np.int32))
    finite = highest < INFINITY and lowest > _ordered(NEGATIVE_INFINITY)
    low = np.int32(_ordered(lowest)).view(np.float32)
    high = np.int32(_ordered(highest)).view(np.float32)
    return finite, low, high


@kernel()
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
        if -low >= high:
            return max(-low / half, TINY), half, np.float32(0)
        return min(-high / half, -TINY), half, np.float32(0)
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


@kernel()
def _code(value, inverse, zero_point, minimum, lowest, levels):
    """u = clip(rint((x - minimum) / scale) + zero_point, lowest, levels), clipped while a float."""
    code = np.rint((value - minimum) * inverse) + zero_point
    code = code if code > lowest else lowest
    return np.uint8(np.int32(code if code < levels else levels))


@kernel()
def _join(low, high, shift):
    return np.uint8(low | np.uint8(high << np.uint8(shift)))


@kernel()
def _pack(group, scale, zero_point, minimum, lowest, packed, bits):
    """The codes of one group into its bytes; written out a width, which is what vectorises."""
    inverse = np.float32(1) / scale
    levels = np.float32((1 << bits) - 1)
    per_byte = 8 // bits
    whole = group.size // per_byte
    if bits == 8:
        for k in range(whole):
            packed[k] = _code(group[k], inverse, zero_point, minimum, lowest, levels)
    elif bits == 4:
        for k in range(whole):
            low = _code(group[2 * k], inverse, zero_point, minimum, lowest, levels)
            high = _code(group[2 * k + 1], inverse, zero_point, minimum, lowest, levels)
            packed[k] = _join(low, high, 4)
    else:
        for k in range(whole):
            first = _code(group[4 * k], inverse, zero_point, minimum, lowest, levels)
            second = _code(group[4 * k + 1], inverse, zero_point, minimum, lowest, levels)
            third = _code(group[4 * k + 2], inverse, zero_point, minimum, lowest, levels)
            fourth = _code(group[4 * k + 3], inverse, zero_point, minimum, lowest, levels)
            packed[k] = _join(_join(first, second, 2), _join(third, fourth, 2), 4)
    rest = group.size - whole * per_byte
    if rest:
        byte = np.uint8(0)
        for i in range(rest):
            code = _code(group[whole * per_byte + i], inverse, zero_point, minimum, lowest, levels)
            byte = _join(byte, code, i * bits)
        packed[whole] = byte


@kernel()
def _quantize(x, size, codes, scale, zero_point, minimum, bits):
    """Round each group to nearest; False where one holds NaN or infinity."""
    integer_zero, float_zero = zero_point.size > 0, minimum.size > 0
    magnitude_only = bits > 2 and not (integer_zero or float_zero)
    lowest = np.float32(1) if magnitude_only else np.float32(0)
    all_finite = True
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            start = j * size
            stop = min(start + size, x.shape[1])
            group = x[r, start:stop]
            finite, low, high = extent(group, magnitude_only)
            all_finite = all_finite and finite
            s, z, m = parameters(low, high, bits, integer_zero, float_zero)
            scale[r, j] = s
            if integer_zero:
                zero_point[r, j] = np.uint8(z)
            if float_zero:
                minimum[r, j] = m
            packed = codes[r, start * bits // 8 : (stop * bits + 7) // 8]
            _pack(group, s, z, m, lowest, packed, bits)
    return all_finite


@kernel()
def _encode(x, size, scale, zero_point, minimum, codes, bits):
    """Codes under the parameters that are given."""
    symmetric = not (zero_point.size or minimum.size)
    default_zero = np.float32(1 << (bits - 1)) if symmetric else np.float32(0)
    lowest = np.float32(1) if symmetric and bits > 2 else np.float32(0)
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            start = j * size
            stop = min(start + size, x.shape[1])
            z = np.float32(zero_point[r, j]) if zero_point.size else default_zero
            m = minimum[r, j] if minimum.size else np.float32(0)
            packed = codes[r, start * bits // 8 : (stop * bits + 7) // 8]
            _pack(x[r, start:stop], scale[r, j], z, m, lowest, packed, bits)


@kernel()
def fit(x, size, bits, integer_zero, float_zero, scale, zero_point, minimum):
    """The parameters of every group of finite rows, float32 (rows, groups), at any width."""
    magnitude_only = bits > 2 and not (integer_zero or float_zero)
    for r in range(x.shape[0]):
        for j in range(scale.shape[1]):
            group = x[r, j * size : min(j * size + size, x.shape[1])]
            _, low, high = extent(group, magnitude_only)
            s, z, m = parameters(low, high, bits, integer_zero, float_zero)
            scale[r, j] = s
            zero_point[r, j] = z
            minimum[r, j] = m


@kernel()
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
