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

# Groups are restored in chunks of a literal length, for the reasons that encode.py gives.
CHUNK = 64


@kernel(inline=True)
def _unpack_int4(packed, pairs):
    """Each byte as two codes of a byte, one little-endian number."""
    for k in range(packed.size):
        byte = np.uint16(packed[k])
        pairs[k] = np.uint16(np.uint16(byte | np.uint16(byte << np.uint16(4))) & np.uint16(0x0F0F))


@kernel(inline=True)
def _unpack_int2(packed, fours):
    """Each byte as four codes of a byte, one little-endian number."""
    for k in range(packed.size):
        byte = np.uint32(packed[k])
        pairs = np.uint32(byte | np.uint32(byte << np.uint32(12)))
        fours[k] = np.uint32(
            np.uint32(pairs | np.uint32(pairs << np.uint32(6))) & np.uint32(0x03030303)
        )


@kernel(inline=True)
def _chunk_values(codes, start, count, scale, zero_point, minimum, out):
    for i in range(count):
        at = start + np.uint64(i)
        out[at] = (np.float32(codes[at]) - zero_point) * scale + minimum


@kernel(inline=True)
def _values(codes, start, stop, scale, zero_point, minimum, out):
    """Fill out[start:stop]."""
    for at in range(start, stop, CHUNK):
        if stop - at >= CHUNK:
            _chunk_values(codes, np.uint64(at), CHUNK, scale, zero_point, minimum, out)
        else:
            rest = min(stop - at, CHUNK)
            _chunk_values(codes, np.uint64(at), rest, scale, zero_point, minimum, out)


@kernel(inline=True)
def _dequantize_row(codes, size, scale, zero_point, minimum, r, buffer, pairs, fours, out, bits):
    """Row r of the values."""
    symmetric_zero = np.float32(0) if minimum.size else np.float32(1 << (bits - 1))
    if bits == 4:
        _unpack_int4(codes[r], pairs)
    elif bits == 2:
        _unpack_int2(codes[r], fours)
    unpacked = codes[r] if bits == 8 else buffer
    for j in range(scale.shape[1]):
        z = np.float32(zero_point[r, j]) if zero_point.size else symmetric_zero
        m = minimum[r, j] if minimum.size else np.float32(0)
        _values(unpacked, j * size, min(j * size + size, out.size), scale[r, j], z, m, out)


@kernel(reassociate=True)
def _deviate_row(reference, restored, sums):
    """The four sums of one row.

    The bits of a float64 without its sign order like an integer, whose maximum vectorises where
    that of floats does not.
    """
    reference_energy = 0.0
    restored_energy = 0.0
    error_energy = 0.0
    largest = np.int64(0)
    for i in range(reference.size):
        w = np.float64(reference[i])
        v = np.float64(restored[i])
        error = w - v
        reference_energy += w * w
        restored_energy += v * v
        error_energy += error * error
        largest = max(largest, np.int64(np.float64(error).view(np.int64) & MAGNITUDE))
    sums[0] = reference_energy
    sums[1] = restored_energy
    sums[2] = error_energy
    sums[3] = np.int64(largest).view(np.float64)


@kernel()
def deviate(reference, restored, sums):
    """The sums of two arrays of one dtype."""
    for r in range(reference.shape[0]):
        _deviate_row(reference[r], restored[r], sums[r])


@kernel(inline=True)
def _dequantize(codes, size, scale, zero_point, minimum, out, bits):
    buffer = np.empty(codes.shape[1] * 4, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    for r in range(out.shape[0]):
        _dequantize_row(
            codes, size, scale, zero_point, minimum, r, buffer, pairs, fours, out[r], bits
        )


@kernel(inline=True)
def _compare(reference, codes, size, scale, zero_point, minimum, sums, bits):
    """The sums of packed codes against the reference; only one row is ever restored."""
    buffer = np.empty(codes.shape[1] * 4, np.uint8)
    pairs, fours = buffer.view(np.uint16), buffer.view(np.uint32)
    row = np.empty(reference.shape[1], np.float32)
    for r in range(reference.shape[0]):
        _dequantize_row(codes, size, scale, zero_point, minimum, r, buffer, pairs, fours, row, bits)
        _deviate_row(reference[r], row, sums[r])


@kernel()
def dequantize_int2(codes, size, scale, zero_point, minimum, out):
    _dequantize(codes, size, scale, zero_point, minimum, out, 2)


@kernel()
def dequantize_int4(codes, size, scale, zero_point, minimum, out):
    _dequantize(codes, size, scale, zero_point, minimum, out, 4)


@kernel()
def dequantize_int8(codes, size, scale, zero_point, minimum, out):
    _dequantize(codes, size, scale, zero_point, minimum, out, 8)


@kernel()
def compare_int2(reference, codes, size, scale, zero_point, minimum, sums):
    _compare(reference, codes, size, scale, zero_point, minimum, sums, 2)


@kernel()
def compare_int4(reference, codes, size, scale, zero_point, minimum, sums):
    _compare(reference, codes, size, scale, zero_point, minimum, sums, 4)


@kernel()
def compare_int8(reference, codes, size, scale, zero_point, minimum, sums):
    _compare(reference, codes, size, scale, zero_point, minimum, sums, 8)


# A literal width lets LLVM unroll; one passed as a variable was measured 45 times slower.
DEQUANTIZE = {2: dequantize_int2, 4: dequantize_int4, 8: dequantize_int8}
COMPARE = {2: compare_int2, 4: compare_int4, 8: compare_int8}
