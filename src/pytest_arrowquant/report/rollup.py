"""The roll-up of an audit: a row a layer, a row an expert over all layers, a row a role.

Cosine and SQNR of a row are those of its quantized tensors laid end to end: of the sums of the
`energies` that each record has. Plain tensors would only dilute them.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..metrics import Sums, decibels
from ..plain import Plain, finite
from .places import Place, places_of
from .ranking import rank
from .table import lines_of, number


@dataclass(slots=True)
class Group:
    """The sums over some records, and the worst of them."""

    count: int = 0
    failed: int = 0
    measured: int = 0
    reference: float = 0.0
    restored: float = 0.0
    error: float = 0.0
    stored_bytes: int = 0
    parameters: int = 0
    worst: str = ""
    worst_rank: tuple[bool, float] = (True, float("inf"))

    def add(self, record: Plain, ranked: tuple[bool, float]) -> None:
        """Count a record in."""
        self.count += 1
        self.failed += not record["passed"]
        if not self.worst or ranked < self.worst_rank:
            self.worst, self.worst_rank = record["name"], ranked
        if record["stored_as"] != "quantized":
            return
        if (stored := record["metrics"]["stored_bytes"]) is not None:
            self.stored_bytes += stored
            self.parameters += record["subject"]["parameters"]
        if energies := record["energies"]:
            self.measured += 1
            self.reference += energies["reference"]
            self.restored += energies["restored"]
            self.error += energies["error"]

    def to_json(self) -> Plain:
        """The row without what it is a row of; null where nothing was measured, or no error is."""
        sums = Sums(
            reference_energy=self.reference,
            restored_energy=self.restored,
            error_energy=self.error,
        )
        sqnr_db = finite(decibels(self.reference, self.error))
        return {
            "count": self.count,
            "failed": self.failed,
            "measured": self.measured,
            "cosine": sums.cosine if self.measured else None,
            "sqnr_db": sqnr_db if self.measured else None,
            "bits_per_weight": self.stored_bytes * 8 / self.parameters if self.parameters else None,
            "worst": self.worst,
        }


def rollup_of(records: Iterable[Plain]) -> Plain:
    """`layers`, `experts` and `roles`: the rows of an audit's records, in order."""
    records = list(records)
    places = places_of(record["name"] for record in records)
    ranked = [(record, places[record["name"]], rank(record)) for record in records]
    layers = _groups(ranked, lambda place: (place.stack, place.layer))
    experts = _groups(ranked, lambda place: place.expert)
    roles = _groups(ranked, lambda place: place.role)
    experts.pop(None, None)
    in_layers = sorted(layers, key=lambda at: (at[1] is None, at[0], at[1] or 0))
    return {
        "layers": [
            {"stack": stack or None, "layer": layer, **layers[stack, layer].to_json()}
            for stack, layer in in_layers
        ],
        "experts": [{"expert": e, **experts[e].to_json()} for e in sorted(experts)],
        "roles": [{"role": name, **roles[name].to_json()} for name in sorted(roles)],
    }


def _groups(
    ranked: Iterable[tuple[Plain, Place, tuple[bool, float]]], key: Callable[[Place], Hashable]
) -> dict[Any, Group]:
    groups: dict[Any, Group] = {}
    for record, place, its_rank in ranked:
        groups.setdefault(key(place), Group()).add(record, its_rank)
    return groups


def rollup_lines(rollup: Mapping[str, list[Plain]]) -> list[str]:
    """The roll-up as tables, one a kind that has rows."""
    stacks = {row["stack"] for row in rollup["layers"]} - {None}
    lines = []
    for kind, label in (("layer", _layer(len(stacks))), ("expert", _named), ("role", _named)):
        rows = rollup[f"{kind}s"]
        if rows:
            lines += [f"By {kind}", *(f"  {line}" for line in _table(kind, rows, label)), ""]
    return lines


def _named(row: Plain) -> str:
    return str(row["role"] if "role" in row else row["expert"])


def _layer(stacks: int) -> Callable[[Plain], str]:
    """How a layer is called: by its number, if there is one stack of them alone."""

    def label(row: Plain) -> str:
        if row["layer"] is None:
            return "outside"
        return f"{row['layer']}" if stacks == 1 else f"{row['stack']}.{row['layer']}"

    return label


def _table(kind: str, rows: list[Plain], label: Callable[[Plain], str]) -> list[str]:
    return lines_of(
        [
            (kind, [label(row) for row in rows]),
            ("its worst tensor", [row["worst"] for row in rows]),
            ("tensors", [str(row["count"]) for row in rows]),
            ("failed", [str(row["failed"]) if row["failed"] else "-" for row in rows]),
            ("cosine", [number(row["cosine"], ".6f") for row in rows]),
            ("SQNR dB", [number(row["sqnr_db"], ".2f") for row in rows]),
            ("bits/weight", [number(row["bits_per_weight"], ".3f") for row in rows]),
        ]
    )
