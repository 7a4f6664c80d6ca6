"""Experts that one checkpoint stacks and the other keeps apart, or names in another way."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from .entries import Entry
from .pair import Pair, Unpaired
from .stored_tensor import StoredTensor
from .tensor_names import canonical
from .views import half_of_columns, part, rows_of

EXPERT = re.compile(
    r"(?P<holder>.+?)\.(?:experts|switch_mlp|block_sparse_moe)\.(?:(?P<number>\d+)\.)?"
    r"(?P<kind>gate_up_proj|gate_proj|up_proj|down_proj|w1|w2|w3|input_linear|output_linear)"
    r"(?:[._](?P<leaf>weight|bias))?"
)
GGUF_EXPERTS = re.compile(
    r"blk\.(?P<layer>\d+)\.ffn_(?P<kind>gate_up|gate|up|down)_exps\.(?P<leaf>weight|bias)"
)
KINDS = {"w1": "gate", "w2": "down", "w3": "up", "input_linear": "gate_up", "output_linear": "down"}
HEAD = re.compile(r"\.(?:experts|switch_mlp|input_linear|output_linear)\.")
HOLDERS = re.compile(r"\.(?:mlp|block_sparse_moe|feed_forward|ffn|moe)$")
LAYERS = re.compile(r"(?:layers|h|blocks)\.(\d+)")
HALVES = ("gate", "up")


class Place(NamedTuple):
    """Whose expert it is, which of its weights, and its number; None of a stack of all."""

    layer: str
    kind: str
    leaf: str
    number: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One tensor of one expert of the original; `transposed` if it is [in, out]."""

    place: Place
    tensor: StoredTensor
    transposed: bool = False

    @property
    def rows(self) -> int:
        """How many rows it has where it is quantized: of [out, in], or of the [out] of a bias."""
        return self.tensor.shape[-1 if self.transposed else 0]


def place_of(name: str) -> Place | None:
    """Where a tensor belongs; None if it is none of an expert."""
    if stack := GGUF_EXPERTS.fullmatch(name):
        return Place(f"layers.{stack['layer']}", stack["kind"], stack["leaf"], None)
    found = EXPERT.fullmatch(name)
    if found is None:
        return None
    layer = HOLDERS.sub("", canonical(found["holder"]))
    numbered = LAYERS.fullmatch(layer)
    kind = KINDS.get(found["kind"], found["kind"].removesuffix("_proj"))
    return Place(
        f"layers.{numbered[1]}" if numbered else layer,
        kind,
        found["leaf"] or "weight",
        int(found["number"]) if found["number"] else None,
    )


def pair_experts(left: Unpaired, config: Mapping[str, Any]) -> tuple[list[Pair], list[str]]:
    """A pair an expert, wherever its weight is in the quantized checkpoint; problems of stacks.

    config: of the original. Parts of an original stack that are nowhere stay behind.
    """
    places = {place: name for name in left.entries if (place := place_of(name))}
    if not places:
        return [], []
    pairs: list[Pair] = []
    used: dict[str, set[int]] = defaultdict(set)
    interleaved = config.get("model_type") == "gpt_oss"
    for name, parts in _parts(left.originals, interleaved).items():
        found = [(one, _entry_name(one.place, places)) for one in parts]
        if not any(entry_name for _, entry_name in found):
            continue
        del left.originals[name]
        for one, entry_name in found:
            if not entry_name:
                left.originals[one.tensor.name] = one.tensor
                continue
            number = one.place.number or 0
            used[entry_name].add(number)
            pairs.append(_pair(one, number, left.entries[entry_name]))
    problems = [_unlike(left.entries[entry_name], numbers) for entry_name, numbers in used.items()]
    for entry_name in used:
        del left.entries[entry_name]
    return pairs, [problem for problem in problems if problem]


def _entry_name(place: Place, places: Mapping[Place, str]) -> str:
    """The entry that holds an expert: its own, the stack of its kind, or one of gate and up."""
    stack = place._replace(number=None)
    fused = stack._replace(kind="gate_up") if place.kind in HALVES else stack
    return places.get(place) or places.get(stack) or places.get(fused) or ""


def _pair(one: Part, number: int, entry: Entry) -> Pair:
    """The pair of an expert: with an entry of its own, or with its rows of a stack."""
    held = place_of(entry.name)
    if held is None or held.number is not None:
        return Pair(one.tensor.name, one.tensor, entry, transposed=one.transposed)
    if held.kind != one.place.kind:
        number = 2 * number + HALVES.index(one.place.kind)
    return rows_of(entry, one.tensor, number * one.rows, one.transposed)


def _unlike(entry: Entry, numbers: set[int]) -> str:
    """What is wrong with a stack of more or fewer experts than the original has; else empty."""
    held = place_of(entry.name)
    stacked = [tensor.shape[0] for tensor in entry.parts.values() if len(tensor.shape) >= 3]
    if held is None or held.number is not None or not stacked or max(numbers) + 1 == stacked[0]:
        return ""
    return f"{entry.name!r} stacks {stacked[0]} experts, the original has {max(numbers) + 1}"


def _parts(originals: Mapping[str, StoredTensor], interleaved: bool) -> dict[str, list[Part]]:
    """The experts' tensors of the original by the name of what holds them: themselves, or a stack.

    Stacks of gate and up tell from the shape of that of down which way round they are.
    """
    places = {name: place for name in originals if (place := place_of(name))}
    shapes = {
        (place.layer, place.kind): originals[name].shape
        for name, place in places.items()
        if place.number is None and place.leaf == "weight"
    }
    parts: dict[str, list[Part]] = {}
    for name, place in places.items():
        if place.number is not None:
            parts[name] = [Part(place, originals[name])]
            continue
        gate_up, down = (shapes.get((place.layer, kind), ()) for kind in ("gate_up", "down"))
        transposed = len(gate_up) == len(down) == 3 and gate_up[2] == 2 * down[1]
        parts[name] = list(_split(originals[name], place, transposed, interleaved))
    return parts


def _split(
    stack: StoredTensor, place: Place, transposed: bool, interleaved: bool
) -> Iterator[Part]:
    """The experts of a stack; gate and up of each, where they are fused."""
    if len(stack.shape) < 2:
        return
    head = HEAD.split(stack.name)[0]
    shape = stack.shape[1:]
    turned = transposed and len(shape) == 2
    for number in range(stack.shape[0]):
        expert = part(stack, stack.name, number * prod(shape), shape)
        for which, kind in enumerate(HALVES if place.kind == "gate_up" else (place.kind,)):
            name = f"{head}.experts.{number}.{kind}_proj.{place.leaf}"
            own = Place(place.layer, kind, place.leaf, number)
            if place.kind != "gate_up":
                tensor = part(expert, name, 0, shape)
            elif turned or len(shape) == 1:
                tensor = half_of_columns(expert, name, which, interleaved)
            else:
                half = (shape[0] // 2, *shape[1:])
                tensor = part(expert, name, which * prod(half), half)
            yield Part(own, tensor, turned)
