"""The built-in quantizers: a file an algorithm, and the table of them."""

from collections.abc import Callable
from typing import Any, Protocol

from .gptq import Gptq
from .hqq import Hqq
from .mse import COMPACT, Mse
from .r2q import R2q
from .rtn import Rtn


class Quantizer(Protocol):
    """What the accuracy suite asks of a quantizer; built-in ones are frozen dataclasses."""

    @property
    def name(self) -> str:
        """The name in ids and reports."""

    @property
    def bits(self) -> tuple[int, ...]:
        """The widths it supports."""

    def quantize(self, weight: Any, bits: int, calibration: Any = None) -> Any:
        """Anything with `dequantize()` and, if it can, `nbytes`."""


def needs_calibration(quantizer: Quantizer) -> bool:
    """True where `quantize` must be given a layer's inputs; it is then judged by its outputs."""
    return bool(getattr(quantizer, "needs_calibration", False))


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "rtn": Rtn,
    "mse": Mse,
    "hqq": Hqq,
    "r2q": R2q,
    "gptq": Gptq,
}

__all__ = [
    "COMPACT",
    "QUANTIZERS",
    "Gptq",
    "Hqq",
    "Mse",
    "Quantizer",
    "R2q",
    "Rtn",
    "needs_calibration",
]
