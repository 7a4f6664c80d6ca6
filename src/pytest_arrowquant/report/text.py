"""The summary of the terminal and accuracy.txt: a line a record, worst layers, what is missing."""

from collections.abc import Callable

from ..plain import Plain
from .audit_text import (
    explanation_lines,
    grouped_notes,
    is_audited,
    plan_lines,
    totals,
    verdict_lines,
)
from .findings_text import broken_lines, invariant_lines, selfcheck_lines
from .gains import comparison_lines, comparison_notes, split
from .ranking import worst_first
from .rollup import rollup_lines
from .table import lines_of, missed_unasserted, number, verdict

MOST_LINES = 60
WORST = 5


def summary_lines(records: list[Plain]) -> list[str]:
    """A line a record (failures first where there are too many), worst layers, the comparison.

    Of an audit, its verdict instead of a line a record.
    """
    single, compared, audited = apart(records)
    shown = worst_first(single)[:MOST_LINES] if len(single) > MOST_LINES else single
    lines = table(shown) if single or not (compared or audited) else []
    if len(shown) < len(single):
        lines.append(f"... the {MOST_LINES} closest to their bounds, of {len(single)} records")
    lines += worst_layers(single)
    lines += comparison_lines(compared)
    lines += verdict_lines(audited) if audited else []
    passed = sum(record["passed"] for record in records)
    unasserted = sum(map(missed_unasserted, records))
    of_these = f"; no test fails on {unasserted} of the others" if unasserted else ""
    lines.append(f"{passed} of {len(records)} records passed{of_these}")
    quantized = [record for record in single if record["quantizer"]["name"] is not None]
    if quantized and all(record["timing"] is None for record in quantized):
        lines.append("not timed: pytest-benchmark is off, disabled, or off under xdist")
    return lines


def apart(records: list[Plain]) -> tuple[list[Plain], list[Plain], list[Plain]]:
    """The records that stand for themselves, those of the comparison, and those of an audit.

    Of several attempts at a tensor of an audit, the last.
    """
    others, compared = split(records)
    single = [record for record in others if not is_audited(record)]
    audited = {record["name"]: record for record in others if is_audited(record)}
    return single, compared, list(audited.values())


def report_text(
    records: list[Plain],
    errors: list[Plain],
    summary: Plain,
    left: list[Plain],
    rollup: Plain | None = None,
    plan: Plain | None = None,
    checkpoint_notes: list[str] | None = None,
    invariants: list[Plain] | None = None,
) -> str:
    """The text of accuracy.txt."""
    single, compared, audited = apart(records)
    ordered = worst_first(audited)
    lines = ["Accuracy of quantization", ""]
    if single or not (compared or audited):
        lines += [*table(single), "", *worst_layers(single), ""]
    if compared:
        lines += [*comparison_lines(compared), ""]
    if audited:
        lines += [*totals(audited), "", *table(ordered), ""]
    if rollup:
        lines += rollup_lines(rollup)
    if plan:
        lines += _section("Plan for the original", plan_lines(plan, audited))
    held = invariants or []
    lines += _section("Invariants", invariant_lines(held))
    lines += _section("Invariants broken", broken_lines(held))
    records = [*single, *compared, *ordered]
    lines += _section("Self-check", selfcheck_lines(records))
    asserted = [record for record in records if record.get("asserted", True)]
    unasserted = [record for record in records if not record.get("asserted", True)]
    lines += _section("Bounds missed", missed(asserted))
    lines += _section("Bounds missed where no test fails on it", missed(unasserted))
    lines += _section("Errors", [f"{e['nodeid']} ({e['when']}): {e['message']}" for e in errors])
    lines += _section(
        "Left in full precision",
        [f"{t['name']} {tuple(t['shape'])} {t['dtype']}: {t['reason']}" for t in left],
    )
    lines += _section("Notes on the checkpoint", checkpoint_notes or [])
    notes = [f"{r['name']}: {note}" for r in single for note in r["notes"]]
    lines += _section("Notes", notes + comparison_notes(compared) + grouped_notes(audited))
    lines.append("  ".join(f"{key} {value}" for key, value in summary.items()))
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines), ""] if lines else []


COLUMNS: tuple[tuple[str, Callable[[Plain], str]], ...] = (
    ("", lambda r: verdict([r])),
    ("record", lambda r: str(r["name"])),
    ("stored as", lambda r: _stored_as(r)),
    ("cosine", lambda r: number(r["metrics"]["cosine"], ".6f")),
    ("target", lambda r: number(_bound(r, "cosine"), "g")),
    ("SQNR dB", lambda r: number(r["metrics"]["sqnr_db"], ".2f")),
    ("worst row dB", lambda r: number(r["metrics"]["row_sqnr_db_min"], ".2f")),
    ("bits/weight", lambda r: number(r["metrics"]["bits_per_weight"], ".3f")),
    ("ratio", lambda r: number(r["metrics"]["compression_ratio"], ".2f")),
    ("quantize GB/s", lambda r: number((r["timing"] or {}).get("quantize_gb_s"), ".2f")),
    ("dequantize GB/s", lambda r: number((r["timing"] or {}).get("dequantize_gb_s"), ".2f")),
)


def table(records: list[Plain]) -> list[str]:
    """The records in aligned columns, with a heading; columns that say nothing are left out."""
    if not records:
        return ["no records"]
    return lines_of([(title, [cell(record) for record in records]) for title, cell in COLUMNS])


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
        f"SQNR {number(layer['sqnr_db'], '.2f')} dB"
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
    """Every bound that a record misses, and what would mend it."""
    lines = []
    for record in records:
        lines += [_missed(record, target) for target in record["targets"] if not target["passed"]]
        lines += [f"{record['name']}: {line}" for line in explanation_lines(record)]
    return lines


def _missed(record: Plain, target: Plain) -> str:
    where = f" ({target['where']})" if target.get("where") else ""
    return (
        f"{record['name']}: {target['metric']} {number(target['value'], '.6g')} "
        f"{target['op']} {target['bound']:.6g} margin {number(target['margin'], '.6g')} "
        f"in {target['tensor']}{where}"
    )


def _stored_as(record: Plain) -> str:
    """The format of what an audit found quantized, else `plain` or `missing`."""
    kind = record.get("stored_as")
    return str(record["quantizer"]["name"] if kind == "quantized" else kind or "-")


def _bound(record: Plain, metric: str) -> float | None:
    bounds = [target["bound"] for target in record["targets"] if target["metric"] == metric]
    return bounds[0] if bounds else None
