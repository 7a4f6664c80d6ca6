"""The built-in quantizers: a file an algorithm, and the table of them."""

from typing import Any, Protocol

from .mse import Mse
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


QUANTIZERS: dict[str, type[Rtn] | type[Mse]] = {"rtn": Rtn, "mse": Mse}

__all__ = ["QUANTIZERS", "Mse", "Quantizer", "Rtn"]
