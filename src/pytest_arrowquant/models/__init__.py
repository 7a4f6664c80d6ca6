"""Synthetic models: a family a file, drawn layer by layer, never whole in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ..errors import OptionError
from ..subject import Subject
from ..vocabulary import MODALITIES
from .code import code_diffusion
from .dit import dit
from .layer import SyntheticLayer
from .text import mdlm, sedd
from .vae import small_vae, vae
from .wavegrad import wavegrad

Scale = Literal["small", "full"]
SMALL_VOCABULARY = 2048


@dataclass(frozen=True, slots=True)
class Family:
    """The layers of a family at both scales: true hidden sizes with few layers, or all layers."""

    modality: str
    small: Callable[[], Iterable[SyntheticLayer]]
    full: Callable[[], Iterable[SyntheticLayer]]


FAMILIES = {  # the first of a modality is its default
    "mdlm": Family("text", partial(mdlm, (0,), SMALL_VOCABULARY), partial(mdlm, range(12))),
    "sedd": Family("text", partial(sedd, (0,), SMALL_VOCABULARY), partial(sedd, range(12))),
    "code": Family(
        "code",
        partial(code_diffusion, (0,), SMALL_VOCABULARY),
        partial(code_diffusion, range(12)),
    ),
    "dit": Family("image", partial(dit, (12,)), partial(dit, range(24))),  # a block of the middle
    "vae": Family("image", small_vae, vae),
    "wavegrad": Family("audio", partial(wavegrad, (1,)), partial(wavegrad, range(16))),
}


@dataclass(frozen=True, slots=True)
class SyntheticModel:
    """A seeded model: iterate over its layers.

    Each has `.name`, `.shape`, `.weight`, and its inputs `.calibration` and `.held_out`.
    """

    subject: Subject
    layers: tuple[SyntheticLayer, ...]

    def __iter__(self) -> Iterator[SyntheticLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def synthetic_model(family: str, scale: Scale = "small", seed: int = 0) -> SyntheticModel:
    """The model of a family, or of the first family of a modality.

    Raises OptionError for a name that is neither, or a scale that is not "small" or "full".
    """
    name = next((key for key, known in FAMILIES.items() if family in (key, known.modality)), None)
    if name is None:
        known = ", ".join((*FAMILIES, *(m for m in MODALITIES if m not in FAMILIES)))
        raise OptionError(f"unknown model family {family!r}; known are {known}")
    if scale not in ("small", "full"):
        raise OptionError(f"scale={scale!r} is not 'small' or 'full'")
    layers = FAMILIES[name].full() if scale == "full" else FAMILIES[name].small()
    return SyntheticModel(
        Subject("synthetic", FAMILIES[name].modality, name),
        tuple(replace(layer, family=name, seed=seed, kept=scale == "small") for layer in layers),
    )
