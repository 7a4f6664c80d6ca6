"""AccuracyRecord: what one check found, as plain Python values that survive any transport."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, Self

from .examine import TensorResult
from .expectation import Expectation
from .plain import Plain
from .record_parts import (
    energies_json,
    layers_json,
    metrics_json,
    pooled,
    target_notes,
    targets_json,
)
from .subject import Subject
from .targets import Verdict

SCHEMA = "arrowquant-accuracy"
SCHEMA_VERSION = 1
OF_OUTPUTS, OF_BOTH = ("output_cosine", "gain"), ("bias", "floor")  # where outputs are judged
STORED_AS = ("quantized", "plain", "missing")  # how an audited checkpoint holds a tensor
ORDER = (
    "nodeid", "attempt", "index", "name", "subject", "quantizer", "scheme", "stored_as",
    "optimizations", "recipe", "activations", "asserted", "metrics", "energies", "improvement",
    "layers", "targets", "passed", "explanation", "selfcheck", "notes", "timing",
)  # fmt: skip


@dataclass(slots=True)
class AccuracyRecord:
    """One check, in the fields of accuracy.json; every value is plain Python.

    nodeid, attempt and index say which test, which of its attempts and which of its checks.
    recipe, activations and improvement are of the suite's comparison of recipes, else None;
    asserted is False where no test fails on the record. stored_as is of an audit, else None: one
    of STORED_AS. energies: sums of squares that pool over records (`reference`, `restored`,
    `error`), None where nothing was measured. explanation: of a failure, what would mend its worst
    tensor (`fault`, `sentence`, `cosine_before`, `cosine_after`, `sqnr_db_before`,
    `sqnr_db_after`). selfcheck: of a run with --arrowquant-selfcheck, how many `tensors` were
    broken on purpose; by fault, in how many of them it was `injected` and `missed`.
    """

    name: str
    subject: Plain
    quantizer: Plain
    scheme: Plain
    metrics: Plain
    layers: Plain
    targets: list[Plain]
    passed: bool
    notes: list[str]
    optimizations: list[str] = field(default_factory=list)
    recipe: str | None = None
    activations: Plain | None = None
    asserted: bool = True
    improvement: Plain | None = None
    stored_as: str | None = None
    energies: Plain | None = None
    explanation: Plain | None = None
    selfcheck: Plain | None = None
    timing: Plain | None = None
    nodeid: str = ""
    attempt: int = 0
    index: int = 0

    def to_json(self) -> Plain:
        """The record as JSON holds it, in the order of the fields there; parts are not copied."""
        return {key: getattr(self, key) for key in ORDER}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The record of a JSON object; fields that older reports lack take their defaults."""
        return cls(**plain)


def record_of(
    name: str, subject: Subject, results: Sequence[TensorResult], expectation: Expectation
) -> AccuracyRecord:
    """The record of some tensors held to one expectation; quantizer and timing are the caller's."""
    metrics, notes = metrics_json(pooled(results))
    notes += [f"{result.name}: {result.problem}" for result in results if result.problem]
    notes += [
        f"guard {guard} left out: {reason}" for guard, reason in expectation.guards_off.items()
    ]
    verdict = Verdict.over(outcome for result in results for outcome in result.outcomes)
    if expectation.judge == "outputs":
        metrics_held = {outcome.finding.metric for outcome in verdict.outcomes}
        of_outputs = ", ".join(name for name in OF_OUTPUTS if name in metrics_held)
        of_both = ", ".join(name for name in OF_BOTH if name in metrics_held)
        also = f"; {of_both} the worse of there and in the weights" if of_both else ""
        notes.append(f"judged by outputs: {of_outputs} are of inputs @ weights.T{also}")
    notes += target_notes(verdict)
    dtypes = sorted({result.dtype for result in results})
    return AccuracyRecord(
        name=name,
        subject={
            **asdict(subject),
            "tensors": len(results),
            "parameters": sum(prod(result.shape) for result in results),
            "dtype": dtypes[0] if len(dtypes) == 1 else ", ".join(dtypes) or None,
        },
        quantizer={"name": None, "options": {}},
        scheme={},
        metrics=metrics,
        energies=energies_json(results),
        layers=layers_json(results),
        targets=targets_json(verdict),
        passed=verdict.passed and bool(results),
        notes=notes,
    )
