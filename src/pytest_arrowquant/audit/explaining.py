"""Why a tensor of a checkpoint fails: the known fault which, undone, would bring it back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..arrays import Array
from ..checkpoints.pairing import Pair
from ..checkpoints.weight import StoredWeight
from ..expectation import Expectation
from ..explain import Explanation, explain
from ..messages import NO_CAUSE
from .views import reference_of

MOST_NEIGHBOURS = 12


@dataclass(slots=True, eq=False)
class Explainer:
    """Explains the failures of one audit. method: the checkpoint's format."""

    pairs: Sequence[Pair]
    method: str
    by_shape: dict[tuple[int, ...], list[Pair]] = field(default_factory=dict)

    def explain(
        self, pair: Pair, weight: StoredWeight, expectation: Expectation, notes: list[str]
    ) -> Explanation | None:
        """What would bring the weight back; a note says where nothing known does."""
        neighbours = {other.name: _loader(other) for other in self._neighbours(pair)}
        found = explain(
            reference_of(pair, weight.shape),
            weight,
            expectation,
            method=self.method,
            neighbours=neighbours,
        )
        if found is None:
            notes.append(NO_CAUSE)
        return found

    def _neighbours(self, pair: Pair) -> list[Pair]:
        """Tensors of the same shape nearby, which this one may have been swapped with."""
        if not self.by_shape:
            for other in self.pairs:
                if other.original is not None and other.entry is not None and other.entry.load:
                    self.by_shape.setdefault(other.original.shape, []).append(other)
        assert pair.original is not None
        alike = self.by_shape.get(pair.original.shape, [])
        at = next((i for i, other in enumerate(alike) if other is pair), 0)
        near = sorted((abs(i - at), i) for i, other in enumerate(alike) if other is not pair)[
            :MOST_NEIGHBOURS
        ]
        return [alike[i] for _, i in near]


def _loader(pair: Pair) -> Callable[[], Array]:
    def load() -> Array:
        reference = reference_of(pair)
        return reference.reshape(-1, reference.shape[-1]) if reference.ndim == 3 else reference

    return load
