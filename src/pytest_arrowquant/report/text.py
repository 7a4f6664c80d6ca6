"""The summary of the terminal and accuracy.txt: a line a record, worst layers, what is missing."""

from collections.abc import Callable
from typing import Any

from ..records import Plain

MOST_LINES = 60
WORST = 5


def summary_lines(records: list[Plain]) -> list[str]:
    """A line a record (failures first where there are too many), then the worst layers."""
    shown = records
    if len(records) > MOST_LINES:
        shown = sorted(records, key=lambda record: (record["passed"], _least_margin(record)))
        shown = shown[:MOST_LINES]
    lines = table(shown)
    if len(shown) < len(records):
        lines.append(f"... the {MOST_LINES} closest to their bounds, of {len(records)} records")
    lines += worst_layers(records)
    passed = sum(record["passed"] for record in records)
    lines.append(f"{passed} of {len(records)} records passed")
    quantized = [record for record in records if record["quantizer"]["name"] is not None]
    if quantized and all(record["timing"] is None for record in quantized):
        lines.append("not timed: pytest-benchmark is off, disabled, or off under xdist")
    return lines


def report_text(
    records: list[Plain], errors: list[Plain], summary: Plain, left: list[Plain]
) -> str:
    """The text of accuracy.txt."""
    lines = ["Accuracy of quantization", "", *table(records), "", *worst_layers(records)]
    lines += ["", *_section("Bounds missed", missed(records))]
    lines += _section("Errors", [f"{e['nodeid']} ({e['when']}): {e['message']}" for e in errors])
    lines += _section(
        "Left in full precision",
        [f"{t['name']} {tuple(t['shape'])} {t['dtype']}: {t['reason']}" for t in left],
    )
    lines += _section("Notes", [f"{r['name']}: {note}" for r in records for note in r["notes"]])
    lines.append("  ".join(f"{key} {value}" for key, value in summary.items()))
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines), ""] if lines else []


COLUMNS: tuple[tuple[str, Callable[[Plain], str]], ...] = (
    ("", lambda r: "passed" if r["passed"] else "FAILED"),
    ("record", lambda r: str(r["name"])),
    ("cosine", lambda r: _number(r["metrics"]["cosine"], ".6f")),
    ("target", lambda r: _number(_bound(r, "cosine"), "g")),
    ("SQNR dB", lambda r: _number(r["metrics"]["sqnr_db"], ".2f")),
    ("worst row dB", lambda r: _number(r["metrics"]["row_sqnr_db_min"], ".2f")),
    ("bits/weight", lambda r: _number(r["metrics"]["bits_per_weight"], ".3f")),
    ("ratio", lambda r: _number(r["metrics"]["compression_ratio"], ".2f")),
    ("quantize GB/s", lambda r: _number((r["timing"] or {}).get("quantize_gb_s"), ".2f")),
    ("dequantize GB/s", lambda r: _number((r["timing"] or {}).get("dequantize_gb_s"), ".2f")),
)


def table(records: list[Plain]) -> list[str]:
    """The records in aligned columns, with a heading; columns that say nothing are left out."""
    if not records:
        return ["no records"]
    columns = [(title, [cell(record) for record in records]) for title, cell in COLUMNS]
    columns = [(title, cells) for title, cells in columns if any(text != "-" for text in cells)]
    widths = [max(len(title), *map(len, cells)) for title, cells in columns]
    rows = [[title for title, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Any, widths: list[int]) -> list[str]:
    """Text to the left, numbers to the right."""
    return [
        text.ljust(width) if place < 2 else text.rjust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def worst_layers(records: list[Plain]) -> list[str]:
    """The layers that come nearest to their record's cosine target."""
    layers = []
    for record in records:
        bound = _bound(record, "cosine")
        if bound is not None and record["subject"]["kind"] != "array":
            layers += [
                (_room(layer["cosine"], bound), record["name"], layer)
                for layer in record["layers"]["worst"]
            ]
    layers.sort(key=lambda entry: entry[:2])
    lines = [
        f"  {_place(name, layer['name'])} {tuple(layer['shape'])} cosine {layer['cosine']:.6f}, "
        f"SQNR {_number(layer['sqnr_db'], '.2f')} dB"
        for _, name, layer in layers[:WORST]
    ]
    return ["worst layers:", *lines] if lines else []


def _place(record: str, layer: str) -> str:
    """The record and its layer; the record alone where its name has that of its only tensor."""
    return record if record.startswith(layer) else f"{record}: {layer}"


def _room(cosine: float, bound: float) -> float:
    """How far above the bound, as a share of all the room there is."""
    return (cosine - bound) / max(1 - bound, 1e-9)


def missed(records: list[Plain]) -> list[str]:
    """Every bound that a record misses."""
    return [
        f"{record['name']}: {target['metric']} {_number(target['value'], '.6g')} "
        f"{target['op']} {target['bound']:.6g} margin {_number(target['margin'], '.6g')} "
        f"in {target['tensor']}"
        for record in records
        for target in record["targets"]
        if not target["passed"]
    ]


def _bound(record: Plain, metric: str) -> float | None:
    bounds = [target["bound"] for target in record["targets"] if target["metric"] == metric]
    return bounds[0] if bounds else None


def _least_margin(record: Plain) -> float:
    margins = [
        t["margin"] / (abs(t["bound"]) or 1) for t in record["targets"] if t["margin"] is not None
    ]
    return min(margins, default=float("-inf"))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
