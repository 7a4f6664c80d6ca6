"""Tables of plain text: their cells, their verdicts, and columns that line up."""

from collections.abc import Iterable, Sequence

from ..plain import Plain

Column = tuple[str, Sequence[str]]  # its title and its cells


def number(value: float | None, form: str) -> str:
    """The number in this format, or a dash for none."""
    return "-" if value is None else format(value, form)


def signed(value: float | None) -> str:
    """The number with its sign and two decimals, a dash for none; there is no -0.00."""
    text = number(value, "+.2f")
    return "+0.00" if text == "-0.00" else text


def missed_unasserted(record: Plain) -> bool:
    """Whether the record misses a bound and no test fails on it."""
    return not record["passed"] and not record.get("asserted", True)


def verdict(records: Iterable[Plain]) -> str:
    """What the first column says: FAILED where a test does, missed where none fails on it."""
    short = [record for record in records if not record["passed"]]
    if all(missed_unasserted(record) for record in short):
        return "missed" if short else "passed"
    return "FAILED"


def lines_of(columns: Sequence[Column]) -> list[str]:
    """A line of titles, then a line a row; two columns of text to the left, numbers to the right.

    A column that holds nothing but dashes is left out.
    """
    shown = [(title, *cells) for title, cells in columns if any(cell != "-" for cell in cells)]
    padded = []
    for place, column in enumerate(shown):
        width = max(map(len, column))
        padded.append([cell.ljust(width) if place < 2 else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
