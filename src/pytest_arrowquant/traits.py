"""What a quantizer says of itself: its widths, the weights it takes, and what holds of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, get_args

from .arrays import FLOATS
from .errors import QuantizerError, TargetError
from .expectation import JUDGES, WIDEST, validated
from .scheme import GroupSize

DIMENSIONS = (1, 2, 3, 4)
LARGEST = 3.4e38  # just within float32
Property = Literal[
    "zero_kept",
    "idempotent",
    "monotone",
    "sign_symmetric",
    "scale_equivariant",
    "nested_widths",
    "permutation_equivariant",
]
PROPERTIES: tuple[str, ...] = get_args(Property)


@dataclass(frozen=True, slots=True)
class Domain:
    """The weights that a quantizer takes; outside of it, it is not tried.

    dtypes: names of floating types. dimensions: numbers of axes. columns_multiple: what the number
    of weights in a row is a multiple of. smallest, largest: magnitudes of weights that are not 0.
    Raises QuantizerError for anything else.
    """

    dtypes: tuple[str, ...] = FLOATS
    dimensions: tuple[int, ...] = DIMENSIONS
    columns_multiple: int = 1
    smallest: float = 0.0
    largest: float = LARGEST

    def __post_init__(self) -> None:
        _require_among(self.dtypes, FLOATS, "dtypes")
        _require_among(self.dimensions, DIMENSIONS, "dimensions")
        if type(self.columns_multiple) is not int or self.columns_multiple < 1:
            raise QuantizerError(
                f"columns_multiple={self.columns_multiple!r} is not a whole number from 1"
            )
        if not 0 <= self.smallest < self.largest <= LARGEST:
            raise QuantizerError(
                f"smallest={self.smallest!r} and largest={self.largest!r} are no range of "
                f"magnitudes within 0 and {LARGEST:g}"
            )

    @property
    def axes_of_rows(self) -> int | None:
        """The fewest axes that a weight of rows and columns may have; None where vectors alone."""
        return next((axes for axes in (2, 3, 4) if axes in self.dimensions), None)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a quantizer declares.

    granularity: which weights share a scale: a number of weights along a row, "channel" for a row,
    "tensor" for all; None where that is not said. judge: what its accuracy is judged by.
    properties: what holds of it beyond what must hold of all. lacks: what must hold of all and does
    not of it, and why. guards: those to leave out, and why.
    """

    name: str
    bits: tuple[int, ...]
    granularity: GroupSize | None = None
    judge: str = "weights"
    properties: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)
    guards: Mapping[str, str] = field(default_factory=dict)
    domain: Domain = field(default_factory=Domain)
    needs_calibration: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        """What it asks of checks, in their keywords."""
        judge = {"judge": "outputs"} if self.by_outputs else {}
        return {**judge, "guards": self.guards} if self.guards else judge

    @property
    def by_outputs(self) -> bool:
        """True where it is judged by outputs, and needs inputs of a layer for that."""
        return self.judge == "outputs" or self.needs_calibration


def traits_of(quantizer: Any) -> Traits:
    """What a quantizer declares, checked; QuantizerError where that is no good.

    It needs `name`, `bits` (a width or several) and `quantize(weight, bits, calibration=None)`;
    all else may be left out.
    """
    known = getattr(quantizer, "traits", None)
    if isinstance(known, Traits):
        return known
    name = getattr(quantizer, "name", None)
    if isinstance(quantizer, type) or (callable(quantizer) and name is None):
        kind = "class" if isinstance(quantizer, type) else "function"
        raise QuantizerError(
            f"{quantizer!r} is a {kind}, not a quantizer; roundtrip(name, function) makes one of a "
            "function"
        )
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise QuantizerError(
            f"a quantizer of type {type(quantizer).__name__} has name={name!r}; expected a line of "
            "text"
        )
    if not callable(getattr(quantizer, "quantize", None)):
        raise QuantizerError(
            f"quantizer {name!r} has no quantize(weight, bits, calibration=None); "
            "roundtrip(name, function) makes a quantizer of a function"
        )
    try:
        return _checked(quantizer, name)
    except QuantizerError as error:
        raise QuantizerError(f"quantizer {name!r}: {error}") from None


def _checked(quantizer: Any, name: str) -> Traits:
    traits = Traits(
        name,
        _widths(getattr(quantizer, "bits", None)),
        _granularity(getattr(quantizer, "granularity", None)),
        getattr(quantizer, "judge", "weights"),
        _several(getattr(quantizer, "properties", ())),
        _reasons(quantizer, "lacks"),
        _reasons(quantizer, "guards"),
        getattr(quantizer, "domain", Domain()),
        bool(getattr(quantizer, "needs_calibration", False)),
    )
    if traits.judge not in JUDGES:
        raise QuantizerError(f"judge={traits.judge!r} is not 'weights' or 'outputs'")
    _require_among(traits.properties, PROPERTIES, "properties", some=False)
    for lacking, reason in traits.lacks.items():
        if not isinstance(reason, str) or not reason.strip():
            raise QuantizerError(f"lacks[{lacking!r}]={reason!r} is no reason; say why in words")
    try:
        validated({"guards": traits.guards}, "guards")
    except TargetError as error:
        raise QuantizerError(str(error)) from None
    if not isinstance(traits.domain, Domain):
        raise QuantizerError(f"domain={traits.domain!r} is not a Domain")
    return traits


def _widths(bits: Any) -> tuple[int, ...]:
    given = _several((bits,) if isinstance(bits, Integral) else bits)
    if not given or not all(_is_width(width) for width in given):
        raise QuantizerError(f"bits={bits!r} is no width from 1 to {WIDEST}, nor several")
    return tuple(sorted({int(width) for width in given}))


def _is_width(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= WIDEST


def _several(value: Any) -> Any:
    """As a tuple, if it is a list or the like; a text is none."""
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return tuple(value) if listed else value


def _reasons(quantizer: Any, what: str) -> dict[str, str]:
    given = getattr(quantizer, what, {})
    if not isinstance(given, Mapping):
        raise QuantizerError(f"{what}={given!r} is no mapping of names to reasons")
    return dict(given)


def _granularity(value: Any) -> GroupSize | None:
    if value in (None, "channel", "tensor") or (type(value) is int and value > 0):
        return value  # type: ignore[no-any-return]
    raise QuantizerError(
        f"granularity={value!r} is neither a number of weights along a row nor 'channel' "
        "nor 'tensor'"
    )


def _require_among(given: Any, known: tuple[Any, ...], what: str, some: bool = True) -> None:
    if not isinstance(given, tuple) or (some and not given):
        raise QuantizerError(f"{what}={given!r} is not a tuple of {', '.join(map(str, known))}")
    unknown = [entry for entry in given if entry not in known]
    if unknown:
        raise QuantizerError(
            f"{what} has {unknown[0]!r}, which is none of {', '.join(map(str, known))}"
        )
