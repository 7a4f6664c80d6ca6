"""The properties that a quantizer must have, and those that it may declare.

Each is a function of (quantizer, weight, bits, calibration=None) that raises InvariantBroken, an
AssertionError, with the sentence that is broken and the weight; QuantizerError where the quantizer
raises or restores no weight at all. INVARIANTS is the table of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import QuantizerError
from ..traits import PROPERTIES, Traits, traits_of
from .attempt import Check
from .bounds import accurate, constant_rows, error_bounded, ragged_sizes, zero_rows
from .calls import calls_independent, deterministic, input_not_needed, input_untouched
from .declared import (
    idempotent,
    monotone,
    nested_widths,
    permutation_equivariant,
    scale_equivariant,
    sign_symmetric,
    zero_kept,
)
from .honesty import bytes_honest
from .results import dtype_kept, finite, layout_free, shape_kept
from .sentences import SENTENCES
from .sharing import groups_independent, levels, rows_independent

Data = Literal["small", "large", "both", "none"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """A property of quantizers.

    sentence: what it says, in plain words. check: (quantizer, weight, bits, calibration=None) that
    raises InvariantBroken. data: on which weights it is tried, "none" where it has its own.
    applies: whether it is asked of a quantizer with these traits.
    """

    name: str
    sentence: str
    check: Check
    data: Data
    applies: Callable[[Traits], bool]

    @property
    def mandatory(self) -> bool:
        """True where every quantizer must have it, unless it says that it lacks it."""
        return self.name not in PROPERTIES


def _of_all(traits: Traits) -> bool:
    return True


def _not_of_tensors(traits: Traits) -> bool:
    return traits.granularity != "tensor"


def _of_groups(traits: Traits) -> bool:
    return isinstance(traits.granularity, int)


def _by_weights(traits: Traits) -> bool:
    return not traits.by_outputs


def _mandatory(check: Check, data: Data, applies: Callable[[Traits], bool] = _of_all) -> Invariant:
    name = check.__name__
    return Invariant(name, SENTENCES[name], check, data, applies)


def _declared(check: Check, data: Data = "both") -> Invariant:
    name = check.__name__
    return Invariant(name, SENTENCES[name], check, data, lambda traits: name in traits.properties)


INVARIANTS: dict[str, Invariant] = {
    invariant.name: invariant
    for invariant in (
        _mandatory(shape_kept, "small"),
        _mandatory(dtype_kept, "small"),
        _mandatory(finite, "both"),
        _mandatory(deterministic, "both"),
        _mandatory(calls_independent, "small"),
        _mandatory(input_untouched, "small"),
        _mandatory(input_not_needed, "small"),
        _mandatory(layout_free, "both"),
        _mandatory(rows_independent, "both", _not_of_tensors),
        _mandatory(groups_independent, "both", _of_groups),
        _mandatory(levels, "both"),
        _mandatory(bytes_honest, "none"),
        _mandatory(error_bounded, "both", _by_weights),
        _mandatory(zero_rows, "small", _not_of_tensors),
        _mandatory(constant_rows, "small", _by_weights),
        _mandatory(ragged_sizes, "none"),
        _mandatory(accurate, "large"),
        _declared(zero_kept),
        _declared(idempotent),
        _declared(monotone),
        _declared(sign_symmetric),
        _declared(scale_equivariant),
        _declared(nested_widths),
        _declared(permutation_equivariant),
    )
}


def applicable(quantizer: Any) -> tuple[Invariant, ...]:
    """The invariants asked of a quantizer: mandatory ones for its traits, and those it declares.

    Those that it lacks are among them, for whoever runs them to judge. Raises QuantizerError where
    it lacks what is no mandatory invariant.
    """
    traits = traits_of(quantizer)
    for lacking in traits.lacks:
        if lacking not in INVARIANTS or not INVARIANTS[lacking].mandatory:
            mandatory = (name for name, known in INVARIANTS.items() if known.mandatory)
            raise QuantizerError(
                f"quantizer {traits.name!r}: lacks has {lacking!r}, which is none of "
                f"{', '.join(mandatory)}"
            )
    return tuple(invariant for invariant in INVARIANTS.values() if invariant.applies(traits))


__all__ = ["INVARIANTS", "Invariant", "applicable", *INVARIANTS]
