"""Products of a weight with what was restored of it, to find scales of rows and columns."""

import numpy as np

from ._jit import kernel


@kernel()
def products_by_column(weight, restored, row_scale, cross, energy):
    """cross[j] += sum_i a_i w_ij r_ij and energy[j] += sum_i (a_i w_ij)^2."""
    for r in range(weight.shape[0]):
        w, back, a = weight[r], restored[r], row_scale[r]
        for j in range(w.size):
            scaled = a * np.float64(w[j])
            cross[j] += scaled * np.float64(back[j])
            energy[j] += scaled * scaled


@kernel(reassociate=True)
def _row_products(w, back, column_scale):
    cross = 0.0
    energy = 0.0
    restored = 0.0
    for j in range(w.size):
        scaled = column_scale[j] * np.float64(w[j])
        cross += scaled * np.float64(back[j])
        energy += scaled * scaled
        restored += np.float64(back[j]) * np.float64(back[j])
    return cross, energy, restored


@kernel()
def products_by_row(weight, restored, column_scale, sums):
    """sums[i] = sum_j b_j w_ij r_ij, sum_j (b_j w_ij)^2, sum_j r_ij^2."""
    for r in range(weight.shape[0]):
        sums[r, 0], sums[r, 1], sums[r, 2] = _row_products(weight[r], restored[r], column_scale)
