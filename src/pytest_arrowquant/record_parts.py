"""The parts of a record as JSON has them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from math import isfinite, prod
from statistics import fmean, pstdev
from typing import Any

from .examine import TensorResult
from .explain import Explanation
from .metrics import Metrics, Sums
from .plain import Plain, finite, is_plain
from .scheme import Scheme
from .selfcheck import SelfCheck
from .targets import Verdict

WORST_LAYERS = 5


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


def energies_json(results: Sequence[TensorResult]) -> Plain | None:
    """The sums of squares of all tensors together; None where one has not been measured."""
    if not all(result.sums.weights and not result.problem for result in results) or not results:
        return None
    sums = sum((result.sums for result in results), Sums())
    return {
        "reference": sums.reference_energy,
        "restored": sums.restored_energy,
        "error": sums.error_energy,
    }


def layers_json(results: Sequence[TensorResult]) -> Plain:
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
    """The name of a quantizer, and its options where it is a dataclass of them.

    Of somebody's own, options that are no plain values are left out.
    """
    return {"name": quantizer.name, "options": _options(quantizer) or {}}


def _options(value: Any) -> Any:
    """The fields of a dataclass that are plain, and of dataclasses in them; else the value."""
    if not is_dataclass(value) or isinstance(value, type):
        return value if is_plain(value) else None
    named = {part.name: getattr(value, part.name) for part in fields(value)}
    plain = {name: _options(option) for name, option in named.items()}
    return {
        name: option for name, option in plain.items() if option is not None or named[name] is None
    }


def explanation_json(found: Explanation) -> Plain:
    """An explanation as a record has it; None for what is not finite."""
    return {
        "fault": found.fault,
        "sentence": found.sentence,
        "cosine_before": finite(found.before.cosine),
        "cosine_after": finite(found.after.cosine),
        "sqnr_db_before": finite(found.before.sqnr_db),
        "sqnr_db_after": finite(found.after.sqnr_db),
    }


def selfcheck_json(checks: Sequence[SelfCheck]) -> Plain | None:
    """What the self-checks of some tensors found, as a record has it; None without any."""
    if not checks:
        return None
    return {
        "tensors": len(checks),
        "injected": dict(Counter(name for check in checks for name in check.injected)),
        "missed": dict(Counter(name for check in checks for name in check.missed)),
    }


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
