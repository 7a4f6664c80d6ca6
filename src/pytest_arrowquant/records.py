"""AccuracyRecord: what one check found, as plain Python values that survive any transport."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from math import isfinite, prod
from statistics import fmean, pstdev
from typing import Any, Self

from .examine import TensorResult
from .expectation import Expectation
from .metrics import Metrics, Sums
from .scheme import Scheme
from .subject import Subject
from .targets import Verdict

SCHEMA = "arrowquant-accuracy"
SCHEMA_VERSION = 1
WORST_LAYERS = 5
OF_OUTPUTS = ("output_cosine", "gain", "bias", "floor")  # where outputs are judged
STORED_AS = ("quantized", "plain", "missing")  # how an audited checkpoint holds a tensor
LEAVES = frozenset((str, int, bool, type(None)))
ORDER = (
    "nodeid", "attempt", "index", "name", "subject", "quantizer", "scheme", "stored_as",
    "optimizations", "recipe", "activations", "asserted", "metrics", "energies", "improvement",
    "layers", "targets", "passed", "explanation", "notes", "timing",
)  # fmt: skip

Plain = dict[str, Any]


@dataclass(slots=True)
class AccuracyRecord:
    """One check, in the fields of accuracy.json; every value is plain Python.

    nodeid, attempt and index say which test, which of its attempts and which of its checks.
    recipe, activations and improvement are of the suite's comparison of recipes, else None;
    asserted is False where no test fails on the record. stored_as is of an audit, else None: one
    of STORED_AS. energies: sums of squares that pool over records (`reference`, `restored`,
    `error`), None where nothing was measured. explanation: of an audit's failure, what would mend
    it (`fault`, `sentence`, `cosine_before`, `cosine_after`, `sqnr_db_before`, `sqnr_db_after`).
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


def require_plain(value: object, path: str) -> None:
    """Raise TypeError unless `value` is JSON of exact built-in types: a numpy scalar is not.

    A numpy float in a report breaks the transport between processes, and once turned a failing
    run green there; so it is refused where it is made, inside the test.
    """
    if not _is_plain(value):
        _refuse(value, path)


def _is_plain(value: Any) -> bool:
    """The answer alone, without the place: every record is asked, few are refused."""
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return kind in LEAVES or (kind is list and all(map(_is_plain, value)))


def _refuse(value: object, path: str) -> None:
    """Raise TypeError for the first part of `value` that is not plain, with its place."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _refuse(key, f"a key of {path}")
            _refuse(entry, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _refuse(entry, f"{path}[{index}]")
    elif type(value) not in (*LEAVES, float):
        raise TypeError(
            f"{path} is a {type(value).__module__}.{type(value).__name__}, not plain JSON"
        )
    elif isinstance(value, float) and not isfinite(value):
        raise TypeError(f"{path} is {value}; JSON has no such number")


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return value if value is not None and isfinite(value) else None


def metrics_json(metrics: Metrics) -> tuple[Plain, list[str]]:
    """The metrics with null for what is infinite, and a note on each such value."""
    values = asdict(metrics)
    notes = [
        f"{name} is null: its value is {value}"
        for name, value in values.items()
        if value is not None and not isfinite(value)
    ]
    return {name: finite(value) for name, value in values.items()}, notes


def target_notes(verdict: Verdict) -> list[str]:
    """A note on each target whose value is null."""
    return [
        f"target {outcome.finding.metric} has no value: it is {outcome.finding.value}"
        for outcome in verdict.outcomes
        if not isfinite(outcome.finding.value)
    ]


def targets_json(verdict: Verdict) -> list[Plain]:
    """The entries of `targets`: each bound with the tensor that comes nearest to missing it."""
    return [
        {
            "metric": outcome.finding.metric,
            "op": outcome.finding.op,
            "bound": outcome.finding.bound,
            "value": finite(outcome.finding.value),
            "margin": finite(outcome.finding.margin),
            "tensor": outcome.tensor,
            "where": outcome.finding.where,
            "passed": outcome.passed,
        }
        for outcome in verdict.outcomes
    ]


def pooled(results: Sequence[TensorResult]) -> Metrics:
    """The metrics of all tensors together; none where one of them is not whole.

    Outputs of different layers have no common unit: there, every layer counts alike.
    """
    if any(result.problem for result in results) or not results:
        return Metrics()
    sizes = [result.nbytes for result in results]
    if not any(result.sums.weights for result in results):
        return _sizes(results)
    outputs = [result.outputs for result in results if result.outputs]
    if len(results) > 1:
        outputs = [part.of_unit_energy() for part in outputs]
    return Metrics.of(
        sum((result.sums for result in results), Sums()),
        min(result.row_cosine_min for result in results),
        min(result.row_sqnr_db_min for result in results),
        None if None in sizes else sum(size or 0 for size in sizes),
        sum(outputs, Sums()) if len(outputs) == len(results) else None,
    )


def _sizes(results: Sequence[TensorResult]) -> Metrics:
    """What is known of tensors that were not measured against an original, or were equal to it."""
    weights = sum(prod(result.shape) for result in results)
    original = sum(result.sums.original_bytes for result in results)
    stored = sum(result.nbytes or 0 for result in results)
    return Metrics(
        original_bytes=original or None,
        stored_bytes=stored,
        bits_per_weight=stored * 8 / weights if weights else None,
        compression_ratio=original / stored if original and stored else None,
    )


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
        of_outputs = [name for name in OF_OUTPUTS if name in metrics_held]
        notes.append(f"judged by outputs: {', '.join(of_outputs)} are of inputs @ weights.T")
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
        energies=_energies(results),
        layers=_layers(results),
        targets=targets_json(verdict),
        passed=verdict.passed and bool(results),
        notes=notes,
    )


def _energies(results: Sequence[TensorResult]) -> Plain | None:
    """The sums of squares of all tensors together; None where one has not been measured."""
    if not all(result.sums.weights and not result.problem for result in results) or not results:
        return None
    sums = sum((result.sums for result in results), Sums())
    return {
        "reference": sums.reference_energy,
        "restored": sums.restored_energy,
        "error": sums.error_energy,
    }


def _layers(results: Sequence[TensorResult]) -> Plain:
    """How cosine spreads over the tensors, and the worst of them."""
    whole = [result for result in results if not result.problem and result.sums.weights]
    cosines = [result.sums.cosine for result in whole]
    worst = sorted(whole, key=lambda result: result.sums.cosine)[:WORST_LAYERS]
    return {
        "count": len(results),
        "cosine_min": min(cosines, default=None),
        "cosine_max": max(cosines, default=None),
        "cosine_mean": fmean(cosines) if cosines else None,
        "cosine_std": pstdev(cosines) if cosines else None,
        "worst": [
            {
                "name": result.name,
                "shape": list(result.shape),
                "cosine": result.sums.cosine,
                "sqnr_db": metrics_json(result.metrics)[0]["sqnr_db"],
            }
            for result in worst
        ],
    }


def quantizer_json(quantizer: Any) -> Plain:
    """The name of a quantizer, and its options where it is a dataclass of them."""
    is_instance = is_dataclass(quantizer) and not isinstance(quantizer, type)
    return {"name": quantizer.name, "options": asdict(quantizer) if is_instance else {}}


def scheme_json(restored: object, bits: int | None) -> Plain:
    """The scheme as the record has it; what the result does not say is None."""
    scheme = getattr(restored, "scheme", None)
    if not isinstance(scheme, Scheme):
        return {"bits": bits, "group_size": None, "symmetric": None, "zero": None}
    return {
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "symmetric": scheme.symmetric,
        "zero": scheme.zero,
    }
