"""Guards: on by default, for the faults that a cosine cannot see.

Each is a function from one tensor's Case to a Finding, or None where it does not apply. The
evidence for every bound is the table in docs/guards.md. No case is of an empty tensor.
"""

from collections.abc import Callable

from ..case import Case, Finding
from .floors import ceiling, floor, row_sqnr_db
from .gains import bias, gain, row_gain
from .values import dead_columns, levels, order, rounding, strays

GUARDS: dict[str, Callable[[Case], Finding | None]] = {
    guard.__name__: guard
    for guard in (
        row_sqnr_db,
        gain,
        row_gain,
        bias,
        dead_columns,
        levels,
        rounding,
        strays,
        order,
        floor,
        ceiling,
    )
}

__all__ = ["GUARDS"]
