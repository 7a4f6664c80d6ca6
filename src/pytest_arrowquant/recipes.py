"""What the comparison sets side by side: recipes of quantizer, activation ranges and smoothing."""

from dataclasses import dataclass
from typing import Literal

from .quantizers import COMPACT, Gptq, Quantizer, R2q, Rtn
from .vocabulary import MODALITIES

Ranges = Literal["static", "time_aware", "dynamic"]

WIDTH_PAIRS = ((2, 8), (4, 8), (8, 8), (4, 4))  # bits of weights, bits of activations
ASSERTED_ACTIVATIONS = 8  # at 4 bits, time-aware ranges alone meet no target beside outliers
TIME_GROUPS = 4  # recovers three quarters of what a range for every timestep would gain
BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantize a layer and its inputs.

    ranges: "static" (one range for all timesteps), "time_aware" (TIME_GROUPS groups of them) or
    "dynamic" (each group of each token its own, as the model runs). spatial: smoothing with a
    searched strength. searched: the group size of each layer is searched, see group_search.
    asserted: a test fails where it misses its targets with activations of ASSERTED_ACTIVATIONS
    bits; the others are there to compare with.
    """

    name: str
    quantizer: Quantizer
    ranges: Ranges = "static"
    spatial: bool = False
    searched: bool = False
    asserted: bool = False

    @property
    def optimizations(self) -> list[str]:
        """What it does beside quantizing, as the record has it."""
        used = {"spatial": self.spatial, "time_aware": self.ranges == "time_aware"}
        return [name for name, is_used in used.items() if is_used]

    @property
    def time_groups(self) -> int | None:
        """How many ranges the timesteps have; None where each token has its own."""
        return {"static": 1, "time_aware": TIME_GROUPS, "dynamic": None}[self.ranges]


def recipes_for(modality: str, bits: int) -> tuple[Recipe, ...]:
    """The recipes of a modality at a width of weights; the first is the baseline.

    Recommended: text and code take time-aware ranges with R2Q, which has two bits, and Mse above;
    image and audio take smoothing with GPTQ on the grid of Mse. Scales in super-blocks keep the
    bits near those of the baseline. Last is Q-DiT's recipe (Chen et al. 2024).
    """
    return (
        Recipe(BASELINE, Rtn()),
        Recipe("time_aware", Rtn(), "time_aware"),
        Recipe("spatial", Rtn(), spatial=True),
        Recipe("all", Rtn(), "time_aware", spatial=True, asserted=True),
        RECOMMENDED[modality](bits),
        Recipe("q_dit", Gptq(Rtn(zero="integer")), "dynamic", searched=True),
    )


def _of_tokens(bits: int) -> Recipe:
    quantizer = R2q() if bits in R2q.bits else COMPACT[bits]
    return Recipe("recommended", quantizer, "time_aware", asserted=True)


def _of_signals(bits: int) -> Recipe:
    return Recipe("recommended", Gptq(COMPACT[bits]), spatial=True, asserted=True)


RECOMMENDED = dict(zip(MODALITIES, (_of_tokens, _of_tokens, _of_signals, _of_signals), strict=True))
