"""One pair of tensors judged: equal, as accurate as its width allows, or not, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Any

import numpy as np

from ..arrays import first_non_finite
from ..case import Finding
from ..checkpoints import StoredTensor
from ..checkpoints.pairing import Pair
from ..checkpoints.weight import StoredWeight
from ..errors import CheckpointError
from ..examine import TensorResult, examine
from ..expectation import Expectation, bounds_of_width, expect
from ..explain import Explanation
from ..metrics import Sums
from ..row_blocks import AT_A_TIME
from ..scheme import rows_and_columns
from ..targets import Outcome, incomplete
from .equality import unequal
from .explaining import Explainer
from .folds import Folds
from .integrity import Inspected
from .views import loaded, reference_of

SOURCE = "--arrowquant-quantized"
UNQUANTIZED, UNREADABLE = Expectation(kind="unquantized"), Expectation(kind="unread")
Bounds = Mapping[int, Mapping[str, float]]


@dataclass(slots=True)
class Judged:
    """A pair's result, the weight it is of where one could be read, and what a record adds."""

    result: TensorResult
    expectation: Expectation = UNQUANTIZED
    weight: StoredWeight | None = None
    notes: list[str] = field(default_factory=list)
    explanation: Explanation | None = None
    folded: bool = False

    @property
    def checkable(self) -> bool:
        """True for a quantized weight that passed as it is: faults of it can be told from it."""
        measured = self.weight is not None and self.result.sums.weights > 0
        return measured and self.result.passed and not self.folded


def judge(
    pair: Pair, folds: Folds, explainer: Explainer, marker: Mapping[str, Any], project: Bounds
) -> Judged:
    """What one pair is worth."""
    if pair.entry is None or (pair.original is None and pair.problem):
        return Judged(_incomplete(pair, pair.problem), UNREADABLE, notes=list(pair.notes))
    if pair.entry.plain is not None:
        judged = _plain(pair, pair.entry.plain, folds)
    else:
        try:
            weight = loaded(pair)
        except CheckpointError as error:
            return Judged(_incomplete(pair, str(error)), UNREADABLE, notes=list(pair.notes))
        expectation = expectation_of(weight.grid.bits, marker, project)
        judged = _quantized(pair, weight, folds, expectation)
        if pair.original is not None and not judged.result.passed:
            judged.explanation = explainer.explain(pair, weight, expectation, judged.notes)
    judged.notes[:0] = pair.notes
    if pair.problem:
        judged.result = _with(judged.result, incomplete(pair.problem))
    return judged


def expectation_of(bits: int, marker: Mapping[str, Any], project: Bounds) -> Expectation:
    """What a weight of this width is held to."""
    call = {"bits": bits, **bounds_of_width(bits, project)}
    return expect(call, marker, project, None, SOURCE)


def _plain(pair: Pair, stored: StoredTensor, folds: Folds) -> Judged:
    """A tensor that is not quantized: the original's values, or what a fold made of them."""
    if pair.original is None:
        return Judged(_unmeasured(pair, stored.shape, stored.stored_bytes, _finite(stored)))
    finding, notes = unequal(pair, stored), []
    if not finding.passed and (name := folds.folded_into(pair)):
        notes.append(f"divided by the scale that is folded into the columns of {name}")
        finding = replace(finding, value=0, where=f"but for the scale folded into {name}")
    return Judged(
        _unmeasured(pair, pair.original.shape, stored.stored_bytes, [finding]), notes=notes
    )


def _quantized(pair: Pair, weight: StoredWeight, folds: Folds, expectation: Expectation) -> Judged:
    """A quantized weight against its original, or by itself where there is none."""
    inspected = Inspected(weight)
    if pair.original is None:
        result = _by_itself(pair, inspected)
        return Judged(_with(result, *inspected.findings(alone=True)), expectation, weight)
    reference = reference_of(pair, weight.shape)
    result = examine(pair.name, reference, inspected, expectation, None, None)
    notes: list[str] = []
    fold = None if result.passed or result.problem else folds.of(pair)
    if fold is not None and (fold.in_rows or fold.in_columns):
        unfolded, lost = folds.undone(pair, weight, fold)
        again = examine(pair.name, reference, unfolded, expectation, None, weight.nbytes)
        if again.passed and lost:
            where = f"its {lost} carry a scale, and nothing in the layer takes it up"
            result = _with(result, Finding("folded", "<=", 0, 1, where))
        elif again.passed:
            result = again
            notes.append(f"judged after unfolding: {unfolded.text}")
    findings = inspected.findings(alone=False)
    return Judged(_with(result, *findings), expectation, weight, notes, folded=bool(notes))


def _by_itself(pair: Pair, weight: StoredWeight) -> TensorResult:
    """A weight without its original: all of it read, and found finite or not."""
    rows, columns = rows_and_columns(weight.shape)
    step = max(1, AT_A_TIME // max(columns, 1))
    where = ""
    for start in range(0, rows, step):
        values = weight.restore(start, min(start + step, rows))
        if not where and not np.isfinite(values).all():
            where = f"restored has {first_non_finite(values)} of the rows from {start} on"
    finding = incomplete(where) if where else Finding("complete", "<=", 0, 0)
    return _unmeasured(pair, weight.shape, weight.nbytes, [finding])


def _finite(stored: StoredTensor) -> list[Finding]:
    """That a plain tensor is finite; nothing can be said of whole numbers."""
    if stored.stored_dtype not in ("F64", "F32", "F16", "BF16"):
        return [Finding("complete", "<=", 0, 0)]
    values = stored.array
    if np.isfinite(values).all():
        return [Finding("complete", "<=", 0, 0)]
    return [incomplete(f"it has {first_non_finite(values)}")]


def _with(result: TensorResult, *findings: Finding) -> TensorResult:
    """The result with more findings on the same tensor."""
    more = tuple(Outcome(finding, result.name) for finding in findings)
    return replace(result, outcomes=(*result.outcomes, *more))


def _unmeasured(
    pair: Pair, shape: tuple[int, ...], nbytes: int, findings: list[Finding]
) -> TensorResult:
    """A result of findings alone: nothing was measured against an original."""
    dtype = pair.original.array.dtype.name if pair.original else "unknown"
    size = pair.original.stored_bytes if pair.original else 0
    outcomes = tuple(Outcome(finding, pair.name) for finding in findings)
    return TensorResult(
        pair.name, shape, dtype, Sums(original_bytes=size), None, 1.0, inf, nbytes, outcomes, ()
    )


def _incomplete(pair: Pair, problem: str) -> TensorResult:
    """A pair of which one side is missing or unreadable."""
    shape = pair.original.shape if pair.original else ()
    dtype = pair.original.array.dtype.name if pair.original else "unknown"
    sums = Sums(
        weights=prod(shape), original_bytes=pair.original.stored_bytes if pair.original else 0
    )
    outcome = Outcome(incomplete(problem), pair.name)
    return TensorResult(
        pair.name, shape, dtype, sums, None, -1.0, -inf, None, (outcome,), (), problem
    )
