"""What is known of one restored tensor, and a value held against a bound."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .arrays import Array
from .metrics import Deviation, deviation, outputs_of
from .scheme import GroupSize, Scheme, Zero
from .tensor import quantize
from .vocabulary import WIDTHS

Op = Literal[">=", ">", "<=", "within"]

EXCUSE = 1.25  # times what round-to-nearest does


@dataclass(frozen=True, slots=True)
class Finding:
    """A value held against a bound. op "within": |value - 1| <= bound."""

    metric: str
    op: Op
    bound: float
    value: float
    where: str = ""

    @property
    def margin(self) -> float:
        """How far on the good side; negative is a failure."""
        if self.op == "<=":
            return self.bound - self.value
        if self.op == "within":
            return self.bound - abs(self.value - 1)
        return self.value - self.bound

    @property
    def passed(self) -> bool:
        """The verdict on this bound; NaN never passes."""
        return self.margin > 0 if self.op == ">" else self.margin >= 0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What is known of one restored tensor.

    reference: the weights as given. outputs: inputs @ weights.T, if inputs were given, or outputs
    that were made of quantized inputs.
    """

    reference: Array
    weights: Deviation
    inputs: Array | None
    outputs: Deviation | None
    judge: str
    bits: int | None
    scheme: Scheme | None
    nbytes: int | None

    @property
    def judged(self) -> Deviation:
        """What gain, bias and floor look at."""
        return self.outputs if self.judge == "outputs" and self.outputs else self.weights

    @property
    def by_weights(self) -> bool:
        """True unless the outputs are judged."""
        return self.judged is self.weights

    @property
    def width(self) -> int | None:
        """The widest width of round-to-nearest not wider than what is judged; None without one.

        None also where float64 weights leave the range of float32, in which it quantizes, and
        where outputs are judged that were made of quantized inputs, to which it is no floor.
        """
        if self.weights.exponent or (self.inputs is None and not self.by_weights):
            return None
        return max((width for width in WIDTHS if self.bits and width <= self.bits), default=None)

    @property
    def zeros(self) -> tuple[Zero, ...]:
        """The kinds of zero that the quantizer may have; all of them where it does not say."""
        return (self.scheme.zero,) if self.scheme else get_args(Zero)

    @property
    def fine(self) -> bool:
        """True from 4 bits on: so fine that only a broken quantizer loses a column or a step."""
        return self.bits is not None and self.bits >= 4

    def nearest(self, zero: Zero, group_size: GroupSize) -> Deviation:
        """What round-to-nearest makes of the same weights, judged in the same place."""
        assert self.width is not None
        restored = quantize(self.reference, Scheme(self.width, zero, group_size)).dequantize()
        if self.by_weights:
            return deviation(self.reference, restored)
        assert self.inputs is not None
        return deviation(outputs_of(self.reference, self.inputs), outputs_of(restored, self.inputs))


def excused(case: Case, finding: Finding, value_of: Callable[[Deviation], float]) -> Finding:
    """Widen a missed bound to what round-to-nearest itself does to these weights, and a quarter.

    Odd weights (nearly all zero, or all on a grid) move the honest as well. Round-to-nearest is
    taken by row, and with the quantizer's own groups where it names them; who errs by more than it
    is not excused. Looked at only where the bound is missed, because it costs a quantization.
    """
    if finding.passed or case.width is None:
        return finding
    error = case.judged.sums.error_energy
    sizes: set[GroupSize] = {"channel", case.scheme.group_size if case.scheme else "channel"}
    nearest = [case.nearest(zero, size) for zero in case.zeros for size in sizes]
    honest = [value_of(found) for found in nearest if error <= found.sums.error_energy]
    return replace(finding, bound=max(finding.bound, EXCUSE * max(honest, default=0.0)))
