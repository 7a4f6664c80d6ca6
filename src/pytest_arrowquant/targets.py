"""Targets and guards held against a tensor, and the one Verdict on them."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan

from .case import Case, Finding
from .errors import TargetError
from .expectation import COMPLETE, Expectation
from .guards import GUARDS
from .metrics import decibels


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding and the tensor it is about."""

    finding: Finding
    tensor: str

    @property
    def passed(self) -> bool:
        """The verdict on this bound."""
        return self.finding.passed


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one verdict: every bound with the tensor that comes nearest to missing it."""

    outcomes: tuple[Outcome, ...]

    @classmethod
    def over(cls, outcomes: Iterable[Outcome]) -> "Verdict":
        """Of all outcomes, the worst a metric, in the order in which metrics first come."""
        worst: dict[str, Outcome] = {}
        for outcome in outcomes:
            known = worst.get(outcome.finding.metric)
            if known is None or _rank(outcome) < _rank(known):
                worst[outcome.finding.metric] = outcome
        return cls(tuple(worst.values()))

    @property
    def passed(self) -> bool:
        """True where every bound holds."""
        return all(outcome.passed for outcome in self.outcomes)


def _rank(outcome: Outcome) -> tuple[bool, float]:
    margin = outcome.finding.margin
    return outcome.passed, float("-inf") if isnan(margin) else margin


def incomplete(problem: str) -> Finding:
    """The finding that the restored tensor is not whole, and why."""
    return Finding(COMPLETE, "<=", 0, 1, problem)


def findings(case: Case, expectation: Expectation) -> list[Finding]:
    """Every target and every guard that applies, held against one whole tensor."""
    found = [_target(case, metric, bound) for metric, bound in expectation.bounds.items()]
    found.append(Finding(COMPLETE, "<=", 0, 0))
    for name, guard in GUARDS.items():
        if name not in expectation.guards_off and (finding := guard(case)) is not None:
            found.append(finding)
    return found


def _target(case: Case, metric: str, bound: float) -> Finding:
    sums = case.weights.sums
    if metric == "cosine":
        return Finding(metric, ">=", bound, sums.cosine)
    if metric == "sqnr_db":
        return Finding(metric, ">=", bound, decibels(sums.reference_energy, sums.error_energy))
    if metric == "row_cosine":
        cosines = case.weights.row_cosines
        row = int(cosines.argmin())
        return Finding(metric, ">=", bound, float(cosines[row]), f"row {row}")
    if metric != "output_cosine":
        raise TargetError(f"unknown target {metric!r}")
    if case.outputs is None:
        raise TargetError(
            "output_cosine needs inputs: pass inputs=, an array of (tokens, input channels)"
        )
    return Finding(metric, ">=", bound, case.outputs.sums.cosine)
