"""What a format finds in a checkpoint: an Entry a weight, and what the config says of the rest."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .stored_tensor import StoredTensor
from .weight import StoredWeight

Parts = Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One logical weight of a checkpoint, by the name that it had before it was quantized.

    parts: the tensors it is made of, by role. load: reads them; CheckpointError where they do not
    fit each other or the config. None of a tensor that is stored as it is, its only part "plain".
    """

    name: str
    parts: Parts
    load: Callable[[], StoredWeight] | None = None

    @property
    def plain(self) -> StoredTensor | None:
        """The tensor, where it is stored as it is."""
        return None if self.load else self.parts["plain"]

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.stored_bytes for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class Exemption:
    """What a config keeps out of quantization: its words, and whether they mean a module's name."""

    text: str
    covers: Callable[[str], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """All that a checkpoint holds, as one format reads it.

    entries: quantized and plain ones, by name. companions: tensors that are neither (activation
    scales and the like), which no original has. exempt: what the config says stays unquantized;
    None where the format has no such list. settings: of the quantizer, for the record.
    """

    format: str
    entries: Mapping[str, Entry]
    companions: tuple[StoredTensor, ...] = ()
    exempt: tuple[Exemption, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def by_module(
    checkpoint: Checkpoint, suffixes: Iterable[str]
) -> dict[str, dict[str, StoredTensor]]:
    """Tensors named `<module>.<suffix>`, as module -> suffix -> tensor, for these suffixes."""
    found: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
    endings = {f".{suffix}": suffix for suffix in suffixes}
    longest = sorted(endings, key=len, reverse=True)
    for name, tensor in checkpoint.tensors.items():
        ending = next((e for e in longest if name.endswith(e)), None)
        if ending is not None:
            found[name.removesuffix(ending)][endings[ending]] = tensor
    return dict(found)


def contents(
    name: str,
    checkpoint: Checkpoint,
    quantized: Iterable[Entry],
    companions: Iterable[StoredTensor] = (),
    exempt: tuple[Exemption, ...] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Contents:
    """The Contents of a format that found these quantized weights: the rest is plain."""
    entries = {entry.name: entry for entry in quantized}
    companions = tuple(companions)
    taken = {part.name for entry in entries.values() for part in entry.parts.values()}
    taken |= {tensor.name for tensor in companions}
    for tensor_name, tensor in checkpoint.tensors.items():
        if tensor_name not in taken:
            stale = tensor_name in entries  # which of the two is meant, no format says
            entry_name = f"{tensor_name} (beside its codes)" if stale else tensor_name
            entries[entry_name] = Entry(entry_name, {"plain": tensor})
    return Contents(name, dict(sorted(entries.items())), companions, exempt, settings or {})


def require_part(parts: Parts, role: str, module: str) -> StoredTensor:
    """A part that the format cannot do without."""
    if role not in parts:
        known = next(iter(parts.values()))
        raise CheckpointError(
            f"{known.source}: {module!r} has no {role!r}, only {', '.join(sorted(parts))}"
        )
    return parts[role]
