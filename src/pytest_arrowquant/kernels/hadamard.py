"""The Hadamard transform of rows, in place: float32 or float64."""

import numpy as np

from ._jit import kernel


@kernel()
def _walsh(block):
    """block = H block for H of a power of two: H_2n = [[H_n, H_n], [H_n, -H_n]], H_1 = 1."""
    half = 1
    while half < block.size:
        for start in range(0, block.size, 2 * half):
            low, high = block[start : start + half], block[start + half : start + 2 * half]
            for i in range(half):
                a, b = low[i], high[i]
                low[i] = a + b
                high[i] = a - b
        half *= 2


@kernel()
def _mix(blocks, mixing, scratch):
    """blocks[k] = sum over l of mixing[k, l] blocks[l]; the entries of mixing are 1 and -1."""
    scratch[:] = blocks
    for k in range(mixing.shape[0]):
        mixed = blocks[k]
        mixed[:] = 0
        for j in range(mixing.shape[1]):
            sign, block = mixing[k, j], scratch[j]
            for i in range(block.size):
                mixed[i] += sign * block[i]


@kernel()
def transform(rows, mixing, factor):
    """rows[r] = factor (mixing x H) rows[r], the Kronecker product of the two.

    mixing and factor are of the type of the rows; H is as long as what remains of a row.
    """
    order = mixing.shape[0]
    scratch = np.empty((order, rows.shape[1] // order), rows.dtype)
    for r in range(rows.shape[0]):
        row = rows[r]
        for i in range(row.size):
            row[i] *= factor  # first, so that the sums stay as small as the result
        blocks = row.reshape(scratch.shape)
        for k in range(order):
            _walsh(blocks[k])
        if order > 1:
            _mix(blocks, mixing, scratch)
