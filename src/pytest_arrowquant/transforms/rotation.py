"""Rotation: a randomised Hadamard matrix over the input channels, which spreads outliers."""

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt, prod
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import SchemeError
from ..kernels import hadamard
from .basis import finite, rows_of, square_of

LARGEST_ORDER = 256  # of a matrix that is applied by rows and columns, not by halving


@dataclass(frozen=True, slots=True)
class Rotation:
    """T = diag(signs) H / sqrt(n): orthogonal, T^-T = T. Its entries are all as large.

    H is a Hadamard matrix of order n: Sylvester's of the largest power of two where the width is
    one; else the Kronecker product of Paley's of a small order and Sylvester's (768 = 12 x 64).
    Where there is none (widths that 4 does not divide, or 11008 = 43 x 256) H is block-diagonal,
    of blocks as long as the largest power of two in the width: an odd width is not mixed at all.

    seed: of the signs. Raises SchemeError for a width below 1.

    Source: Tseng et al. 2024 (QuIP#), section 3; Paley 1933.
    """

    channels: int
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            isinstance(self.channels, bool)
            or not isinstance(self.channels, int)
            or self.channels < 1
        ):
            raise SchemeError(f"channels={self.channels!r} is not a number of input channels")

    def weight(self, rows: Array) -> Array:
        """W diag(signs) H / sqrt(n). See Transform."""
        return self._forward(rows, "weight")

    def restore(self, rows: Array) -> Array:
        """W' H^T diag(signs) / sqrt(n). See Transform."""
        given = rows_of(rows, self.channels, "weight")
        return finite(self._hadamard(given.copy(), False) * self._signs(given), given, "weight")

    def inputs(self, tokens: Array) -> Array:
        """X diag(signs) H / sqrt(n). See Transform."""
        return self._forward(tokens, "inputs")

    def hessian(self, h: Array) -> Array:
        """T^T H T. See Transform."""
        given = square_of(h, self.channels)
        half = self._hadamard(given * self._signs(given), True)
        whole = self._hadamard(half.T * self._signs(given), True)
        return finite(whole, given, "hessian")

    @property
    def nbytes(self) -> int:
        """Bytes of the signs, a bit a channel."""
        return -(-self.channels // 8)

    @property
    def options(self) -> dict[str, Any]:
        """See Transform."""
        return {"transform": "rotation", "seed": self.seed, "block": prod(factors(self.channels))}

    def _forward(self, value: Array, name: str) -> Array:
        given = rows_of(value, self.channels, name)
        return finite(self._hadamard(given * self._signs(given), True), given, name)

    def _signs(self, like: Array) -> Array:
        return random_signs(self.channels, self.seed).astype(like.dtype)

    def _hadamard(self, rows: Array, forward: bool) -> Array:
        """rows H / sqrt(n), or rows H^T / sqrt(n); in place where the rows are C-contiguous."""
        order, power = factors(self.channels)
        matrix = paley(order).T if forward else paley(order)
        blocks = np.ascontiguousarray(rows).reshape(-1, order * power)
        factor = rows.dtype.type((order * power) ** -0.5)
        with np.errstate(over="ignore", invalid="ignore"):
            hadamard.transform(blocks, np.ascontiguousarray(matrix, rows.dtype), factor)
        return blocks.reshape(rows.shape)


@lru_cache
def random_signs(channels: int, seed: int) -> Array:
    """1 and -1 from a seed, the same on every machine: float64 (channels,)."""
    bits = np.random.SFC64(np.random.SeedSequence([seed, channels])).random_raw(channels)
    signs = np.where(bits >> np.uint64(63), -1.0, 1.0)
    signs.setflags(write=False)
    return signs


@lru_cache
def factors(channels: int) -> tuple[int, int]:
    """(order, power): H is Paley's matrix of the order by Sylvester's of the power of two.

    order is 1, or the smallest with which the two make up all channels; where no order does,
    power is the largest power of two in the channels.
    """
    power = channels & -channels
    odd = channels // power
    if odd == 1:
        return 1, power
    order = 4 * odd
    while channels % order == 0 and order <= LARGEST_ORDER:
        if _kind(order):
            return order, channels // order
        order *= 2
    return 1, power


@lru_cache
def paley(order: int) -> Array:
    """A Hadamard matrix: entries 1 and -1, M M^T = order; float64 (order, order).

    Where q = order - 1 is a prime of the form 4 k + 3, of Paley's first kind; where
    q = order / 2 - 1 is one of the form 4 k + 1, of his second.
    """
    if order == 1:
        return np.ones((1, 1))
    first = _kind(order) == 1
    q = order - 1 if first else order // 2 - 1
    border = np.ones(q)
    core = np.zeros((q + 1, q + 1))
    core[0, 1:], core[1:, 0] = border, -border if first else border
    core[1:, 1:] = _characters(q)
    if first:
        return core + np.eye(order)
    return np.kron(core, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])


def _characters(q: int) -> Array:
    """[i, j]: 1 where i - j is a square modulo q, -1 where not, 0 where it is 0."""
    squares = {i * i % q for i in range(1, q)}
    values = np.array([0.0, *(1.0 if i in squares else -1.0 for i in range(1, q))])
    matrix: Array = values[np.subtract.outer(np.arange(q), np.arange(q)) % q]
    return matrix


def _kind(order: int) -> int:
    """Which of Paley's constructions gives a matrix of this order: 1, 2, or 0 for neither."""
    if order % 4 == 0 and (order - 1) % 4 == 3 and _prime(order - 1):
        return 1
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _prime(order // 2 - 1):
        return 2
    return 0


def _prime(q: int) -> bool:
    return q > 1 and all(q % i for i in range(2, isqrt(q) + 1))
