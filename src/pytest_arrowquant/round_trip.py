"""A quantizer made of a bare function, so that it can be put under test."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np

from .arrays import Array, dequantizes
from .errors import QuantizerError
from .scheme import GroupSize
from .traits import Domain, Property, Traits, traits_of

Framework = Literal["numpy", "torch"]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a function restored, as what a quantizer returns."""

    values: Any

    def dequantize(self) -> Any:
        """The restored values."""
        return self.values


class RoundTrip:
    """A quantizer that calls a function. Made by `roundtrip`, which says what is what."""

    def __init__(
        self,
        traits: Traits,
        function: Callable[..., Any],
        framework: Framework,
        keywords: Mapping[str, str],
    ) -> None:
        self.traits = traits
        self.function = function
        self.framework = framework
        self.keywords = keywords

    @property
    def name(self) -> str:
        """The name in ids and reports."""
        return self.traits.name

    @property
    def bits(self) -> tuple[int, ...]:
        """The widths it supports."""
        return self.traits.bits

    @property
    def needs_calibration(self) -> bool:
        """True where the function takes `calibration`."""
        return self.traits.needs_calibration

    def quantize(self, weight: Array, bits: int, calibration: Any = None) -> Any:
        """What the function makes of the weight: its result if that has `dequantize()`."""
        given = self._handed(weight)
        further: dict[str, Any] = {"bits": bits}
        if self.needs_calibration:
            inputs = getattr(calibration, "inputs", calibration)
            further["calibration"] = None if inputs is None else self._handed(inputs)
        keywords = {parameter: further[what] for what, parameter in self.keywords.items()}
        made = self.function(given, **keywords)
        if made is given:
            raise QuantizerError(f"quantizer {self.name!r} returned its input itself")
        return made if dequantizes(made) else Result(made)

    def _handed(self, array: Array) -> Any:
        """The array, or a torch tensor of it, which shares its memory only if it is writeable."""
        if self.framework == "numpy":
            return array
        import torch

        forward = all(stride >= 0 for stride in array.strides)  # torch knows no other
        own = array if array.flags.writeable and forward else np.array(array, order="K")
        if own.dtype.name == "bfloat16":
            return torch.from_numpy(own.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(own)


def roundtrip(
    name: str,
    function: Callable[..., Any],
    bits: int | Sequence[int] = (4,),
    framework: Framework = "numpy",
    *,
    granularity: GroupSize | None = None,
    judge: str = "weights",
    properties: Sequence[Property] = (),
    lacks: Mapping[str, str] | None = None,
    guards: Mapping[str, str] | None = None,
    domain: Domain | None = None,
) -> RoundTrip:
    """A quantizer of a function that quantizes a weight and restores it.

    function: called with the weight and, where it takes a second argument or one called `bits`,
    with the width; where it takes `calibration`, with the layer's inputs, (tokens, input
    channels), which makes it judged by outputs. It returns the restored weight, or an object with
    `dequantize()` and, if it can, `nbytes`. bits: the widths it supports. framework: "torch" hands
    it torch tensors: copies, as weights are read-only. What it may declare, see Traits:
    granularity, judge, properties, lacks, guards, domain. Raises QuantizerError for anything else.
    """
    if not callable(function):
        raise QuantizerError(f"quantizer {name!r}: function={function!r} cannot be called")
    if framework not in get_args(Framework):
        raise QuantizerError(
            f"quantizer {name!r}: framework={framework!r} is not 'numpy' or 'torch'"
        )
    keywords = _keywords(function)
    declared = SimpleNamespace(
        name=name,
        bits=bits,
        quantize=function,
        granularity=granularity,
        judge=judge,
        properties=properties,
        lacks={} if lacks is None else lacks,
        guards={} if guards is None else guards,
        domain=Domain() if domain is None else domain,
        needs_calibration="calibration" in keywords,
    )
    traits = traits_of(declared)
    if len(traits.bits) > 1 and "bits" not in keywords:
        raise QuantizerError(
            f"quantizer {name!r} has bits={traits.bits}, and its function takes no `bits` to be "
            "told which"
        )
    return RoundTrip(traits, function, framework, keywords)


def _keywords(function: Callable[..., Any]) -> dict[str, str]:
    """The parameters for `bits` and `calibration`, where the function has them."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # nothing is known of some functions written in C
        return {}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    keywords = {p.name: p.name for p in named if p.name in ("bits", "calibration")}
    second = named[1] if len(named) > 1 else None
    if second and second.default is second.empty and second.name not in keywords:
        keywords.setdefault("bits", second.name)
    return keywords
