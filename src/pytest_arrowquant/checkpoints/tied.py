"""Output layers tied to the embedding: one checkpoint may hold a tensor once, the other twice."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .pair import Pair, Unpaired
from .stored_tensor import StoredTensor
from .tensor_names import canonical

HEAD = re.compile(r"(?:lm_head|embed_out|output)\.weight")
EMBEDDING = re.compile(
    r"(?:.*\.)?(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|shared)\.weight"
)
RUN = 1 << 24  # bytes compared at a time


def is_head(name: str) -> bool:
    """True for the weight of an output layer."""
    return HEAD.fullmatch(canonical(name)) is not None


def is_embedding(name: str) -> bool:
    """True for the weight of an embedding of tokens."""
    return EMBEDDING.fullmatch(name) is not None


def pair_tied(
    left: Unpaired, pairs: list[Pair], original: Checkpoint, quantized: Checkpoint
) -> list[Pair]:
    """Pairs of what one side holds once and the other twice.

    Tied is what either config says is (tie_word_embeddings), and what has the same bytes in the
    original. A quantized output layer that the original lacks is held against its embedding.
    """
    said = [_says(checkpoint.config) for checkpoint in (original, quantized)]
    held = {found.name: found for found in pairs if found.entry is not None}
    twins = [t for name, t in original.tensors.items() if is_embedding(name) or is_head(name)]
    made = []
    for name, tensor in list(left.originals.items()):
        declared = True in said and is_head(name)
        if is_head(name) and said[1] is False:
            continue  # whoever loads it makes one up
        twin = next(
            (
                other
                for other in twins
                if other.name in held
                and ((declared and is_embedding(other.name)) or _same(tensor, other))
            ),
            None,
        )
        if twin is not None:
            note = f"not stored: tied to {twin.name!r}, which stands for it"
            made.append(Pair(name, left.originals.pop(name), held[twin.name].entry, notes=(note,)))
    if not any(map(is_head, original.tensors)) and (True in said or False not in said):
        made += _heads_of_embeddings(left, twins)
    return made


def _heads_of_embeddings(left: Unpaired, embeddings: list[StoredTensor]) -> list[Pair]:
    """A quantized output layer, where the original has the embedding alone."""
    heads = [name for name in left.entries if is_head(name)]
    if len(heads) != 1 or len(embeddings) != 1:
        return []
    note = f"held against {embeddings[0].name!r}, to which it is tied in the original"
    return [Pair(heads[0], embeddings[0], left.entries.pop(heads[0]), notes=(note,))]


def _says(config: Mapping[str, Any]) -> bool | None:
    """What a config says of tying; None if nothing."""
    said = config.get("tie_word_embeddings")
    if said is None and isinstance(text := config.get("text_config"), Mapping):
        said = text.get("tie_word_embeddings")
    return said if isinstance(said, bool) else None


def _same(first: StoredTensor, second: StoredTensor) -> bool:
    """True where two tensors hold the same bytes; most differ in shape or at the first."""
    if first is second or first.shape != second.shape or first.stored_dtype != second.stored_dtype:
        return False
    a, b = first.raw, second.raw
    return np.array_equal(a[:64], b[:64]) and all(
        np.array_equal(a[start : start + RUN], b[start : start + RUN])
        for start in range(0, a.size, RUN)
    )
