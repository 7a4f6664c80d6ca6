"""Explanation: which known fault, undone, would bring a failed tensor back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from .arrays import Array, as_floating
from .breaking import Change, every_row
from .examine import examine
from .expectation import Expectation
from .faults import FAULTS, TABLE, Fault
from .metrics import Sums, decibels, deviation
from .nearest import extents
from .patient import Patient, excess_db, rows_at
from .row_blocks import RowBlocks
from .specimen import Specimen
from .tracing import CLEARLY_DB, traces

Neighbours = Mapping[str, Callable[[], Array]]

SEEN_DB = 0.05  # better, of a mend that makes the tensor pass
COARSE_SEEN_DB = 1.0  # below 4 bits, where shrinking the honest gains some tenths
BACK = 0.95  # share of the rows that are as they should be, of one that does not
TRIED = 6  # of the best mends, on all rows
LEAST_PART = 16  # bad rows, such as the queries of a fused tensor, for a fault of theirs alone
MOST_NAMED = 8  # rows
MISPLACED = "another tensor"


@dataclass(frozen=True, slots=True)
class Quality:
    """SQNR in decibels and cosine; minus infinity and -1 where values are not finite."""

    sqnr_db: float
    cosine: float

    @classmethod
    def of(cls, row_sums: Array) -> "Quality":
        """Of the rows with these sums."""
        reference, restored, error = (float(part) for part in row_sums[:, :3].sum(axis=0))
        if not np.isfinite([restored, error]).all():
            return cls(-inf, -1.0)
        sums = Sums(reference_energy=reference, restored_energy=restored, error_energy=error)
        return cls(decibels(reference, error), sums.cosine)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The fault which, undone, brings a tensor back.

    rows: those that it is about, empty for all; before, after: of these rows alone. passes: whether
    the tensor would then meet what it is held to.
    """

    fault: str
    sentence: str
    rows: tuple[int, ...]
    before: Quality
    after: Quality
    passes: bool

    @property
    def text(self) -> str:
        """What a report says of it."""
        where = ""
        if self.rows:
            named = ", ".join(map(str, self.rows[:MOST_NAMED]))
            more = f" and {len(self.rows) - MOST_NAMED} more" if len(self.rows) > MOST_NAMED else ""
            where = f" (row{'s' if len(self.rows) > 1 else ''} {named}{more})"
        then = "would pass" if self.passes else "would still fail"
        return (
            f"{self.fault}{where}: {self.sentence}. Undone, it {then}: SQNR "
            f"{self.before.sqnr_db:.4g} -> {self.after.sqnr_db:.4g} dB, cosine "
            f"{self.before.cosine:.4g} -> {self.after.cosine:.4g}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """A mend that may bring a patient back. gain: decibels a row, summed over rows."""

    fault: str
    sentence: str
    change: Change
    rows: Array | None
    gain: float
    reference: Array


def explain(
    reference: object,
    broken: Any,
    expectation: Expectation,
    *,
    inputs: object = None,
    method: str | None = None,
    neighbours: Neighbours | None = None,
) -> Explanation | None:
    """The known fault that best explains why a tensor fails; None where no cause is known.

    broken: a QuantizedTensor, a StoredWeight or an array, of the shape of the reference; codes and
    parameters are mended where they are shown. expectation: what it is held to. method: the format
    or quantization method, for its own words. neighbours: loaders of other tensors' references, by
    name, which may be in this one's place.

    A mend counts if the tensor then passes, or if it gains CLEARLY_DB decibels or more and nearly
    all rows that it is about, and all that were bad, come within a few of round-to-nearest.
    """
    array = as_floating(reference, "reference")
    specimen = Specimen.of(broken, expectation.bits)
    if specimen.shape != array.shape or not array.size:
        return None
    if RowBlocks.of(array, array).exponent:  # out of the range of float32
        return None
    patient = Patient.of(RowBlocks.of(array, specimen))
    if not np.isfinite(patient.found.row_sums[:, 0]).all():
        return None
    fails = not _passes(array, specimen, expectation, inputs)
    found = sorted(suspicions(patient, method, neighbours or {}), key=lambda s: -round(s.gain, 6))
    for suspicion in found[:TRIED]:
        explanation = _confirmed(patient, suspicion, fails, expectation, inputs)
        if explanation is not None:
            return explanation
    return None


def suspicions(patient: Patient, method: str | None, neighbours: Neighbours) -> Iterator[Suspicion]:
    """Every mend that gains something on the rows looked at; of equals, the first is preferred."""
    tried = [(fault, detail, change) for fault in TABLE for detail, change in fault.mends.items()]
    for fault, detail, change in tried:
        if not fault.in_rows:
            yield from _suspected(patient, fault, detail, change, None, method)
    for trace in traces(patient):
        fault = FAULTS[trace.fault]
        yield from _suspected(patient, fault, "", trace.change, trace.rows, method)
    yield from _misplaced(patient, neighbours)
    bad = patient.bad
    few, many = 2 * bad.size <= len(patient.excess), bad.size >= LEAST_PART
    for fault, detail, change in tried:
        if bad.size and (few if fault.in_rows else many):
            yield from _suspected(patient, fault, detail, change, bad, method)


def _suspected(
    patient: Patient,
    fault: Fault,
    detail: str,
    change: Change,
    rows: Array | None,
    method: str | None,
) -> Iterator[Suspicion]:
    """The suspicion of a fault, if its mend applies and gains."""
    looked_at = np.ones(len(patient.rows), bool) if rows is None else np.isin(patient.rows, rows)
    some = patient.rows[looked_at]
    if not some.size or (part := change(patient.specimen, some)) is None:
        return
    gains = patient.excess[some] - patient.excess_of(part, some)
    if rows is not None and len(rows) == len(some):  # all were looked at: leave out what stays bad
        rows = np.sort(some[gains > CLEARLY_DB])
        gains = np.where(gains > CLEARLY_DB, gains, 0)
    gain = float((patient.weights[looked_at] * gains).sum())
    if gain > 0:
        said = fault.says(method) + (f" ({detail})" if detail else "")
        yield Suspicion(fault.name, said, change, rows, gain, patient.reference)


def _misplaced(patient: Patient, neighbours: Neighbours) -> Iterator[Suspicion]:
    """Other tensors whose reference is what was restored here."""
    restored = patient.specimen.take(patient.rows).restore()
    for name, load in neighbours.items():
        other = as_floating(load(), f"neighbour {name!r}")
        if other.shape != patient.reference.shape:
            continue
        rows = rows_at(other, patient.rows)
        excess = excess_db(
            deviation(rows, restored).row_sums, patient.kind.errors(rows, *extents(rows))
        )
        gain = float((patient.weights * (patient.excess[patient.rows] - excess)).sum())
        if gain > 0:
            said = f"these are the values of {name}"
            yield Suspicion(MISPLACED, said, Specimen.take, None, gain, other)


def _confirmed(
    patient: Patient, suspicion: Suspicion, fails: bool, expectation: Expectation, inputs: object
) -> Explanation | None:
    """The explanation, if the mend of all rows brings the tensor back."""
    every = every_row(patient.specimen)
    rows = every if suspicion.rows is None else suspicion.rows
    mended = suspicion.change(patient.specimen, rows)
    assert mended is not None
    if suspicion.rows is not None:
        mended = patient.specimen.patched(rows, mended)
    row_sums = deviation(suspicion.reference, mended).row_sums
    allowed = patient.allowed
    if suspicion.reference is not patient.reference:
        allowed = Patient.of(RowBlocks.of(suspicion.reference, mended)).allowed
    excess = excess_db(row_sums, allowed)
    better = float((patient.excess - excess)[rows].mean())
    concerned = np.union1d(rows, patient.bad)
    back = float((excess[concerned] <= patient.near).mean())
    seen = SEEN_DB if patient.fine else COARSE_SEEN_DB
    passes = better > seen and _passes(suspicion.reference, mended, expectation, inputs)
    if not (fails and passes) and not (better >= CLEARLY_DB and back >= BACK):
        return None
    return Explanation(
        suspicion.fault,
        suspicion.sentence,
        () if suspicion.rows is None else tuple(map(int, rows)),
        Quality.of(patient.found.row_sums[rows]),
        Quality.of(row_sums[rows]),
        passes,
    )


def _passes(reference: Array, specimen: Specimen, expectation: Expectation, inputs: object) -> bool:
    return examine("weight", reference, specimen, expectation, inputs, None).passed
