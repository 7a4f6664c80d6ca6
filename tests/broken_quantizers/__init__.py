"""Broken quantizers: each is the honest one with one mistake, and who is to see it.

`caught_by`: the names of the invariants and guards that describe the mistake, spaces between; each
of them sees it at every width of `seen_at`, or else of `bits`.
"""

from .claims import PROPERTIES, TYPES, WIDTHS
from .conduct import CONDUCT, REFUSALS
from .honest import HONEST, Honest
from .numbers import ROUNDING, ZERO_POINTS
from .places import PACKING, PLACES, RAGGED
from .scales import SCALES

ALL = (
    *ROUNDING,
    *ZERO_POINTS,
    *SCALES,
    *PACKING,
    *RAGGED,
    *PLACES,
    *WIDTHS,
    *TYPES,
    *PROPERTIES,
    *REFUSALS,
    *CONDUCT,
)
BROKEN: dict[str, type[Honest]] = {cls.name: cls for cls in ALL}

__all__ = ["ALL", "BROKEN", "HONEST", "REFUSALS", "Honest"]
