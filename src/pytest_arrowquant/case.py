"""What is known of one restored tensor, and a value held against a bound."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from .arrays import Array
from .codes import Grid
from .evidence import Evidence, Wanted, gather
from .metrics import Deviation, deviation, outputs_of
from .nearest import MX_GROUP, Nearest, NearestWeight, microscaled
from .row_blocks import RowBlocks
from .scheme import GroupSize, Scheme, Zero

Op = Literal[">=", ">", "<=", "within"]

EXCUSE = 1.25  # times what round-to-nearest does
ALIKE = 1.01  # errors that differ by less are the same, computed otherwise
FINE = 4  # bits
LEAST_DEAD_ROWS = 16  # an input channel read by fewer outputs may round to zero in all of them
WIDEST = 8  # bits of the round-to-nearest that wider ones are held to
SHORTEST_FLOORED_ROW = 32  # weights; chance alone moves the error of shorter rows by 3 dB


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

    blocks: the tensor and its reference, for what needs another pass. outputs: inputs @ weights.T,
    if inputs were given, or outputs that were made of quantized inputs. grid: what the quantizer
    says of itself, if anything.
    """

    blocks: RowBlocks
    evidence: Evidence
    inputs: Array | None
    outputs: Deviation | None
    judge: str
    bits: int | None
    grid: Grid | None
    nbytes: int | None

    @classmethod
    def of(
        cls,
        blocks: RowBlocks,
        inputs: Array | None,
        outputs: Deviation | None,
        judge: str,
        bits: int | None,
        grid: Grid | None,
        nbytes: int | None,
    ) -> "Case":
        """The case with the evidence of one pass, which gathers what its guards will look at."""
        wanted = _wanted(blocks, judge == "outputs", bits, grid)
        evidence = gather(blocks, wanted)
        return cls(blocks, evidence, inputs, outputs, judge, bits, grid, nbytes)

    @property
    def weights(self) -> Deviation:
        """How far the weights are from the reference."""
        return self.evidence.weights

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.blocks.reference.shape

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
        """The width of the round-to-nearest that is a yardstick; None without one.

        None also where float64 weights leave the range of float32, in which it rounds, and where
        outputs are judged that were made of quantized inputs, to which it is no floor.
        """
        if self.weights.exponent or (self.inputs is None and not self.by_weights):
            return None
        return None if self.bits is None or self.bits < 2 else min(self.bits, WIDEST)

    @property
    def kinds(self) -> tuple[Nearest, ...]:
        """Round-to-nearest of each kind that the quantizer may be, by row where not said.

        Floats of 8 bits, which are as fine over many binades, may have one scale of the tensor as
        well: for those of square blocks.
        """
        assert self.width is not None
        if self.grid and self.grid.table:
            by_row = Nearest(self.width, table=self.grid.table)
            kinds = [by_row]
            if microscaled(self.grid.table, self.grid.group_size):
                kinds.append(replace(by_row, group_size=MX_GROUP, power_of_two=True))
            if self.bits == WIDEST:
                kinds.append(replace(by_row, group_size="tensor"))
            return tuple(kinds)
        zero = self.grid.zero if self.grid else None
        zeros: tuple[Zero, ...] = get_args(Zero) if zero is None else (zero,)
        return tuple(Nearest(self.width, zero) for zero in zeros)

    @property
    def fed_back(self) -> bool:
        """True where the codes may come of error feedback, and the weights are judged."""
        return self.by_weights and self.grid is not None and self.grid.feedback

    @property
    def fine(self) -> bool:
        """True from 4 bits on: so fine that only a broken quantizer loses a column or a step."""
        return self.bits is not None and self.bits >= FINE

    def nearest(self, kind: Nearest) -> Deviation:
        """What round-to-nearest makes of the same weights, judged in the same place."""
        low, high, reference = self.evidence.low, self.evidence.high, self.blocks.reference
        rounded = NearestWeight(reference, kind, low, high)
        if self.by_weights:
            return deviation(reference, rounded)
        assert self.inputs is not None
        restored = rounded.restore(0, len(low)).reshape(reference.shape)
        return deviation(outputs_of(reference, self.inputs), outputs_of(restored, self.inputs))


def grid_of(restored: Any) -> Grid | None:
    """What a quantized result says of its grid, by `grid` or by `scheme`; None if nothing."""
    grid = getattr(restored, "grid", None)
    if isinstance(grid, Grid):
        return grid
    scheme = getattr(restored, "scheme", None)
    if isinstance(scheme, Scheme):
        feedback = bool(getattr(restored, "feedback", False))
        return Grid(scheme.bits, scheme.zero, scheme.group_size, feedback=feedback)
    return None


def _wanted(blocks: RowBlocks, by_outputs: bool, bits: int | None, grid: Grid | None) -> Wanted:
    """What the guards of such a tensor look at; the rest is not gathered."""
    if bits is None:
        return Wanted()
    fine, (rows, columns) = bits >= FINE, blocks.layout
    feedback = grid is not None and grid.feedback
    size = grid.group_size if grid else None
    return Wanted(
        order=fine and not by_outputs and not feedback,
        columns=fine and len(blocks.reference.shape) > 1 and rows >= LEAST_DEAD_ROWS,
        group_size=columns if size == "channel" else size,
        limit=2**bits,
        rounded=None if by_outputs else _rounded(bits, grid, columns),
        rounding=not by_outputs and _nearest_codes(bits, grid),
    )


def _nearest_codes(bits: int, grid: Grid | None) -> bool:
    """True where codes should be the nearest: integers, so few bits that rounded scales still say.

    Scales in bfloat16 move the largest values by an eighth of a step at 6 bits, by a half at 8. One
    scale of a tensor leaves whole rows at zero.
    """
    if grid is None or grid.table or grid.feedback:
        return False
    return bits <= FINE and grid.group_size not in (None, "tensor")


def _rounded(bits: int, grid: Grid | None, columns: int) -> Nearest | None:
    """The yardstick of rows that is found in the same pass: that of a table."""
    if grid is None or not grid.table or grid.feedback or grid.group_size in (None, "tensor"):
        return None
    return Nearest(bits, table=grid.table) if columns >= SHORTEST_FLOORED_ROW else None


def excused(case: Case, finding: Finding, value_of: Callable[[Deviation], float]) -> Finding:
    """Widen a missed bound to what round-to-nearest itself does to these weights, and a quarter.

    Odd weights (nearly all zero, or all on a grid) move the honest as well. Round-to-nearest is
    taken by row, and with the quantizer's own groups where it names them; who errs by more than it
    is not excused. Looked at only where the bound is missed, because it costs a quantization.
    """
    if finding.passed or case.width is None:
        return finding
    error = case.judged.sums.error_energy
    size: GroupSize = case.grid.group_size if case.grid and case.grid.group_size else "channel"
    kinds = {*case.kinds, *(replace(kind, group_size=size) for kind in case.kinds)}
    nearest = [case.nearest(kind) for kind in kinds]
    honest = [value_of(found) for found in nearest if error <= ALIKE * found.sums.error_energy]
    return replace(finding, bound=max(finding.bound, EXCUSE * max(honest, default=0.0)))
