"""The Hessian of a layer made ready for GPTQ: damped, ordered, and factored once."""

from dataclasses import dataclass

import numpy as np

from .arrays import Array, first_non_finite
from .errors import TensorError

GIVE_UP = 1.0  # damping as large as the mean of the diagonal: there is no curvature left
RAISE = 4.0  # what damping is multiplied by where the factorization fails
ASYMMETRY = 1e-6
TILE = 256  # rows and columns that are compared with their mirror at a time


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """P (H + damping mean(diag H) I) P^T = (I + feedback) diag(pivots) (I + feedback)^T.

    On channels that are active, over which the mean is, too; the others have pivots of 0.

    feedback: float64 (channels, channels), strictly upper triangular. pivots: float64
    (channels,), what a unit error in each column costs once the later ones make up for it.
    order: int64 (channels,), the column that comes k-th (P). damping: a share of the mean of the
    diagonal, as large as it took. dead: how many channels never were anything but 0.

    Rounding column k of w + (w - q)[:k] @ feedback[:k, k] is GPTQ: the feedback of Chee et al. 2023
    (QuIP, theorem 6), which takes no inverse.
    """

    feedback: Array
    pivots: Array
    order: Array
    damping: float
    dead: int

    def scaled(self, scale: Array) -> "Factor":
        """The factor for inputs divided by `scale`, float (channels,), and weights times it.

        Exact but for rounding: a diagonal commutes with the factorization. The damping is that
        of the inputs as they were.
        """
        ordered = np.asarray(scale, np.float64)[self.order]
        feedback = self.feedback * (ordered / ordered[:, None])
        return Factor(feedback, self.pivots / ordered**2, self.order, self.damping, self.dead)


def factorize(hessian: Array, damping: float = 0.01, act_order: bool = True) -> Factor:
    """The factor of a symmetric positive semi-definite float64 matrix, (channels, channels).

    damping: share of the mean of the diagonal that is added to it; raised fourfold, up to 1, where
    the matrix is still not positive definite. act_order: columns by falling diagonal, so that the
    most active are rounded first (Frantar et al. 2022). A channel whose diagonal is 0 is dead:
    nothing depends on it, and it takes no part. Raises TensorError for any other matrix.
    """
    diagonal = _checked(hessian)
    live = diagonal > 0
    if not live.any():
        raise TensorError("the Hessian is 0: every calibration input is 0")
    unit = 2.0 ** np.floor(np.log2(diagonal[live].mean()))  # so that H and 2^k H are one
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(len(diagonal))
    last_first = order[::-1]
    share = damping
    while True:
        # The columns reversed: the lower factor of these is the upper one of those in order.
        work = hessian.take(last_first, axis=0).take(last_first, axis=1)
        work /= unit
        added = share * (diagonal[live].mean() / unit)
        work.reshape(-1)[:: len(work) + 1] += np.where(live[last_first], added, 1.0)
        try:
            # Transposed, for LAPACK takes columns: rows it would copy a cache line a value.
            upper = np.linalg.cholesky(work.T)[::-1, ::-1]
            break
        except np.linalg.LinAlgError:
            if share >= GIVE_UP:
                raise TensorError(
                    f"the Hessian is not positive definite, even with {share:g} of the mean of "
                    "its diagonal added; it must be X^T X of the layer's inputs"
                ) from None
            share = min(share * RAISE if share else 0.01, GIVE_UP)
    roots = upper.diagonal().copy()
    feedback = np.divide(upper, roots, out=work)
    feedback.reshape(-1)[:: len(work) + 1] = 0.0
    pivots = np.where(live[order], roots**2 * unit, 0.0)
    return Factor(feedback, pivots, order, share, int(np.count_nonzero(~live)))


def _checked(hessian: Array) -> Array:
    """The diagonal of what is a Hessian; TensorError for what is none."""
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1] or not hessian.size:
        raise TensorError(f"the Hessian has shape {hessian.shape}; expected (channels, channels)")
    diagonal = hessian.diagonal()
    if not np.isfinite(diagonal).all() or not np.isfinite(hessian).all():
        raise TensorError(f"the Hessian has {first_non_finite(hessian)}; it must be finite")
    lowest = int(np.argmin(diagonal))
    if diagonal[lowest] < 0:
        raise TensorError(
            f"the Hessian has {diagonal[lowest]:g} on its diagonal at {lowest}; a sum of squares "
            "is not negative"
        )
    tiles = [slice(start, start + TILE) for start in range(0, len(hessian), TILE)]
    gap = max(
        float(np.abs(hessian[rows, columns] - hessian[columns, rows].T).max())
        for index, rows in enumerate(tiles)
        for columns in tiles[index:]
    )
    if gap > ASYMMETRY * float(diagonal.max()):
        raise TensorError(f"the Hessian is not symmetric: entries differ by up to {gap:g}")
    return diagonal
