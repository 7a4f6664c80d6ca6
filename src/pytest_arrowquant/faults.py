"""Faults: the known ways to break a quantized weight or its packing, to inject and to mend.

They are what was reported of GPTQ, AWQ, GGUF and bitsandbytes checkpoints (zeros of version 1 read
as version 2, AWQ's order of outputs, nibbles, transposed scales, Q and K as rotary embeddings want
them), and plain mistakes of code that quantizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from . import breaking as b
from . import damage as d
from .breaking import Change
from .damage import Break
from .specimen import Specimen

HEAD_SIZES = (64, 128, 32, 80, 96, 192, 256)  # rows of a head; the most common first
GPTQ = ("gptq", "gptqmodel", "autogptq")


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break a weight.

    sentence: what happened, for people; sentences: what it means of some methods, by name.
    breaks: makes it so. mends: what undoes it, by a detail that is to be told, "" if none; empty
    where that takes the reference (tracing.py). in_rows: it befalls single rows, and is mended in
    them alone.
    """

    name: str
    sentence: str
    breaks: Break
    mends: Mapping[str, Change] = field(default_factory=dict)
    in_rows: bool = False
    sentences: Mapping[str, str] = field(default_factory=dict)

    def inject(self, specimen: Specimen) -> Specimen | None:
        """The specimen broken; None where this cannot befall it, or changes no value."""
        broken = self.breaks(specimen)
        if broken is None or np.array_equal(broken.restore(), specimen.restore()):
            return None
        return broken

    def mend(self, specimen: Specimen, detail: str = "") -> Specimen | None:
        """The specimen mended in all rows; None where the mend does not apply to it."""
        return self.mends[detail](specimen, b.every_row(specimen))

    def says(self, method: str | None) -> str:
        """The sentence; that of a quantization method, if it has one of its own."""
        return self.sentences.get(method or "", self.sentence)


def _both_ways(name: str, sentence: str, there: Change, back: Change) -> Fault:
    return Fault(name, sentence, d.whole(there), {"": back})


def _scaled(factor: float) -> Fault:
    said = f"every value is {factor:g} times what it should be, as if by its scale"
    return _both_ways(f"scales x{factor:g}", said, b.scaled(factor), b.scaled(1 / factor))


def _row_scaled(name: str, sentence: str, factor: float) -> Fault:
    mends = {"": b.scaled(1 / factor)} if factor else {}
    return Fault(name, sentence, d.in_a_row(b.scaled(factor)), mends, in_rows=True)


def _off_by_one(by: int, of_gptq: str) -> Fault:
    said = f"every zero point is one too {'high' if by > 0 else 'low'}"
    return Fault(
        f"zero point {by:+d}",
        f"{said}, or every code one too {'low' if by > 0 else 'high'}",
        d.whole(b.zero_moved(by)),
        {"": b.zero_moved(-by)},
        sentences=dict.fromkeys(GPTQ, f"{said}: {of_gptq}"),
    )


def _heads(
    name: str, sentence: str, there: Callable[[int], Change], back: Callable[[int], Change]
) -> Fault:
    def broken(specimen: Specimen) -> Specimen | None:
        fitting = (size for size in HEAD_SIZES if specimen.layout[0] % size == 0)
        size = next(fitting, None)
        return d.whole(there(size))(specimen) if size else None

    return Fault(name, sentence, broken, {f"heads of {n} rows": back(n) for n in HEAD_SIZES})


def _moved(where: str, sentence: str, there: b.Move, back: b.Move) -> list[Fault]:
    """The same fault of scales, of zero points, and of both."""
    return [
        _both_ways(
            f"{part} {where}",
            sentence.format(part),
            b.parameters_moved(names, there),
            b.parameters_moved(names, back),
        )
        for part, names in b.PARTS.items()
    ]


def _first_for_all() -> list[Fault]:
    return [
        Fault(
            f"{part} of the first group for all",
            f"all groups of a row have the {part} of its first",
            d.whole(b.parameters_moved(names, b.first_of_row)),
        )
        for part, names in b.PARTS.items()
    ]


