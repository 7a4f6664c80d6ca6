"""Two binary terms a group: the fit of their scales, the codes, and the values of codes.

    restored = mean + a1 * b1 + a2 * b2,  b1 and b2 in {-1, +1},  a1 >= a2 >= 0

Code u = 2 [b1 > 0] + [b2 > 0] counts the thresholds mean - a1, mean, mean + a1 that a value
reaches. These lie midway between the four levels, so the code is the nearest one, ascends with
the value, and does not depend on a2. Arrays are laid out as in encode.py.

The fit counts values in units of 2^-22 of the power of two below the group's largest magnitude:
sums of integers are exact in any order, so they vectorise and yet come out the same everywhere.
Every parameter is rounded to the eight bits of bfloat16 as soon as it is found, and those found
after it make the best of what it became.
"""

import numpy as np

from ._jit import kernel

SIGN_OFF = np.uint32(0x7FFFFFFF)
INFINITY = np.int32(0x7F800000)
UPPER_HALF = np.int32(-0x10000)  # what bfloat16 keeps of a float32
DROPPED = np.int64(45)  # bits of a float64 that bfloat16 has no place for
JUST_BELOW_HALF = np.int64((1 << 44) - 1)
KEPT = np.int64(-1 << 45)
MOST = np.float64(np.finfo(np.float32).max * (1 - 2.0**-10))  # levels end here
PLACES = 22  # 2^22 <= largest place <= 2^23
BLOCK = 128  # places whose sum an int32 holds


@kernel()
def _largest_magnitude(bits):
    """max |x| as the bits of a float32: integers vectorise, and NaN and infinity win."""
    largest = np.uint32(0)
    for i in range(bits.size):
        largest = max(largest, np.uint32(bits[i] & SIGN_OFF))
    return np.int32(largest)


@kernel()
def _power_of_two(exponent):
    return np.int64(np.int64(exponent + 1023) << np.int64(52)).view(np.float64)


