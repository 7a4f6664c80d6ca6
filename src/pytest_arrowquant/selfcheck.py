"""Self-check: which of the known faults a tensor's own targets and guards would miss."""

from dataclasses import dataclass
from typing import Any

from .arrays import as_floating
from .case import ALIKE
from .examine import examine
from .expectation import Expectation
from .faults import TABLE
from .metrics import Deviation, deviation
from .row_blocks import RowBlocks
from .specimen import Specimen

ALIKE_ROWS = 1.1  # errors of a row that differ by less: a matter of how its weights fall


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The names of the faults that were injected, and of those that passed, as in the table."""

    injected: tuple[str, ...]
    missed: tuple[str, ...]


def selfcheck(
    name: str, reference: object, restored: Any, expectation: Expectation, inputs: object = None
) -> SelfCheck:
    """Break a restored tensor in every known way, and hold each to what it was held to itself.

    restored: a QuantizedTensor, a StoredWeight or an array, of the shape of the reference, that
    passed; faults of codes and parameters befall it only where it shows them. It is not changed.
    inputs: as of examine. Judged by its weights, a tensor is not broken by what leaves it as
    accurate as it was: its error to a hundredth, and that of every row to a tenth. Nothing is
    injected where float64 weights leave the range of float32, in which faults are. Raises what
    examine raises.
    """
    array = as_floating(reference, f"reference of {name!r}")
    if RowBlocks.of(array, array).exponent:
        return SelfCheck((), ())
    whole = Specimen.of(restored, expectation.bits)
    before = deviation(array, whole)
    injected, missed = [], []
    for fault in TABLE:
        broken = fault.inject(whole)
        if broken is None:
            continue
        if examine(name, array, broken, expectation, inputs, None).passed:
            if expectation.judge == "weights" and _as_accurate(before, deviation(array, broken)):
                continue
            missed.append(fault.name)
        injected.append(fault.name)
    return SelfCheck(tuple(injected), tuple(missed))


def _as_accurate(before: Deviation, after: Deviation) -> bool:
    """True where the error is no larger, nor that of any row."""
    alike = after.sums.error_energy <= ALIKE * before.sums.error_energy
    return alike and bool((after.row_sums[:, 2] <= ALIKE_ROWS * before.row_sums[:, 2]).all())
