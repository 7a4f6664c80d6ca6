"""The names that llama.cpp's converter gives tensors, and what it does to their values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import CheckpointError
from .entries import Entry
from .experts import place_of
from .gguf_heads import pair_by_head
from .pair import Pair, Unpaired
from .stored_tensor import StoredTensor
from .tensor_names import canonical, layer_number, some

SUFFIXES = (".weight", ".bias")
WRAPPERS = ("", "model.", "transformer.", "backbone.")  # before a canonical name, in gguf's map

# conversion/*.py of llama.cpp: the architectures whose q_proj and k_proj it permutes
PERMUTED = {
    *("llama", "llama-embed", "mistral3", "arcee", "arctic", "chameleon", "deci", "deepseek"),
    *("eagle3", "granite", "granitemoe", "granitehybrid", "llada", "minicpm", "nanbeige", "olmo"),
    *("smollm3", "xverse"),
}
QUERIES, KEYS = ("q_proj.weight", "q_proj.bias"), ("k_proj.weight", "k_proj.bias")

# ... and those to whose norms it adds one
SHIFTED = {"gemma", "gemma2", "gemma3", "gemma-embedding", "nemotron", "minimax-m3", "qwen3next"}
NOT_SHIFTED = ("linear_attn.norm.weight",)

# ... and the vectors of state space models that it rewrites
DECAY = ".A_log"

# ... and what it drops: BERT serves for embeddings alone
BERTS = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"}
DROPPED = ("pooler.dense.", "cls.predictions.", "cls.seq_relationship.")


def pair_gguf(
    left: Unpaired, metadata: Mapping[str, str], config: Mapping[str, Any]
) -> tuple[list[Pair], list[str]]:
    """The pairs that the name map of the file's architecture makes, and what it leaves out.

    metadata: of the GGUF. config: of the original.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    name = metadata.get("general.architecture", "")
    known = {text: number for number, text in MODEL_ARCH_NAMES.items()}
    if name not in known:
        return [], [f"GGUF's architecture {name!r} is not known to the gguf package: no name map"]
    numbers = (layer_number(entry_name) for entry_name in left.entries)
    layers = max((number + 1 for number in numbers if number is not None), default=0)
    names = get_tensor_name_map(known[name], max(layers, _number(metadata, f"{name}.block_count")))
    pairs, decays = pair_by_head(left, name, config), []
    for original_name in list(left.originals):
        if place_of(original_name) or original_name in left.sought:
            continue  # experts are stacked; and what was looked for by heads has another layout
        mapped = _translated(original_name, names.get_name)
        found = next((n for n in (mapped, f"{mapped}.weight") if n in left.entries), "")
        if found and original_name.endswith(DECAY):
            left.take(original_name, found)
            decays.append(original_name)
        elif found:
            taken = left.take(original_name, found)
            pairs.append(_with_layout(original_name, *taken, name, metadata))
        else:
            left.sought[original_name] = (
                f"GGUF's name for it, {mapped!r}, is not there"
                if mapped
                else f"GGUF has no name for it in {name}"
            )
    apart = {
        f"a GGUF of {name} has no place for them": _dropped(left, name),
        "GGUF keeps -exp of their values": decays,
    }
    return pairs, [
        f"not compared, as {why}: {some(names)}" for why, names in apart.items() if names
    ]


def _with_layout(
    name: str, original: StoredTensor, entry: Entry, architecture: str, metadata: Mapping[str, str]
) -> Pair:
    """The pair, and what the converter did to its values."""
    found = Pair(name, original, entry, shift=_shift(architecture, name))
    try:
        return replace(found, heads=_heads(architecture, original, metadata))
    except CheckpointError as error:
        return replace(found, problem=str(error))


def _translated(name: str, get_name: Callable[..., str | None]) -> str:
    """The name that a tensor has in a GGUF; empty if it has none."""
    bare = canonical(name)
    if bare.endswith("e_score_correction_bias"):
        bare = bare.removesuffix("_bias") + ".bias"
    candidates = [name, *(wrapper + bare for wrapper in WRAPPERS)]
    mapped = (get_name(candidate, SUFFIXES) for candidate in candidates)
    return next(filter(None, mapped), "")


def _heads(architecture: str, original: StoredTensor, metadata: Mapping[str, str]) -> int:
    """How many heads have their rows interleaved; 0 if none."""
    if architecture not in PERMUTED or not original.name.endswith(QUERIES + KEYS):
        return 0
    key = f"{architecture}.attention.head_count"
    if original.name.endswith(KEYS) and f"{key}_kv" in metadata:
        key += "_kv"
    heads = _number(metadata, key, layer_number(original.name) or 0)
    if not heads or original.shape[0] % (2 * heads):
        raise CheckpointError(
            f"GGUF's {key} gives {heads} heads, which the {original.shape[0]} rows of "
            f"{original.name!r} are not"
        )
    return heads


def _number(metadata: Mapping[str, str], key: str, layer: int = 0) -> int:
    """A number that the file says, or says of each layer; 0 where it says none."""
    said = metadata.get(key, "0")
    try:
        number = json.loads(said)
        return int(number[layer] if isinstance(number, list) else number)
    except (ValueError, TypeError, IndexError):
        raise CheckpointError(
            f"GGUF's {key} is {said!r}; expected a number, or one for layer {layer}"
        ) from None


def _shift(architecture: str, name: str) -> float:
    """What the converter adds to the values of a tensor."""
    if architecture not in SHIFTED or not name.endswith("norm.weight"):
        return 0.0
    return 0.0 if name.endswith(NOT_SHIFTED) else 1.0


def _dropped(left: Unpaired, architecture: str) -> list[str]:
    """Takes out what the converter has no place for, and names it."""
    dropped = [
        name
        for name in left.originals
        if architecture in BERTS and canonical(name).startswith(DROPPED)
    ]
    for name in dropped:
        del left.originals[name]
    return dropped
