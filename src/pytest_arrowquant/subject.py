"""What can be quantized as a whole: named layers, and what they are layers of."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from .scheme import rows_and_columns


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
        """Its values; read a few times a pass, so they may be drawn or loaded on access.

        Layers of a model may be read on several threads at a time, each on one.
        """


class FedLayer(Layer, Protocol):
    """A layer that knows what it is fed; its inputs are read once a pass."""

    @property
    def calibration(self) -> Any:
        """A Calibration to quantize for."""

    @property
    def held_out(self) -> Any:
        """A Calibration of other tokens, to judge by."""

    @property
    def producer(self) -> str | None:
        """The layer whose output channels it is fed, where a scale passes from one to the other."""


def takes_inputs(layer: Layer) -> TypeGuard[FedLayer]:
    """True where a layer has `calibration` and `held_out` inputs; False for a look-up table."""
    return bool(getattr(layer, "takes_inputs", False))


def columns_of(layer: Layer) -> int:
    """The weights in a row of a layer."""
    shape = getattr(layer, "shape", None)
    return rows_and_columns(tuple(layer.weight.shape if shape is None else shape))[1]


class Model(Sized, Protocol):
    """Layers one after the other, and what they are layers of."""

    @property
    def subject(self) -> Subject:
        """What a record says of the whole."""

    def __iter__(self) -> Iterator[Layer]:
        """The layers, in a fixed order."""
