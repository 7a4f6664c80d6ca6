"""What a run says of invariants, and of the faults that its targets would have missed."""

from collections import Counter

from ..plain import Plain


def invariant_lines(invariants: list[Plain]) -> list[str]:
    """A line a quantizer and width: how many hold, which are broken, which it says it lacks."""
    groups: dict[tuple[str, int], list[Plain]] = {}
    for entry in _last_attempts(invariants):
        groups.setdefault((entry["quantizer"], entry["bits"]), []).append(entry)
    return [_invariants(name, bits, held) for (name, bits), held in groups.items()]


def _invariants(name: str, bits: int, held: list[Plain]) -> str:
    demanded = [entry for entry in held if entry["lacks"] is None]
    broken = [entry["invariant"] for entry in demanded if not entry["holds"]]
    lacked = [f"{e['invariant']} ({e['lacks']})" for e in held if e["lacks"] is not None]
    return "; ".join(
        [
            f"{name} int{bits}: {len(demanded) - len(broken)} of {len(demanded)} invariants hold",
            *([f"broken: {', '.join(broken)}"] if broken else []),
            *([f"lacks {', '.join(lacked)}"] if lacked else []),
        ]
    )


def broken_lines(invariants: list[Plain]) -> list[str]:
    """What each broken invariant says, with its smallest example."""
    return [
        line
        for entry in _last_attempts(invariants)
        if not entry["holds"] and entry["lacks"] is None
        for line in entry["message"].splitlines()
    ]


def _last_attempts(invariants: list[Plain]) -> list[Plain]:
    return list({entry["nodeid"]: entry for entry in invariants}.values())


def selfcheck_lines(records: list[Plain]) -> list[str]:
    """A line a width: which faults the gates miss; nothing where no self-check was asked for."""
    checked: dict[int | None, list[Plain]] = {}
    for record in records:
        if record.get("selfcheck"):
            checked.setdefault(record["scheme"].get("bits"), []).append(record["selfcheck"])
    return [_gate(bits, checked[bits]) for bits in sorted(checked, key=lambda bits: bits or 0)]


def _gate(bits: int | None, checks: list[Plain]) -> str:
    tensors = sum(check["tensors"] for check in checks)
    injected, missed = Counter[str](), Counter[str]()
    for check in checks:
        injected.update(check["injected"])
        missed.update(check["missed"])
    gate = f"self-check int{bits}" if bits else "self-check"
    said = f"{gate}: {injected.total()} faults of {len(injected)} kinds put into {tensors} tensors"
    if not missed:
        return f"{said}: this gate misses none"
    names = ", ".join(
        f"{name} ({count} of {injected[name]})" for name, count in missed.most_common()
    )
    return f"{said}: this gate misses {len(missed)} of {len(injected)} faults: {names}"
