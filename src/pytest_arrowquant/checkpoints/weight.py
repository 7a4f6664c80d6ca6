"""A quantized weight of a checkpoint: restored a block of rows at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..arrays import Array
from ..codes import Codes, Grid
from ..scheme import rows_and_columns


class StoredWeight(Protocol):
    """A weight as a checkpoint holds it, of the shape that it had before it was quantized.

    Its rows are those of scheme.rows_and_columns(shape).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, in, ...] of the restored weight."""

    @property
    def grid(self) -> Grid:
        """The width that the checkpoint declares, and the kind of grid."""

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales, zeros and whatever else is needed to restore it."""

    def codes(self, start: int, stop: int) -> Codes | None:
        """Codes and parameters of rows start to stop; None where a library restores the values."""

    def restore(self, start: int, stop: int) -> Array:
        """The values of rows start to stop, float32 (rows, columns)."""

    def dequantize(self) -> Array:
        """All values, float32 in `shape`."""


class InBlocks:
    """What every StoredWeight does in the same way: all of it is its blocks of rows."""

    __slots__ = ()

    def dequantize(self: StoredWeight) -> Array:
        """See StoredWeight."""
        return self.restore(0, rows_and_columns(self.shape)[0]).reshape(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class CodedWeight(InBlocks):
    """A StoredWeight that a format reads as Codes. `read(start, stop)` gives those of some rows."""

    shape: tuple[int, ...]
    grid: Grid
    nbytes: int
    read: Callable[[int, int], Codes]

    def codes(self, start: int, stop: int) -> Codes:
        """See StoredWeight."""
        return self.read(start, stop)

    def restore(self, start: int, stop: int) -> Array:
        """See StoredWeight."""
        return self.read(start, stop).restore()


@dataclass(frozen=True, slots=True, eq=False)
class RestoredWeight(InBlocks):
    """A StoredWeight that a library restores; its codes are not seen."""

    shape: tuple[int, ...]
    grid: Grid
    nbytes: int
    read: Callable[[int, int], Array]

    def codes(self, start: int, stop: int) -> None:
        """None."""

    def restore(self, start: int, stop: int) -> Array:
        """See StoredWeight."""
        return self.read(start, stop)
