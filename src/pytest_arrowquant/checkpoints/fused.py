"""Q, K and V, or gate and up, that one checkpoint keeps in one weight and the other in several."""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import prod
from typing import Any

from .pair import Pair, Unpaired
from .tensor_names import canonical
from .views import part, rows_of

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def pair_fused(left: Unpaired, config: Mapping[str, Any]) -> list[Pair]:
    """Pairs of each part. config: of the original, for the sizes of fused Q, K and V."""
    originals = {canonical(name): name for name in left.originals}
    entries = {canonical(name): name for name in left.entries}
    pairs: list[Pair] = []
    for whole, parts in _fused(entries, originals):
        pairs += _rows_of(left, entries[whole], [originals[name] for name in parts])
    for whole, parts in _fused(originals, entries):
        pairs += _parts_of(left, originals[whole], [entries[name] for name in parts], config)
    return pairs


def _fused(
    wholes: Mapping[str, str], parts: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of fused tensors on one side, all of whose parts are on the other."""
    for name in wholes:
        module, _, leaf = name.rpartition(".")
        holder, _, last = module.rpartition(".")
        names = tuple(f"{holder}.{kind}.{leaf}" for kind in FUSED.get(last, ()))
        if names and all(one in parts for one in names):
            yield name, names


def _rows_of(left: Unpaired, whole: str, names: list[str]) -> Iterator[Pair]:
    """The original's parts, each against its rows of the quantized whole."""
    entry = left.entries.pop(whole)
    tensors = [left.originals.pop(name) for name in names]
    starts = accumulate((tensor.shape[0] for tensor in tensors), initial=0)
    for tensor, start in zip(tensors, starts, strict=False):
        yield rows_of(entry, tensor, start)


def _parts_of(
    left: Unpaired, whole: str, names: list[str], config: Mapping[str, Any]
) -> Iterator[Pair]:
    """The parts of the original's whole, each against its quantized weight."""
    sizes = _sizes(len(names), left.originals[whole].shape[0], config)
    if not sizes:
        return
    tensor = left.originals.pop(whole)
    for name, size, start in zip(names, sizes, accumulate(sizes, initial=0), strict=False):
        shape = (size, *tensor.shape[1:])
        original = part(tensor, name, start * prod(shape[1:]), shape)
        yield Pair(name, original, left.entries.pop(name))


def _sizes(count: int, rows: int, config: Mapping[str, Any]) -> list[int]:
    """The rows of each part; none where they cannot be told."""
    if count == 2:
        return [rows // 2] * 2
    heads = config.get("num_attention_heads", 0)
    keys = config.get("num_key_value_heads", heads)
    if not heads or rows % (heads + 2 * keys):
        return []
    size = rows // (heads + 2 * keys)
    return [heads * size, keys * size, keys * size]
