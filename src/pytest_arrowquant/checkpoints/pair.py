"""Pair: a tensor of the original, and where its values are in the quantized checkpoint."""

from dataclasses import dataclass, field

from .entries import Entry
from .stored_tensor import StoredTensor


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A tensor of the original and the weight, or the rows of one, that holds it quantized.

    name: of the original's tensor; of the quantized one's where only that has it. original: None
    where only the quantized checkpoint has it; a view of the part, where the original is stacked
    or fused and the quantized one is not. entry: None where it is missing.

    What a format did before it quantized, in this order: transposed ([in, out] became [out, in],
    as for GPT-2's Conv1D); heads (the two halves of the rows of each of so many heads are
    interleaved, as for GGUF's Q and K; 0 if not); shift (what was added to every value, as for
    Gemma's norms in GGUF: in float32, or in float16 where the original is that).

    first_row, rows: where its rows lie among those of the entry's weight, if that stacks or fuses
    several: rows of `in` values, the experts' one after the other. rows is 0 where it is all of it.

    problem: why the pair fails whatever its values. notes: what the reader of its record should
    know.
    """

    name: str
    original: StoredTensor | None
    entry: Entry | None
    first_row: int = 0
    rows: int = 0
    heads: int = 0
    transposed: bool = False
    shift: float = 0.0
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """All pairs by name, what is wrong with the checkpoint as a whole, and what is worth knowing.

    Every tensor of the original is in one pair (its parts in one each, where it is stacked or
    fused and the other is not), but for those that hold no weights, which `notes` counts.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Unpaired:
    """What the rules of pairing have not paired yet, by name: each takes out what it pairs.

    sought: where a tensor of the original was looked for in vain, in words.
    """

    originals: dict[str, StoredTensor]
    entries: dict[str, Entry]
    sought: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, entry_name: str) -> tuple[StoredTensor, Entry]:
        """An original and an entry, which no other rule will see."""
        return self.originals.pop(name), self.entries.pop(entry_name)
