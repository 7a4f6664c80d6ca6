"""Plain values: JSON of exact built-in types, which survives any way between processes."""

from math import isfinite
from typing import Any

LEAVES = frozenset((str, int, bool, type(None)))

Plain = dict[str, Any]


def require_plain(value: object, path: str) -> None:
    """Raise TypeError unless `value` is JSON of exact built-in types: a numpy scalar is not.

    A numpy float in a report breaks the transport between processes, and once turned a failing
    run green there; so it is refused where it is made, inside the test.
    """
    if not is_plain(value):
        _refuse(value, path)


def is_plain(value: Any) -> bool:
    """Whether a value is plain. Every record is asked, few are refused."""
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return kind in LEAVES or (kind is list and all(map(is_plain, value)))


def _refuse(value: object, path: str) -> None:
    """Raise TypeError for the first part of `value` that is not plain, with its place."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _refuse(key, f"a key of {path}")
            _refuse(entry, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _refuse(entry, f"{path}[{index}]")
    elif type(value) not in (*LEAVES, float):
        raise TypeError(
            f"{path} is a {type(value).__module__}.{type(value).__name__}, not plain JSON"
        )
    elif isinstance(value, float) and not isfinite(value):
        raise TypeError(f"{path} is {value}; JSON has no such number")


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return value if value is not None and isfinite(value) else None
