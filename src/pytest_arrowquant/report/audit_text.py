"""An audit in words: the verdict for the terminal, and what accuracy.txt has besides."""

from collections import Counter

from ..plain import Plain
from ..records import STORED_AS
from .ranking import nearest, worst_first
from .table import lines_of, number

MOST_FAILED = 20
MOST_BOUNDS = 3  # of a failed tensor, in the terminal
WORST_PASSED = 5
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def is_audited(record: Plain) -> bool:
    """True for the record of a tensor of an audited checkpoint."""
    return record.get("stored_as") is not None


def verdict_lines(records: list[Plain]) -> list[str]:
    """What the terminal shows of an audit, however many tensors: totals, and the worst."""
    ordered = worst_first(records)
    failed = [record for record in ordered if not record["passed"]]
    passed = ordered[len(failed) :]
    lines = totals(records)
    for record in failed[:MOST_FAILED]:
        lines += _failure(record)
    if len(failed) > MOST_FAILED:
        lines.append(f"... and {len(failed) - MOST_FAILED} more failed, in accuracy.txt")
    closest = [record for record in passed if record["stored_as"] == "quantized"][:WORST_PASSED]
    if closest:
        lines += ["closest to a bound of those that passed:", *map(_closest, closest)]
    return lines


def totals(records: list[Plain]) -> list[str]:
    """How many tensors of each kind there are, and what they take."""
    kinds = Counter(record["stored_as"] for record in records)
    parts = ", ".join(f"{kinds[kind]} {kind}" for kind in STORED_AS if kinds[kind])
    failed = sum(not record["passed"] for record in records)
    lines = [f"audit: {failed or 'none'} of {len(records)} tensors failed ({parts})"]
    return lines + _sizes(records)


def _sizes(records: list[Plain]) -> list[str]:
    """Bits per weight of what is quantized and of all, and bytes, where the size is known."""
    known = [r for r in records if r["metrics"]["stored_bytes"] is not None]
    quantized = [r for r in known if r["stored_as"] == "quantized"]
    if not known:
        return []
    stored = sum(r["metrics"]["stored_bytes"] for r in known)
    original = sum(r["metrics"]["original_bytes"] or 0 for r in known)
    rates = [f"{_rate(quantized):.3f} bits per weight quantized"] if quantized else []
    rates.append(f"{_rate(known):.3f} in all")
    of = f" of {size_text(original)} ({original / stored:.2f} to 1)" if original and stored else ""
    return [f"{', '.join(rates)}: {size_text(stored)}{of}"]


def _rate(records: list[Plain]) -> float:
    stored = sum(record["metrics"]["stored_bytes"] for record in records)
    weights = sum(record["subject"]["parameters"] for record in records)
    return float(stored * 8 / max(weights, 1))


def size_text(nbytes: int) -> str:
    """Bytes in the largest unit of which there is one."""
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.2f} {UNITS[unit]}" if unit else f"{nbytes} bytes"


def bound_text(target: Plain) -> str:
    """A bound in words: `row_sqnr_db -1.2 > 0 (row 3)`; of `complete`, what is wrong."""
    where = target.get("where", "")
    if target["metric"] == "complete" and where:
        return f"complete: {where}"
    relation = f"{target['op']} {target['bound']:.4g}" + " of 1" * (target["op"] == "within")
    value = number(target["value"], ".4g")
    return f"{target['metric']} {value} {relation}{f' ({where})' if where else ''}"


def explanation_lines(record: Plain) -> list[str]:
    """What would mend a failed tensor, with its figures before and after; empty if unknown."""
    found = record.get("explanation")
    if not found:
        return []
    figures = [
        f"{name} {number(found[f'{key}_before'], form)} -> {number(found[f'{key}_after'], form)}"
        for name, key, form in (("cosine", "cosine", ".4f"), ("SQNR dB", "sqnr_db", ".2f"))
    ]
    return [f"{found['fault']}: {found['sentence']}; undone, {', '.join(figures)}"]


def _failure(record: Plain) -> list[str]:
    missed = [bound_text(target) for target in record["targets"] if not target["passed"]]
    more = f"; and {len(missed) - MOST_BOUNDS} more" if len(missed) > MOST_BOUNDS else ""
    return [
        f"FAILED  {record['name']}: {'; '.join(missed[:MOST_BOUNDS])}{more}",
        *(f"        {line}" for line in explanation_lines(record)),
    ]


def _closest(record: Plain) -> str:
    target, metrics = nearest(record), record["metrics"]
    return (
        f"  {record['name']}: {bound_text(target) if target else 'nothing to miss'}; "
        f"cosine {number(metrics['cosine'], '.6f')}, SQNR {number(metrics['sqnr_db'], '.2f')} dB"
    )


def grouped_notes(records: list[Plain]) -> list[str]:
    """Each note with the tensor that has it, or how many have."""
    names: dict[str, list[str]] = {}
    for record in records:
        for note in record["notes"]:
            names.setdefault(note.removeprefix(f"{record['name']}: "), []).append(record["name"])
    return [
        f"{found[0]}: {note}" if len(found) == 1 else f"{len(found)} tensors: {note}"
        for note, found in names.items()
    ]


def plan_lines(plan: Plain, records: list[Plain]) -> list[str]:
    """A plan as a table, beside the widths that an audited checkpoint has, and its total."""
    widths = {record["name"]: record["scheme"].get("bits") for record in records}
    choices = plan["choices"]
    unmet = sum(choice["bits"] is None for choice in choices)
    rate = f"{plan['bits_per_weight']:.3f} bits per weight by {plan['quantizer']}"
    stays = f"; {unmet} of {len(choices)} tensors meet no target" if unmet else ""
    return [
        *lines_of(
            [
                ("tensor", [choice["name"] for choice in choices]),
                ("stays because", [choice["reason"] or "-" for choice in choices]),
                ("bits", [number(choice["bits"], "d") for choice in choices]),
                ("has", [number(widths.get(choice["name"]), "d") for choice in choices]),
                ("cosine", [number(choice["cosine"], ".6f") for choice in choices]),
                ("bits/weight", [f"{choice['bits_per_weight']:.3f}" for choice in choices]),
            ]
        ),
        f"{rate}{stays}",
    ]
