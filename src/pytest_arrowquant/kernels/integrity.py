"""How the codes of a checkpoint use their range."""

import numpy as np

from ._jit import kernel


@kernel()
def _row_use(codes, lowest, highest):
    """(codes at either end of the range, the largest code); counted in integers, so vectorised."""
    ends = np.int32(0)
    largest = np.uint8(0)
    for i in range(codes.size):
        ends += np.int32((codes[i] <= lowest) | (codes[i] >= highest))
        largest = max(largest, codes[i])
    return ends, largest


@kernel()
def code_use(codes, lowest, highest, ends):
    """Fill ends[r] with the codes of row r at either end of the range; returns the largest code."""
    largest = np.uint8(0)
    for r in range(codes.shape[0]):
        ends[r], most = _row_use(codes[r], lowest, highest)
        largest = max(largest, most)
    return largest