TABLE = (
    _scaled(2),
    _scaled(0.5),
    _scaled(1.5),
    _scaled(1.25),
    _scaled(1.05),
    _both_ways("sign flipped", "every value has the other sign", b.scaled(-1), b.scaled(-1)),
    _row_scaled("row zeroed", "a row is restored as zero", 0),
    _row_scaled("row sign flipped", "a row has the other sign", -1),
    _row_scaled("row doubled", "a row is twice what it should be", 2),
    Fault("two rows swapped", "two rows are in each other's place", d.rows_swapped, in_rows=True),
    Fault(
        "two groups swapped",
        "two groups of a row are in each other's place",
        d.groups_swapped,
        in_rows=True,
    ),
    _off_by_one(1, "zeros of version 2 were read as version 1"),
    _off_by_one(-1, "zeros of version 1 were read as version 2"),
    _both_ways(
        "nibbles swapped",
        "the two nibbles of every byte of codes are in each other's place",
        b.halves_swapped,
        b.halves_swapped,
    ),
    _both_ways(
        "high bits first",
        "the four codes of every byte are in the reverse order",
        b.byte_reversed,
        b.byte_reversed,
    ),
    _both_ways(
        "signed codes read as unsigned",
        "the highest bit of every code is flipped: signed codes were read as unsigned, or so",
        b.top_bit,
        b.top_bit,
    ),
    _both_ways(
        "AWQ order not undone",
        "outputs are in the order in which AWQ packs eight of them",
        b.outputs_packed(b.AWQ_ORDER),
        b.outputs_packed(b.AWQ_UNDONE),
    ),
    _both_ways(
        "AWQ order undone twice",
        "the order in which AWQ packs eight outputs was undone where there was nothing to undo",
        b.outputs_packed(b.AWQ_UNDONE),
        b.outputs_packed(b.AWQ_ORDER),
    ),
    _both_ways(
        "codes shifted by one",
        "every code is one place too far along its row",
        b.shifted(1),
        b.shifted(-1),
    ),
    _both_ways(
        "codes shifted back by one",
        "every code is one place too near the start of its row",
        b.shifted(-1),
        b.shifted(1),
    ),
    *_moved(
        "of the next group",
        "every group has the {} of the next one",
        b.rolled(-1, 1),
        b.rolled(1, 1),
    ),
    *_moved(
        "of the group before",
        "every group has the {} of the one before",
        b.rolled(1, 1),
        b.rolled(-1, 1),
    ),
    *_moved(
        "of the next row", "every row has the {} of the next one", b.rolled(-1, 0), b.rolled(1, 0)
    ),
    *_moved(
        "of the row before",
        "every row has the {} of the one before",
        b.rolled(1, 0),
        b.rolled(-1, 0),
    ),
    *_moved(
        "transposed",
        "{} that lie in [groups, rows] order were read as [rows, groups]",
        b.read_transposed,
        b.written_transposed,
    ),
    *_moved(
        "transposed back",
        "{} that lie in [rows, groups] order were read as [groups, rows]",
        b.written_transposed,
        b.read_transposed,
    ),
    *_first_for_all(),
    Fault("last group dropped", "the last group of every row is zero", d.last_group_dropped),
    Fault("outlier column zeroed", "an input channel is zero in every row", d.channel_zeroed),
    _heads(
        "Q/K rows interleaved",
        "the halves of the rows of every head are interleaved, as GGUF has queries and keys",
        b.interleaved,
        b.separated,
    ),
    _heads(
        "Q/K rows separated",
        "the interleaving of the rows of every head was undone where there was none",
        b.separated,
        b.interleaved,
    ),
    _both_ways("transposed", "the matrix is transposed", b.weight_transposed, b.weight_transposed),
    Fault("one NaN", "single values are NaN or infinite", d.value_nan, in_rows=True),
    Fault(
        "scale NaN", "a scale, and with it a group, is NaN or infinite", d.scale_nan, in_rows=True
    ),
)
FAULTS = {fault.name: fault for fault in TABLE}