@kernel()
def _place(group, exponent, centred, places):
    """Fill the places of a group, or of its magnitudes unless centred; returns their sum."""
    shift = PLACES - exponent
    once = np.float32(_power_of_two(shift // 2))  # in two steps, as 2^171 is no float32
    again = np.float32(_power_of_two(shift - shift // 2))
    total = np.int64(0)
    for i in range(group.size):
        place = np.rint(group[i] * once * again)
        places[i] = np.int32(place if centred else abs(place))
        total += np.int64(places[i])
    return np.float64(total)


@kernel()
def _reached(places, low, middle, high):
    """How many places reach each limit, and the sums of those; int32 holds BLOCK of them."""
    n1, n2, n3 = np.int32(0), np.int32(0), np.int32(0)
    s1, s2, s3 = np.int32(0), np.int32(0), np.int32(0)
    for i in range(places.size):
        place = places[i]
        n1 = np.int32(n1 + np.int32(place >= low))
        n2 = np.int32(n2 + np.int32(place >= middle))
        n3 = np.int32(n3 + np.int32(place >= high))
        s1 = np.int32(s1 + (place if place >= low else np.int32(0)))
        s2 = np.int32(s2 + (place if place >= middle else np.int32(0)))
        s3 = np.int32(s3 + (place if place >= high else np.int32(0)))
    return n1, n2, n3, s1, s2, s3


@kernel()
def cells(places, total, mean, a1):
    """(counts, sums) of the places of code 0, 1, 2, 3."""
    limits = np.ceil(mean - a1), np.ceil(mean), np.ceil(mean + a1)
    low, middle, high = np.int32(limits[0]), np.int32(limits[1]), np.int32(limits[2])
    n1, n2, n3, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, places.size, BLOCK):
        block = _reached(places[start : min(start + BLOCK, places.size)], low, middle, high)
        n1, n2, n3 = n1 + block[0], n2 + block[1], n3 + block[2]
        s1, s2, s3 = s1 + block[3], s2 + block[4], s3 + block[5]
    count = np.float64(places.size)
    return (count - n1, n1 - n2, n2 - n3, n3), (total - s1, s1 - s2, s2 - s3, s3)


@kernel()
def _rounded(value):
    """To the eight significant bits of bfloat16, half to even, whatever the exponent."""
    bits = np.float64(value).view(np.int64)
    odd = np.int64(bits >> DROPPED) & np.int64(1)
    nearest = np.int64(np.int64(bits + JUST_BELOW_HALF + odd) & KEPT)
    return np.int64(nearest).view(np.float64)


@kernel()
def centre(counts, sums, mean):
    """The mean of least squares for these codes, whatever the scales; the old one where it is open.

    Levels 0 and 3 lie at one distance from the mean, 1 and 2 at another. Each pair so gives a mean,
    midway between the means of its cells, that weighs 1 / (1 / n + 1 / n').
    """
    weight, total = 0.0, 0.0
    for low in range(2):
        high = 3 - low
        if counts[low] > 0.0 and counts[high] > 0.0:
            share = 1.0 / (counts[low] + counts[high])
            weight += counts[low] * counts[high] * share
            total += (sums[low] * counts[high] + sums[high] * counts[low]) * 0.5 * share
    return total / weight if weight > 0.0 else mean


@kernel()
def _folded(counts, sums, mean):
    """(count, sum of b1 * (place - mean)) of the inner codes, 1 and 2, then of the outer ones."""
    inner = sums[2] - sums[1] - mean * (counts[2] - counts[1])
    outer = sums[3] - sums[0] - mean * (counts[3] - counts[0])
    return counts[1] + counts[2], inner, counts[0] + counts[3], outer


@kernel()
def first_term(places, total, mean):
    """a1 of a single binary term: mean |place - mean|."""
    counts, sums = cells(places, total, mean, 0.0)
    _, inner, _, outer = _folded(counts, sums, mean)
    return (inner + outer) / np.float64(places.size)


@kernel()
def second_term(counts, sums, mean, a1):
    """a2 of least squares for the codes under (mean, a1): mean ||place - mean| - a1|."""
    n_inner, inner, n_outer, outer = _folded(counts, sums, mean)
    return (outer - inner - a1 * (n_outer - n_inner)) / (n_inner + n_outer)


@kernel()
def _excess(counts, sums, mean, a1, a2, total):
    """The squared error of these codes, less the energy of the places."""
    n_inner, inner, n_outer, outer = _folded(counts, sums, mean)
    low, high = a1 - a2, a1 + a2
    error = mean * ((n_inner + n_outer) * mean - 2.0 * total)
    return error + low * (n_inner * low - 2.0 * inner) + high * (n_outer * high - 2.0 * outer)


@kernel()
def alternate(places, total, rounds, centred):
    """(mean, a1, a2) by alternating least squares from the greedy terms, in units of the places."""
    mean = _rounded(total / np.float64(places.size)) if centred else 0.0
    a1 = _rounded(first_term(places, total, mean))
    least, best = np.inf, (mean, a1, 0.0)
    for _ in range(rounds + 1):
        counts, sums = cells(places, total, mean, a1)
        a2 = _rounded(second_term(counts, sums, mean, a1))
        if a2 > a1:  # the same four levels, the larger term first
            a1, a2 = a2, a1
            counts, sums = cells(places, total, mean, a1)
        error = _excess(counts, sums, mean, a1, a2, total)
        if error >= least:
            break
        least, best = error, (mean, a1, a2)
        if centred:
            mean = _rounded(centre(counts, sums, mean))
        n_inner, inner, n_outer, outer = _folded(counts, sums, mean)
        if n_inner > 0.0 and n_outer > 0.0:  # else a1 is open, and stays
            a1 = _rounded(abs(inner / n_inner + outer / n_outer) * 0.5)
    return best


@kernel()
def _within(value, room):
    """A bfloat16 of at most `room`, towards zero."""
    if value <= room:
        return value
    bits = np.int32(np.float32(room).view(np.int32))
    return np.float64(np.int32(bits & UPPER_HALF).view(np.float32))


@kernel()
def fit(x, size, rounds, first, second, mean):
    """Fill a1, a2 and, unless it is empty, the mean of every group: float32 that bfloat16 holds.

    rounds: how often the greedy terms are refined at most. False where x holds NaN or infinity.
    """
    centred = mean.size > 0
    buffer = np.empty(min(size, x.shape[1]), np.int32)
    for r in range(x.shape[0]):
        for j in range(first.shape[1]):
            group = x[r, j * size : min(j * size + size, x.shape[1])]
            largest = _largest_magnitude(group.view(np.uint32))
            if largest >= INFINITY:
                return False
            exponent = max(np.int64(largest) >> 23, 1) - 127
            unit = _power_of_two(exponent - PLACES)
            places = buffer[: group.size]
            total = _place(group, exponent, centred, places)
            m, a1, a2 = alternate(places, total, rounds, centred)
            m, a1, a2 = m * unit, a1 * unit, a2 * unit
            m = np.copysign(_within(abs(m), MOST), m)
            a1 = _within(a1, MOST - abs(m))
            first[r, j] = np.float32(a1)
            second[r, j] = np.float32(_within(a2, MOST - abs(m) - a1))
            if centred:
                mean[r, j] = np.float32(m)
    return True


@kernel()
def _code(value, low, middle, high):
    return np.uint8(np.uint8(value >= low) + np.uint8(value >= middle) + np.uint8(value >= high))


@kernel()
def _join(low, high, shift):
    return np.uint8(low | np.uint8(high << np.uint8(shift)))


@kernel()
def _pack(group, low, middle, high, packed):
    """The codes of one group into its bytes, four a byte."""
    whole = group.size // 4
    for k in range(whole):
        first = _code(group[4 * k], low, middle, high)
        second = _code(group[4 * k + 1], low, middle, high)
        third = _code(group[4 * k + 2], low, middle, high)
        fourth = _code(group[4 * k + 3], low, middle, high)
        packed[k] = _join(_join(first, second, 2), _join(third, fourth, 2), 4)
    if group.size % 4:
        byte = np.uint8(0)
        for i in range(group.size % 4):
            byte = _join(byte, _code(group[4 * whole + i], low, middle, high), 2 * i)
        packed[whole] = byte


@kernel()
def encode(x, size, first, second, mean, codes):
    """The nearest codes under the parameters that are given; a1 >= a2 >= 0."""
    for r in range(x.shape[0]):
        for j in range(first.shape[1]):
            start = j * size
            stop = min(start + size, x.shape[1])
            m = mean[r, j] if mean.size else np.float32(0)
            a1 = first[r, j]
            _pack(x[r, start:stop], m - a1, m, m + a1, codes[r, start // 4 : (stop + 3) // 4])


@kernel()
def _value(byte, index, mean, a1, a2):
    code = np.uint8(byte >> np.uint8(2 * index))
    centre = mean + a1 if code & np.uint8(2) else mean - a1
    return centre + a2 if code & np.uint8(1) else centre - a2


@kernel()
def _unpack(packed, mean, a1, a2, out):
    """The bytes of one group into its values."""
    whole = out.size // 4
    for k in range(whole):
        out[4 * k] = _value(packed[k], 0, mean, a1, a2)
        out[4 * k + 1] = _value(packed[k], 1, mean, a1, a2)
        out[4 * k + 2] = _value(packed[k], 2, mean, a1, a2)
        out[4 * k + 3] = _value(packed[k], 3, mean, a1, a2)
    for i in range(out.size % 4):
        out[4 * whole + i] = _value(packed[whole], i, mean, a1, a2)


@kernel()
def dequantize(codes, size, first, second, mean, out):
    """The values of the codes."""
    for r in range(out.shape[0]):
        for j in range(first.shape[1]):
            start = j * size
            stop = min(start + size, out.shape[1])
            m = mean[r, j] if mean.size else np.float32(0)
            packed = codes[r, start // 4 : (stop + 3) // 4]
            _unpack(packed, m, first[r, j], second[r, j], out[r, start:stop])
