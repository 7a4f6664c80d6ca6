"""Which record is worse: a failed one, then the one that comes nearest to missing a bound."""

from collections.abc import Iterable

from ..plain import Plain

COUNTS = (
    *("complete", "dead_columns", "levels", "unequal"),
    *("finite_scales", "code_range", "symmetric_zero", "folded"),
)
FAR_DB = 10.0  # well above a bound of 0 dB


def margin_share(target: Plain) -> float:
    """The margin as a share of what is between the bound and a flawless result.

    A margin that is no number is one without end; that of a count says only whether it passed.
    """
    if target["margin"] is None or target["metric"] in COUNTS:
        return 1.0 if target["passed"] else -1.0
    flawless = 1 - target["bound"] if "cosine" in target["metric"] else abs(target["bound"])
    return float(target["margin"] / (flawless or FAR_DB))


def room(record: Plain) -> float:
    """The least of its margins, each as a share; below 0 where a bound is missed."""
    return min(map(margin_share, record["targets"]), default=0.0)


def nearest(record: Plain) -> Plain | None:
    """The target that the record misses by most, or else comes nearest to missing."""
    return min(record["targets"], key=margin_share, default=None)


def rank(record: Plain) -> tuple[bool, float]:
    """Sorts what failed first, then the least room."""
    return record["passed"], room(record)


def worst_first(records: Iterable[Plain]) -> list[Plain]:
    """The records in this order; equals keep theirs."""
    return sorted(records, key=rank)
