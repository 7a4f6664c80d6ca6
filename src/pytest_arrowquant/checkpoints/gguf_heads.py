"""Attention weights that llama.cpp's converter takes apart or puts in another order, by head."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

from .pair import Pair, Unpaired
from .stored_tensor import StoredTensor
from .tensor_names import layer_number
from .views import part, rows_of


class Piece(NamedTuple):
    """Some rows of a tensor of the original, and where they are in the GGUF, and how."""

    label: str
    first: int
    rows: int
    kind: str
    first_there: int
    heads: int = 0
    transposed: bool = False


def pair_by_head(left: Unpaired, architecture: str, config: Mapping[str, Any]) -> list[Pair]:
    """Pairs of the pieces of each such weight. config: of the original, for the sizes of heads."""
    ending, pieces_of = BY_HEAD.get(architecture, ("", None))
    pairs: list[Pair] = []
    for name, tensor in list(left.originals.items()) if pieces_of else []:
        stem, _, leaf = name.rpartition(".")
        whole = f"blk.{layer_number(name)}.attn_kv_b.{leaf}"  # as older files have it
        if pieces_of is None or not stem.endswith(ending) or whole in left.entries:
            continue
        pieces = list(pieces_of(config))
        names = {p.kind: f"blk.{layer_number(name)}.{p.kind}.{leaf}" for p in pieces}
        if tensor.shape[0] != sum(p.rows for p in pieces):
            left.sought[name] = "the original's config does not tell the sizes of its heads"
        elif all(there in left.entries for there in names.values()):
            del left.originals[name]
            entries = {kind: left.entries.pop(there) for kind, there in names.items()}
            for piece in pieces:
                piece_of_it = _rows(tensor, piece, f"{stem}.{piece.label}.{leaf}")
                found = rows_of(
                    entries[piece.kind], piece_of_it, piece.first_there, piece.transposed
                )
                pairs.append(replace(found, heads=piece.heads))
    return pairs


def _rows(tensor: StoredTensor, piece: Piece, name: str) -> StoredTensor:
    shape = (piece.rows, *tensor.shape[1:])
    return part(tensor, name, piece.first * prod(shape[1:]), shape)


def _heads(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Heads of queries, heads of keys, rows a head; zeros where the config is silent."""
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    keys = config.get("num_key_value_heads") or heads
    hidden = config.get("hidden_size") or config.get("n_embed") or 0
    return heads, keys, config.get("head_dim") or (hidden // heads if heads else 0)


def _absorbed(config: Mapping[str, Any]) -> Iterator[Piece]:
    """DeepSeek's kv_b_proj: a head's rows for the key, which are transposed; and for the value."""
    key, value = config.get("qk_nope_head_dim", 0), config.get("v_head_dim", 0)
    rank = config.get("kv_lora_rank", 0)
    for head in range(_heads(config)[1]):
        first = head * (key + value)
        yield Piece(f"{head}.k", first, key, "attn_k_b", head * rank, transposed=True)
        yield Piece(f"{head}.v", first + key, value, "attn_v_b", head * value)


def _in_turn(config: Mapping[str, Any]) -> Iterator[Piece]:
    """BLOOM's and GPT-NeoX's: query, key, value of a head, then of the next; there all queries."""
    heads, _, size = _heads(config)
    return _groups(heads, 1, size, joined=True)


def _shared_keys(config: Mapping[str, Any]) -> Iterator[Piece]:
    """Falcon's: the queries that share a key, the key, the value; there all queries first."""
    heads, keys, size = _heads({**config, "num_key_value_heads": config.get("num_kv_heads") or 1})
    return _groups(keys, heads // max(keys, 1), size, joined=True)


def _shared_keys_apart(config: Mapping[str, Any]) -> Iterator[Piece]:
    """InternLM2's: the same; there queries, keys and values apart, and interleaved."""
    heads, keys, size = _heads(config)
    return _groups(keys, heads // max(keys, 1), size, joined=False)


def _groups(groups: int, queries: int, size: int, joined: bool) -> Iterator[Piece]:
    """Queries, key and value of one group after the other, which are sorted by kind there."""
    before = {"q": 0, "k": groups * queries * size, "v": groups * (queries + 1) * size}
    turns = {"q": queries, "k": 1, "v": 0}
    first = 0
    for group in range(groups):
        for kind, rows in (("q", queries * size), ("k", size), ("v", size)):
            there = group * rows
            if joined:
                yield Piece(f"{group}.{kind}", first, rows, "attn_qkv", before[kind] + there)
            else:
                yield Piece(f"{group}.{kind}", first, rows, f"attn_{kind}", there, turns[kind])
            first += rows


def _one_after_the_other(config: Mapping[str, Any]) -> Iterator[Piece]:
    """Baichuan's and Ling's: all queries, all keys, all values."""
    heads, keys, size = _heads(config)
    rows = (heads * size, keys * size, keys * size)
    for kind, count, turns, first in zip(
        "qkv", rows, (heads, keys, 0), accumulate(rows, initial=0), strict=False
    ):
        yield Piece(kind, first, count, f"attn_{kind}", 0, turns)


ABSORBED = ("deepseek2", "deepseek2-ocr", "deepseek32", "glm-dsa", "kimi-linear", "mistral4")
# by architecture: the ending of the module's name, and its pieces
BY_HEAD: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Iterator[Piece]]]] = {
    "baichuan": ("self_attn.W_pack", _one_after_the_other),
    "bailingmoe": ("attention.query_key_value", _one_after_the_other),
    "bloom": ("self_attention.query_key_value", _in_turn),
    **dict.fromkeys(ABSORBED, ("self_attn.kv_b_proj", _absorbed)),
    "gptneox": ("attention.query_key_value", _in_turn),
    "falcon": ("self_attention.query_key_value", _shared_keys),
    "internlm2": ("attention.wqkv", _shared_keys_apart),
}
