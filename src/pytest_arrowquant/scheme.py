"""How floats become integers, and the only place that turns a tensor into rows and groups."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

from .errors import SchemeError
from .vocabulary import WIDTHS

Zero = Literal["none", "integer", "float"]
GroupSize = int | Literal["channel", "tensor"]

GROUP_SIZE_STEP = 4  # so that at every width a group starts on a byte


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """A tensor as rows (output channels: the first axis) of columns; vectors are one row."""
    if len(shape) < 2:
        return 1, prod(shape)
    return shape[0], prod(shape[1:])


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the codes and the groups of one tensor lie: rows of `groups` runs of `group_size`."""

    rows: int
    columns: int
    group_size: int
    groups: int
    row_bytes: int
    parameter_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Width, kind of zero, and which weights share a scale.

    bits: 2, 4 or 8. zero: "none" (symmetric), "integer" (a stored zero point) or "float" (a
    stored minimum). group_size: a number of weights along a row, "channel" for a whole row or
    "tensor" for all. Raises SchemeError for anything else.
    """

    bits: int
    zero: Zero = "none"
    group_size: GroupSize = 64

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in WIDTHS:
            raise SchemeError(f"bits={self.bits!r} is not one of 2, 4, 8")
        if self.zero not in get_args(Zero):
            raise SchemeError(f"zero={self.zero!r} is not one of 'none', 'integer', 'float'")
        size = self.group_size
        if size in ("channel", "tensor"):
            return
        if (
            isinstance(size, bool)
            or not isinstance(size, int)
            or size < 1
            or size % GROUP_SIZE_STEP
        ):
            raise SchemeError(
                f"group_size={size!r} is neither a positive multiple of {GROUP_SIZE_STEP} "
                "nor 'channel' nor 'tensor'"
            )

    @property
    def symmetric(self) -> bool:
        """True where zero is stored nowhere because it lies in the middle."""
        return self.zero == "none"

    @property
    def lowest_code(self) -> int:
        """The smallest code in use: symmetric codes of 4 and 8 bits are ±(2^(bits - 1) - 1)."""
        return int(self.symmetric and self.bits > 2)

    def grouped(self, rows: Any) -> tuple[Any, int]:
        """(rows, group size) as kernels cut them: per tensor, all rows are one group."""
        if self.group_size == "tensor" and rows.size:
            return rows.reshape(1, -1), rows.size
        return rows, self.layout(rows.shape).group_size

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """How a tensor of this shape is cut into groups and packed; the last group is ragged."""
        rows, columns = rows_and_columns(shape)
        size = self.group_size if isinstance(self.group_size, int) else max(columns, 1)
        groups = -(-columns // size)
        parameter_shape = (
            (min(rows, 1), min(groups, 1)) if self.group_size == "tensor" else (rows, groups)
        )
        return Layout(rows, columns, size, groups, -(-columns * self.bits // 8), parameter_shape)
