"""What is found beyond a verdict: why tensors fail, and which faults would have passed."""

from typing import Any

from . import messages
from .examine import TensorResult
from .expectation import BOUNDS, Expectation
from .explain import Explanation, explain
from .record_parts import explanation_json, selfcheck_json
from .records import AccuracyRecord
from .selfcheck import SelfCheck, selfcheck

MOST_EXPLAINED = 3  # tensors; one that fails is mostly one of many


def _looks_broken(result: TensorResult, expectation: Expectation) -> bool:
    """False where a target asks for more and every guard holds, or where a problem says it all."""
    missed = {outcome.finding.metric for outcome in result.outcomes if not outcome.passed}
    return not result.problem and (bool(expectation.guards_off) or not missed <= {*BOUNDS})


class Findings:
    """Findings on the tensors of one record.

    checked: whether known faults are injected into what passes. explanations: of the first tensors
    that fail, by name; None where no cause is known.
    """

    def __init__(self, checked: bool) -> None:
        self.checked = checked
        self.explanations: dict[str, Explanation | None] = {}
        self.selfchecks: list[SelfCheck] = []

    def look_into(
        self,
        result: TensorResult,
        reference: object,
        restored: Any,
        expectation: Expectation,
        inputs: object,
        method: str | None = None,
    ) -> None:
        """Explain a tensor that fails; break one that passes."""
        if result.passed and self.checked:
            self.selfchecks.append(selfcheck(result.name, reference, restored, expectation, inputs))
        elif not result.passed and len(self.explanations) < MOST_EXPLAINED:
            found = explain(reference, restored, expectation, inputs=inputs, method=method)
            if found is not None or _looks_broken(result, expectation):
                self.explanations[result.name] = found

    def add_to(self, record: AccuracyRecord) -> None:
        """Put them into the record: the first cause as its explanation, the others as notes."""
        first = next((found for found in self.explanations.values() if found is not None), None)
        record.explanation = explanation_json(first) if first is not None else None
        record.notes += [
            f"{name}: {messages.cause(found)}"
            for name, found in self.explanations.items()
            if found is None or found is not first
        ]
        record.selfcheck = selfcheck_json(self.selfchecks)
