"""Where in its model a tensor is, as its name says: the layer, the expert, and what it is there."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# of model.layers.3, transformer.h.3, blk.3, visual.blocks.3, single_transformer_blocks.3
STACK = re.compile(r"h|blk|\w*(?:layers?|blocks?)")
EXPERTS = re.compile("experts")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a tensor.

    stack, layer: as `model.layers` and 3; "" and None outside the layers. expert: its number, or
    None. role: what the tensor is in every layer and expert, such as `q_proj`.
    """

    stack: str
    layer: int | None
    expert: int | None
    role: str


def places_of(names: Iterable[str]) -> dict[str, Place]:
    """The place of each name.

    A role has as few parts of the names as tell it from the other roles: `q_proj`, and
    `mlp.c_proj` beside `attn.c_proj`.
    """
    parsed = {name: _parsed(name) for name in names}
    paths = {path for _, _, _, path in parsed.values()}
    endings = Counter(path[-length:] for path in paths for length in range(1, len(path) + 1))
    roles = {path: _role(path, endings) for path in paths}
    return {
        name: Place(stack, layer, expert, roles[path])
        for name, (stack, layer, expert, path) in parsed.items()
    }


def _parsed(name: str) -> tuple[str, int | None, int | None, Path]:
    """Stack, layer, expert, and the parts of the name that remain."""
    parts = name.removesuffix(".weight").split(".")
    layer = _numbered(parts, STACK)
    stack = ".".join(parts[:layer]) if layer else ""
    rest = parts[layer + 1 :] if layer else parts
    expert = _numbered(rest, EXPERTS)
    return (
        stack,
        int(parts[layer]) if layer else None,
        int(rest[expert]) if expert else None,
        _path(rest),
    )


def _numbered(parts: list[str], before: re.Pattern[str]) -> int | None:
    """Where the first number after such a part is, with something to follow it."""
    for at in range(1, len(parts) - 1):
        if parts[at].isdecimal() and before.fullmatch(parts[at - 1]):
            return at
    return None


def _path(parts: list[str]) -> Path:
    """The parts without numbers; a last number or `bias` stays with what it is of."""
    parts = list(parts)
    last = [parts.pop()]
    while parts and (last[0] == "bias" or last[0].isdecimal()):
        last.insert(0, parts.pop())
    return (*(part for part in parts if not part.isdecimal()), ".".join(last))


def _role(path: Path, endings: Counter[Path]) -> str:
    """The shortest ending that no other path has; all of it if that is the ending of another."""
    lengths = range(1, len(path) + 1)
    shortest = next((n for n in lengths if endings[path[-n:]] == 1), len(path))
    return ".".join(path[-shortest:])
