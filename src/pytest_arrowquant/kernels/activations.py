"""Activations there and back: the peak of each token, and rounding by a scale a token.

x is float32 (tokens, channels), C-contiguous.
"""

import numpy as np

from ._jit import kernel

SIGN_OFF = np.uint32(0x7FFFFFFF)


@kernel()
def peaks(x, out):
    """out[t] = max over c of |x[t, c]|, not finite where a value of the token is not."""
    bits, largest_bits = x.view(np.uint32), out.view(np.uint32)
    for t in range(bits.shape[0]):
        row = bits[t]
        largest = np.uint32(0)  # without their signs floats are ordered like integers
        for c in range(row.size):
            magnitude = row[c] & SIGN_OFF
            largest = magnitude if magnitude > largest else largest
        largest_bits[t] = largest


@kernel()
def fake_quantize(x, scale, highest, out):
    """out[t, c] = clip(rint(x[t, c] * (1 / s)), -highest, highest) * s with s = scale[t] > 0."""
    for t in range(x.shape[0]):
        row, rounded, s = x[t], out[t], scale[t]
        inverse = np.float32(1) / s
        for c in range(row.size):
            code = np.rint(row[c] * inverse)
            code = code if code > -highest else -highest
            code = code if code < highest else highest
            rounded[c] = code * s
