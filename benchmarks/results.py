"""What a run of the benchmarks measured, read from pytest-benchmark's JSON."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, Contender

WIDTHS = (8, 4, 2)
DECIBELS_A_BIT = 6.0206  # 20 log10(2): what no code can exceed on normal weights

BY_NAME = {contender.name: contender for contender in CONTENDERS}
OURS = tuple(name for name, contender in BY_NAME.items() if contender.ours)
USUAL = tuple(name for name in OURS if BY_NAME[name].group == 64)
PEERS = tuple(name for name in BY_NAME if name not in OURS and name != "numpy")

Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """rows: the extra_info of every benchmark; left_out: what was not run, and why."""

    rows: list[Row]
    left_out: list[Row]
    machine: dict[str, Any]
    date: str

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Those of a run."""
        content = json.loads(path.read_text())
        rows = [benchmark["extra_info"] for benchmark in content["benchmarks"]]
        date = content["datetime"][:16].replace("T", " ")
        return cls(rows, content["left_out"], content["machine_info"], date)

    def all(self, **facts: Any) -> list[Row]:
        """The rows of which all of these are true."""
        return [row for row in self.rows if facts.items() <= _plain(row).items()]

    def one(self, **facts: Any) -> Row | None:
        """The only such row, or None where it was left out."""
        found = self.all(**facts)
        assert len(found) <= 1, f"{len(found)} rows of {facts}"
        return found[0] if found else None

    def best_peer(self, **facts: Any) -> Row | None:
        """The fastest of the peers."""
        peers = [row for row in self.all(**facts) if row["contender"] in PEERS]
        return max(peers, key=lambda row: float(row["times_copyto"]), default=None)

    def accuracy(self, bits: int) -> list[Row]:
        """Of every contender of that width the row of the largest array that it restored."""
        rows = self.all(operation="dequantize", bits=bits, threads=1)
        largest = {row["contender"]: row for row in sorted(rows, key=lambda row: int(row["size"]))}
        return [largest[name] for name in BY_NAME if name in largest]

    @property
    def all_of_contenders(self) -> list[Row]:
        """The rows that belong to a contender."""
        return [row for row in self.rows if "contender" in row]

    @property
    def threads(self) -> list[int]:
        """The numbers of threads that were run."""
        return sorted({row["threads"] for row in self.all_of_contenders})

    @property
    def sizes(self) -> list[int]:
        """The sides of the weights that were run."""
        return sorted({row["size"] for row in self.all_of_contenders})


def _plain(row: Row) -> Row:
    return {key: value for key, value in row.items() if not isinstance(value, list | dict)}


def contenders_in(rows: Iterable[Row]) -> list[Contender]:
    """Those that appear, in the order of the table."""
    names = {row["contender"] for row in rows}
    return [contender for name, contender in BY_NAME.items() if name in names]


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(header)
    table = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def cell(row: Row | None, text: Callable[[Row], str]) -> str:
    """The text of a row, or a dash where there is none."""
    return text(row) if row else "-"
