"""What a failed check says: the bounds missed, where, and what would pass."""

from collections.abc import Mapping, Sequence
from math import floor, isfinite, log10

from .case import Finding
from .examine import TensorResult
from .expectation import BOUNDS, Expectation
from .explain import Explanation

MOST_TENSORS = 5


NO_CAUSE = "no known cause: no fault that is known would, undone, bring it back"


def failure(
    results: Sequence[TensorResult],
    expectation: Expectation,
    seed: int | None = None,
    explanations: Mapping[str, Explanation | None] | None = None,
) -> str:
    """The message for the tensors that miss a bound, worst first; empty where none does.

    explanations: by tensor, of those that were looked into; None where no cause is known.
    """
    failed = [result for result in results if not result.passed]
    if not results:
        return "no tensor was given: there is nothing to judge"
    if not failed:
        return ""
    failed.sort(key=lambda result: min(_relative_margin(o.finding) for o in result.outcomes))
    parts = []
    for result in failed[:MOST_TENSORS]:
        parts.append(_tensor(result, expectation))
        if explanations and result.name in explanations:
            parts.append(f"  {cause(explanations[result.name])}")
    if len(failed) > MOST_TENSORS:
        parts.append(f"and {len(failed) - MOST_TENSORS} more tensors")
    if seed is not None:
        parts.append(f"seed {seed}")
    return "\n".join(parts)


def cause(explanation: Explanation | None) -> str:
    """What probably went wrong, or that nothing known did."""
    return NO_CAUSE if explanation is None else f"likely cause: {explanation.text}"


def _tensor(result: TensorResult, expectation: Expectation) -> str:
    missed = [outcome.finding for outcome in result.outcomes if not outcome.passed]
    title = (
        f"{expectation.source_text}: {result.name!r} {result.shape} {result.dtype} "
        f"misses {len(missed)} of {len(result.outcomes)} bounds"
    )
    lines = [title, *(f"  {_finding(finding)}" for finding in missed)]
    if result.worst_rows:
        rows = ", ".join(
            f"{row} (cosine {cosine:.4g}, SQNR {sqnr_db:.4g} dB)"
            for row, cosine, sqnr_db in result.worst_rows
        )
        lines.append(f"  worst rows: {rows}")
    bounds = [f"{f.metric}={passing_bound(f.value)}" for f in missed if f.metric in BOUNDS]
    if bounds:
        lines.append(f"  would pass with {', '.join(bounds)}")
    return "\n".join(lines)


def _finding(finding: Finding) -> str:
    where = f" ({finding.where})" if finding.where else ""
    if finding.metric == "complete":
        return f"complete: {finding.where}"
    relation = "within ±" if finding.op == "within" else f"{finding.op} "
    of = " of 1" if finding.op == "within" else ""
    return (
        f"{finding.metric} {finding.value:.6g}{where}, expected {relation}{finding.bound:.6g}{of}, "
        f"margin {finding.margin:.6g}"
    )


def passing_bound(value: float) -> str:
    """The value to four significant digits, rounded down: the tightest bound that would pass."""
    if not isfinite(value) or value == 0:
        return f"{value:g}"
    digits = 3 - floor(log10(abs(value)))
    return f"{floor(value * 10**digits) / 10**digits:.4g}"


def _relative_margin(finding: Finding) -> float:
    """The margin over the bound, to compare unlike metrics."""
    return finding.margin / (abs(finding.bound) or 1.0)
