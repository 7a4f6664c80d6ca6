"""What is asked of the kernels, and whether it was met: times np.copyto, and the best peer."""

from collections.abc import Iterator
from dataclasses import dataclass

from results import WIDTHS, Results, Row, markdown

LARGE, MIDDLE = 4096, 768
SHORT = "**short**"


@dataclass(frozen=True)
class Target:
    """times_copyto and times_rival are asked, or None; the rival is the best peer if not named."""

    operation: str
    zero: str
    bits: int
    size: int
    times_copyto: float | None
    times_rival: float | None
    rival: str = ""


@dataclass(frozen=True)
class Outcome:
    """A target and what was measured."""

    target: Target
    row: Row | None
    rival: Row | None

    @property
    def times_rival(self) -> float | None:
        """How many times as fast as the rival."""
        if self.row is None or self.rival is None:
            return None
        return float(self.row["times_copyto"] / self.rival["times_copyto"])

    @property
    def verdict(self) -> str:
        """pass, short, or not measured."""
        reached = self.row["times_copyto"] if self.row else None
        margins = [
            None if measured is None else measured - asked
            for asked, measured in (
                (self.target.times_copyto, reached),
                (self.target.times_rival, self.times_rival),
            )
            if asked is not None
        ]
        if None in margins:
            return "not measured"
        return "pass" if all(margin >= 0 for margin in margins if margin is not None) else SHORT


def _widths(
    operation: str,
    zero: str,
    size: int,
    copyto: tuple[float | None, ...],
    rival: tuple[float | None, ...],
    named: str = "",
) -> Iterator[Target]:
    for bits, asked, asked_rival in zip(WIDTHS, copyto, rival, strict=True):
        yield Target(operation, zero, bits, size, asked, asked_rival, named)


NOTHING = (None, None, None)
ONE_THREAD = (
    *_widths("quantize", "symmetric", LARGE, (1.35, 1.4, 1.65), (1.2, 2.3, 3.0)),
    *_widths("quantize", "integer", LARGE, (1.2, 1.25, 1.35), (1.1, 2.0, 2.5)),
    *_widths("quantize", "minimum", LARGE, (1.2, 1.25, 1.35), (1.1, 2.0, 2.5)),
    *_widths("dequantize", "symmetric", LARGE, (1.4, 1.55, 1.75), (1.0, 1.1, 1.15)),
    *_widths("compare", "symmetric", LARGE, (1.1, 1.1, 1.1), (6.0, 6.0, 6.0), "numpy"),
    *_widths("quantize-and-compare", "symmetric", LARGE, (0.75, 0.75, 0.75), NOTHING),
    *_widths("quantize", "symmetric", MIDDLE, NOTHING, (1.7, 3.3, 4.0)),
    *_widths("dequantize", "symmetric", MIDDLE, (1.2, 1.6, 1.7), (1.2, 1.8, 2.0)),
)
ALL_THREADS = (
    *_widths("quantize", "symmetric", LARGE, (1.9, 2.2, 2.4), NOTHING),
    *_widths("dequantize", "symmetric", LARGE, (1.6, 1.8, 1.9), NOTHING),
)


def outcomes(results: Results, targets: tuple[Target, ...], threads: int) -> list[Outcome]:
    """What was measured of each target."""
    found = []
    for target in targets:
        facts = {
            "operation": target.operation,
            "bits": target.bits,
            "size": target.size,
            "threads": threads,
        }
        row = results.one(contender=f"arrowquant-{target.zero}", **facts)
        rival = (
            results.one(contender=target.rival, **facts | {"threads": 1})
            if target.rival
            else results.best_peer(**facts)
        )
        found.append(Outcome(target, row, rival))
    return found


def outcome_table(results: Results, targets: tuple[Target, ...], threads: int) -> str:
    """Asked beside measured; brackets have the quartiles of the ratios of single rounds."""
    return markdown(
        ("operation", "bits", "array", "x `np.copyto`", "asked", "x rival", "asked", "rival", ""),
        [_line(outcome) for outcome in outcomes(results, targets, threads)],
    )


def _line(outcome: Outcome) -> list[str]:
    target, row, rival = outcome.target, outcome.row, outcome.rival
    ratio = outcome.times_rival
    return [
        f"{target.operation}, {target.zero}",
        str(target.bits),
        f"{target.size} x {target.size}",
        with_quartiles(row) if row else "-",
        _asked(target.times_copyto),
        f"{ratio:.2f}" if ratio else "-",
        _asked(target.times_rival),
        f"{rival['contender']} ({rival['times_copyto']:.2f})" if rival else "-",
        outcome.verdict,
    ]


def _asked(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def with_quartiles(row: Row) -> str:
    """times_copyto and its quartiles."""
    low, high = row["quartiles"]
    return f"{row['times_copyto']:.2f} ({low:.2f} to {high:.2f})"


def never_slower_table(results: Results, threads: int) -> str:
    """At the middle size, all threads against one: a loss is one that the quartiles show."""
    lines = []
    for operation in ("quantize", "dequantize", "compare", "quantize-and-compare"):
        for bits in WIDTHS:
            facts = {"operation": operation, "bits": bits, "size": MIDDLE}
            one, many = (
                results.one(contender="arrowquant-symmetric", threads=count, **facts)
                for count in (1, threads)
            )
            if one and many:
                slower = many["quartiles"][1] < one["quartiles"][0]
                ratio = many["times_copyto"] / one["times_copyto"]
                lines.append(
                    [
                        operation,
                        str(bits),
                        with_quartiles(one),
                        with_quartiles(many),
                        f"{ratio:.2f}",
                        SHORT if slower else "pass",
                    ]
                )
    header = ("operation", "bits", "1 thread", f"{threads} threads", "ratio", "")
    return markdown(header, lines)
