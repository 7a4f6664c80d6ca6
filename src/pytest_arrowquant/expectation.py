"""What a tensor is held to: keywords checked, and resolved from call, marker, ini and defaults.

Imports nothing heavy: a project's own targets are read at every start of pytest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any

from .errors import TargetError

DEFAULT_COSINE = {2: 0.70, 4: 0.90, 8: 0.95}
COSINES = ("cosine", "row_cosine", "output_cosine")
BOUNDS = ("cosine", "sqnr_db", "row_cosine", "output_cosine")
KEYWORDS = ("bits", *BOUNDS, "guards", "judge")
JUDGES = ("weights", "outputs")
COMPLETE = "complete"
GUARD_NAMES = (
    "row_sqnr_db",
    "gain",
    "row_gain",
    "bias",
    "dead_columns",
    "levels",
    "rounding",
    "strays",
    "order",
    "floor",
    "ceiling",
)
WIDEST = 16


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one tensor is held to, resolved from call site, marker, ini and defaults."""

    bits: int | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    guards_off: Mapping[str, str] = field(default_factory=dict)
    judge: str = "weights"
    kind: str = ""

    @property
    def source_text(self) -> str:
        """How a failure names the width, or the kind of tensor that is held to something else."""
        return self.kind or (f"int{self.bits}" if self.bits else "the given targets")


def validated(keywords: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The keywords that are not None, as plain Python; TargetError where one is no good."""
    for key in keywords:
        if key not in KEYWORDS:
            close = get_close_matches(str(key), KEYWORDS, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise TargetError(
                f"{source}: unknown keyword {key!r}{hint}; valid are {', '.join(KEYWORDS)}"
            )
    given = {key: value for key, value in keywords.items() if value is not None}
    return {key: _valid(key, value, source) for key, value in given.items()}


def _valid(key: str, value: Any, source: str) -> Any:
    """One keyword's value as plain Python (numpy's numbers are none)."""
    if key == "bits":
        if (
            not isinstance(value, Integral)
            or isinstance(value, bool)
            or not 1 <= int(value) <= WIDEST
        ):
            raise TargetError(f"{source}: bits={value!r} is not a whole number from 1 to {WIDEST}")
        return int(value)
    if key in BOUNDS:
        if isinstance(value, bool) or not isinstance(value, Real) or not _finite(value):
            raise TargetError(f"{source}: {key}={value!r} is not a finite number")
        if key in COSINES and not -1 < float(value) <= 1:
            raise TargetError(f"{source}: {key}={value!r} is not above -1 and at most 1")
        return float(value)
    if key == "judge" and value not in JUDGES:
        raise TargetError(f"{source}: judge={value!r} is not 'weights' or 'outputs'")
    if key == "guards":
        _validate_guards(value, source)
    return value


def _finite(value: Real) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _validate_guards(value: Any, source: str) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, Mapping):
        raise TargetError(
            f"{source}: guards={value!r} is neither True nor False nor a mapping of guard to reason"
        )
    for name, reason in value.items():
        if name not in GUARD_NAMES:
            raise TargetError(
                f"{source}: unknown guard {name!r}; valid are {', '.join(GUARD_NAMES)}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise TargetError(
                f"{source}: guards[{name!r}]={reason!r} is no reason; say why in words"
            )


def expect(
    call: Mapping[str, Any],
    marker: Mapping[str, Any],
    project: Mapping[int, Mapping[str, float]],
    bits: int | None,
    source: str,
) -> Expectation:
    """Resolve keywords, nearest first: the call, the marker, the project's ini, the defaults.

    bits: the width that the result itself declares, used where neither names one. Raises
    TargetError where nothing is left that could fail.
    """
    given = {**marker, **call}
    width = given.get("bits", bits)
    defaults = {"cosine": DEFAULT_COSINE[width]} if width in DEFAULT_COSINE else {}
    bounds = {**defaults, **project.get(width, {})} if width is not None else {}
    bounds |= {key: given[key] for key in BOUNDS if key in given}
    judge = given.get("judge", "weights")
    if not bounds:
        what = "no bits" if width is None else f"bits={width} has no default target"
        raise TargetError(f"{source}: {what} and no target given; give one of {', '.join(BOUNDS)}")
    if judge == "outputs" and "cosine" in bounds:
        bounds = {
            "output_cosine": bounds["cosine"],
            **{k: v for k, v in bounds.items() if k != "cosine"},
        }
    return Expectation(width, bounds, guards_off(given.get("guards", True)), judge)


def bounds_of_width(bits: int, project: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The targets of any width: its own, or those of the next narrower one that has some.

    One bit has those of two: the sign alone already gives a cosine of sqrt(2 / pi) = 0.798.
    """
    known = {**DEFAULT_COSINE, **project}
    nearest = max((width for width in known if width <= bits), default=min(known))
    held = {"cosine": DEFAULT_COSINE.get(nearest), **project.get(nearest, {})}
    return {key: bound for key, bound in held.items() if bound is not None}


def guards_off(guards: bool | Mapping[str, str]) -> dict[str, str]:
    """Which guards are left out, and why."""
    if isinstance(guards, Mapping):
        return dict(guards)
    return {} if guards else dict.fromkeys(GUARD_NAMES, "guards=False")
