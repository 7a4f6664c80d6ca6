"""What can be quantized as a whole: named layers, and what they are layers of."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Subject:
    """What was quantized: kind "synthetic", "checkpoint" or "array", and where it comes from."""

    kind: str = "array"
    modality: str | None = None
    family: str | None = None
    source: str | None = None


class Layer(Protocol):
    """A named weight."""

    @property
    def name(self) -> str:
        """Its name in the model."""

    @property
    def weight(self) -> Any:
        """Its values; read once a pass, so they may be drawn or loaded on access."""


class Model(Sized, Protocol):
    """Layers one after the other, and what they are layers of."""

    @property
    def subject(self) -> Subject:
        """What a record says of the whole."""

    def __iter__(self) -> Iterator[Layer]:
        """The layers, in a fixed order."""
