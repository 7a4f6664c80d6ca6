"""From one code a byte to values, under the parameters of any format.

    restored = (v - zero) * scale + minimum,   v = table[code], or the code itself

Parameters are float32 (rows, groups); `zero` and `minimum` may be empty. A column's group is
column // size, or order[column] where that is given.
"""

import numpy as np

from ._jit import kernel


@kernel()
def _restore_group(codes, zero, scale, minimum, out):
    for i in range(out.size):
        out[i] = (np.float32(codes[i]) - zero) * scale + minimum


@kernel()
def _look_up_group(codes, table, zero, scale, minimum, out):
    for i in range(out.size):
        out[i] = (table[codes[i]] - zero) * scale + minimum


@kernel()
def _restore_ordered(codes, table, order, zero, scale, minimum, out):
    """A row whose columns belong to groups in any order."""
    for i in range(out.size):
        j = order[i]
        z = zero[j] if zero.size else np.float32(0)
        m = minimum[j] if minimum.size else np.float32(0)
        v = table[codes[i]] if table.size else np.float32(codes[i])
        out[i] = (v - z) * scale[j] + m


@kernel()
def restore(codes, table, order, size, zero, scale, minimum, out):
    for r in range(out.shape[0]):
        if order.size:
            z = zero[r] if zero.size else zero.reshape(-1)
            m = minimum[r] if minimum.size else minimum.reshape(-1)
            _restore_ordered(codes[r], table, order, z, scale[r], m, out[r])
            continue
        for j in range(scale.shape[1]):
            start = j * size
            stop = min(start + size, out.shape[1])
            zj = zero[r, j] if zero.size else np.float32(0)
            mj = minimum[r, j] if minimum.size else np.float32(0)
            if table.size:
                _look_up_group(codes[r, start:stop], table, zj, scale[r, j], mj, out[r, start:stop])
            else:
                _restore_group(codes[r, start:stop], zj, scale[r, j], mj, out[r, start:stop])
