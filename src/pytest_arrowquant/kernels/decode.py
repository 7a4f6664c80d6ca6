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


@kernel()
def _value(byte, index, bits, scale, zero_point, minimum):
    """The value of code `index` in a byte."""
    code = np.uint8(np.uint8(byte >> np.uint8(index * bits)) & np.uint8((1 << bits) - 1))
    return (np.float32(code) - zero_point) * scale + minimum


@kernel()
def _unpack(packed, scale, zero_point, minimum, out, bits):
    """The bytes of one group into its values; `bits` is constant, so the inner loop unrolls."""
    per_byte = 8 // bits
    whole = out.size // per_byte
    if bits == 8:
        for k in range(whole):
            out[k] = _value(packed[k], 0, 8, scale, zero_point, minimum)
    elif bits == 4:
        for k in range(whole):
            out[2 * k] = _value(packed[k], 0, 4, scale, zero_point, minimum)
            out[2 * k + 1] = _value(packed[k], 1, 4, scale, zero_point, minimum)
    else:
        for k in range(whole):
            out[4 * k] = _value(packed[k], 0, 2, scale, zero_point, minimum)
            out[4 * k + 1] = _value(packed[k], 1, 2, scale, zero_point, minimum)
            out[4 * k + 2] = _value(packed[k], 2, 2, scale, zero_point, minimum)
            out[4 * k + 3] = _value(packed[k], 3, 2, scale, zero_point, minimum)
    for i in range(out.size - whole * per_byte):
        out[whole * per_byte + i] = _value(packed[whole], i, bits, scale, zero_point, minimum)


@kernel()
def _dequantize_row(codes, size, scale, zero_point, minimum, r, out, bits):
    """Row r of the values."""
    symmetric_zero = np.float32(0) if minimum.size else np.float32(1 << (bits - 1))
    for j in range(scale.shape[1]):
        start = j * size
        stop = min(start + size, out.size)
        z = np.float32(zero_point[r, j]) if zero_point.size else symmetric_zero
        m = minimum[r, j] if minimum.size else np.float32(0)
        packed = codes[r, start * bits // 8 : (stop * bits + 7) // 8]
        _unpack(packed, scale[r, j], z, m, out[start:stop], bits)


@kernel()
def _largest_error(reference, restored):
    """max |w - restored|: the bits of a float64 without its sign order like an integer,
    whose maximum vectorises where that of floats does not."""
    largest = np.int64(0)
    for i in range(reference.size):
        error = np.float64(reference[i]) - np.float64(restored[i])
        largest = max(largest, np.int64(np.float64(error).view(np.int64) & MAGNITUDE))
    return np.int64(largest).view(np.float64)


@kernel(reassociate=True)
def _deviate_row(reference, restored, sums):
    """The four sums of one row."""
    reference_energy = 0.0
    restored_energy = 0.0
    error_energy = 0.0
    for i in range(reference.size):
        w = np.float64(reference[i])
        v = np.float64(restored[i])
        reference_energy += w * w
        restored_energy += v * v
        error_energy += (w - v) * (w - v)
    sums[0] = reference_energy
    sums[1] = restored_energy
    sums[2] = error_energy
    sums[3] = _largest_error(reference, restored)


@kernel()
def deviate(reference, restored, sums):
    """The sums of two arrays of one dtype."""
    for r in range(reference.shape[0]):
        _deviate_row(reference[r], restored[r], sums[r])


@kernel()
def _dequantize(codes, size, scale, zero_point, minimum, out, bits):
    for r in range(out.shape[0]):
        _dequantize_row(codes, size, scale, zero_point, minimum, r, out[r], bits)


@kernel()
def _compare(reference, codes, size, scale, zero_point, minimum, sums, bits):
    """The sums of packed codes against the reference; only one row is ever restored."""
    row = np.empty(reference.shape[1], np.float32)
    for r in range(reference.shape[0]):
        _dequantize_row(codes, size, scale, zero_point, minimum, r, row, bits)
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
