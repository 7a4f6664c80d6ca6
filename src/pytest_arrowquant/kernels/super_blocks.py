"""Scales and minima that are themselves quantized, in super-blocks of groups: the format.

A super-block has two steps and a whole offset; each of its groups has a scale code and a middle
code. The float32 grid of a group is

    scale   = scale_step * scale_code, and 2^-126 where that is less
    middle  = middle_step * (middle_code + offset)
    minimum = middle - (2^bits - 1) / 2 * (scale_step * scale_code)

Groups are counted along the rows; super-block b has those from starts[b] to starts[b + 1].
"""

import numpy as np

from ._jit import kernel

TINY = np.float32(2.0**-126)  # smallest normal float32: a smaller scale has no finite inverse


@kernel()
def pack(codes, bits, packed):
    """Fill `packed` with codes of `bits` bits, low bits first, without gaps."""
    packed[:] = 0
    for i in range(codes.size):
        byte, shift = (i * bits) >> 3, (i * bits) & 7
        word = np.int32(codes[i]) << np.int32(shift)
        packed[byte] |= np.uint8(word & np.int32(0xFF))
        if shift + bits > 8:
            packed[byte + 1] |= np.uint8(word >> np.int32(8))


@kernel()
def _code_at(packed, index, bits):
    """Code `index` of packed codes."""
    byte, shift = (index * bits) >> 3, (index * bits) & 7
    word = np.int32(packed[byte]) >> np.int32(shift)
    if shift + bits > 8:
        word |= np.int32(packed[byte + 1]) << np.int32(8 - shift)
    return np.float32(word & np.int32((1 << bits) - 1))


@kernel()
def expand(scale_codes, middle_codes, code_bits, steps, offsets, starts, bits, scale, minimum):
    """Fill the scale and minimum of every group from packed codes; steps are (blocks, 2)."""
    half = np.float32((1 << bits) - 1) * np.float32(0.5)
    for b in range(offsets.size):
        scale_step, middle_step, offset = steps[b, 0], steps[b, 1], np.float32(offsets[b])
        for k in range(starts[b], starts[b + 1]):
            s = scale_step * _code_at(scale_codes, k, code_bits)
            middle = middle_step * (_code_at(middle_codes, k, code_bits) + offset)
            scale[k] = max(s, TINY)
            minimum[k] = middle - half * s
