"""Round to nearest: the range of the group sets the scale."""

from dataclasses import dataclass
from typing import ClassVar

from ..cores import cores
from ..scheme import GroupSize, Scheme, Zero
from ..tensor import QuantizedTensor, quantize
from ..vocabulary import WIDTHS

HELD: dict[Zero, tuple[str, ...]] = {
    "none": (
        "zero_kept",
        "idempotent",
        "monotone",
        "scale_equivariant",
        "permutation_equivariant",
    ),
    "integer": ("zero_kept", "monotone", "scale_equivariant", "permutation_equivariant"),
    "float": (
        "idempotent",
        "monotone",
        "scale_equivariant",
        "nested_widths",
        "permutation_equivariant",
    ),
}


@dataclass(frozen=True, slots=True)
class Rtn:
    """Round to nearest.

    |w - restored| <= scale / 2, and <= |scale| at 2 bits symmetric, where the extreme of the
    other sign clips. Source: Jacob et al. 2018, section 3; the signed 2-bit scale is that of
    ggml's Q4_0.
    """

    group_size: GroupSize = 64
    zero: Zero = "none"

    name: ClassVar[str] = "rtn"
    bits: ClassVar[tuple[int, ...]] = WIDTHS

    @property
    def granularity(self) -> GroupSize:
        """What is quantized by itself."""
        return self.group_size

    @property
    def properties(self) -> tuple[str, ...]:
        """What holds at every width."""
        return HELD[self.zero]

    @property
    def lacks(self) -> dict[str, str]:
        """What it lacks of what all must have, and why."""
        if self.zero != "float":
            return {}
        return {"accurate": "at 2 bits zero may be no level, and a row of small weights be lost"}

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at `bits`, on all cores that are ours; calibration is not used."""
        return quantize(weight, Scheme(bits, self.zero, self.group_size), threads=cores())
