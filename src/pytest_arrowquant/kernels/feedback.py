"""GPTQ within a block of columns: each column rounded after it took over the errors before it.

    v_k = w_k + c_k + sum_{i < k} (w_i - q_i) * feedback[i, k],        q_k = nearest(v_k)

Arrays are transposed, (columns of the block, rows of the weight), so that the inner loops run over
rows, which are independent. c holds what the blocks before contribute.
"""

import numpy as np

from ._jit import kernel

ROWS = 128  # at a time: their errors stay in the cache closest to the core


@kernel()
def _take_over(value, errors, feedback, k):
    """value[r] += sum over earlier columns of error * feedback."""
    for i in range(k):
        share = feedback[i, k]
        earlier = errors[i]
        for r in range(value.size):
            value[r] += earlier[r] * share


@kernel()
def _round(value, w, scale, zero_point, minimum, lowest, highest, codes, error, loss, pivot):
    """Codes of one column; its errors against w, and pivot times the squared step to v."""
    for r in range(value.size):
        s = scale[r]
        z = zero_point[r]
        m = minimum[r]
        code = np.rint((np.float32(value[r]) - m) * (np.float32(1) / s)) + z
        code = code if code > lowest else lowest
        code = code if code < highest else highest
        restored = np.float64((code - z) * s + m)
        codes[r] = np.uint8(np.int32(code))
        error[r] = np.float64(w[r]) - restored
        step = value[r] - restored
        loss[r] += pivot * step * step


@kernel()
def sweep(
    w, carried, feedback, pivots, group_of, scale, zero_point, minimum, lowest, highest,
    codes, errors, loss,
):  # fmt: skip
    """Fill codes and errors of a block, and add to the loss of each row.

    w: float32, carried and errors: float64, codes: uint8, all (columns, rows). feedback: float64
    (columns, columns). scale, zero_point, minimum: float32 (groups, rows). loss: float64 (rows,).
    """
    value = np.empty(ROWS)
    for start in range(0, w.shape[1], ROWS):
        stop = min(start + ROWS, w.shape[1])
        v = value[: stop - start]
        for k in range(w.shape[0]):
            g = group_of[k]
            for r in range(v.size):
                v[r] = np.float64(w[k, start + r]) + carried[k, start + r]
            _take_over(v, errors[:k, start:stop], feedback, k)
            _round(
                v,
                w[k, start:stop],
                scale[g, start:stop],
                zero_point[g, start:stop],
                minimum[g, start:stop],
                lowest,
                highest,
                codes[k, start:stop],
                errors[k, start:stop],
                loss[start:stop],
                pivots[k],
            )
