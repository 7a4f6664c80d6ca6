"""Checkpoints of a few values, and what a test asks of their pairing."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from pytest_arrowquant.checkpoints.checkpoint import Checkpoint
from pytest_arrowquant.checkpoints.entries import Contents, Entry, Exemption, contents
from pytest_arrowquant.checkpoints.pairing import Pair, Pairing, pair
from pytest_arrowquant.checkpoints.stored_tensor import StoredTensor

Shapes = Mapping[str, tuple[int, ...]]


def stored(name: str, values: np.ndarray, source: str = "a.safetensors") -> StoredTensor:
    dtype = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}[values.dtype.name]
    return StoredTensor(
        source, name, values.shape, dtype, np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    )


def numbered(shape: tuple[int, ...], start: int = 0) -> np.ndarray:
    size = int(np.prod(shape))
    return np.arange(start, start + size, dtype=np.float32).reshape(shape)


def checkpoint(tensors: Shapes | Mapping[str, np.ndarray], **said) -> Checkpoint:
    """Tensors of these shapes, no two of which share a value; or of these values."""
    start, found = 0, {}
    for name, given in sorted(tensors.items()):
        values = given if isinstance(given, np.ndarray) else numbered(given, start)
        start += values.size
        found[name] = stored(name, values)
    return Checkpoint("a", found, **said)


def read(
    of: Checkpoint,
    chosen: Callable[[str], bool] = lambda name: True,
    exempt: tuple[Exemption, ...] | None = None,
) -> Contents:
    """As a format reads it: every matrix that is `chosen` is quantized, the rest is plain."""
    entries = [
        Entry(name, {"codes": tensor}, load=lambda: pytest.fail("pairing loads no weight"))
        for name, tensor in of.tensors.items()
        if len(tensor.shape) >= 2 and chosen(name)
    ]
    return contents("some", of, entries, exempt=exempt)


def pairs_of(original: Checkpoint, quantized: Checkpoint, **how) -> Pairing:
    found = pair(original, quantized, read(quantized, **how))
    names = [one.name for one in found.pairs]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    return found


def by_name(found: Pairing) -> dict[str, Pair]:
    return {one.name: one for one in found.pairs}


def entries_of(found: Pairing) -> dict[str, str]:
    return {one.name: one.entry.name for one in found.pairs if one.entry is not None}


def problems_of(found: Pairing) -> dict[str, str]:
    return {one.name: one.problem for one in found.pairs if one.problem}


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp, conversion/llama.py, LlamaModel.permute."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def values_agree(one: Pair) -> bool:
    """What the pair says was done to the original gives the values that it says are its."""
    expected = one.original.array
    expected = expected.T if one.transposed else expected
    expected = interleaved(expected, one.heads) if one.heads else expected
    expected = expected + expected.dtype.type(one.shift)
    held = one.entry.plain or one.entry.parts["codes"]
    rows = held.array
    if one.rows:
        rows = rows.reshape(-1, rows.shape[-1])[one.first_row : one.first_row + one.rows]
    return np.array_equal(np.squeeze(expected), np.squeeze(rows))


LLAMA = {
    "model.embed_tokens.weight": (32, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (32, 8),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(3)
        for name, shape in {
            "self_attn.q_proj": (8, 8),
            "self_attn.k_proj": (4, 8),
            "self_attn.v_proj": (4, 8),
            "self_attn.o_proj": (8, 8),
            "mlp.gate_proj": (12, 8),
            "mlp.up_proj": (12, 8),
            "mlp.down_proj": (8, 12),
            "input_layernorm": (8,),
            "post_attention_layernorm": (8,),
        }.items()
    },
}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNTIED = {name: shape for name, shape in LLAMA.items() if name != HEAD}
GGUF_LLAMA = {  # docs/gguf.md of ggml, "Standardized tensor names"
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def metadata(architecture: str, blocks: int = 3, heads: str = "2", keys: str = "1"):
    return {
        "general.architecture": architecture,
        f"{architecture}.block_count": str(blocks),
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": keys,
    }


def gguf_name(name: str) -> str:
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if not found:
        return GGUF_LLAMA[name]
    return f"blk.{found[1]}.{GGUF_LLAMA[found[2]]}.{found[3]}"


def exempting(text: str, covers: Callable[[str], bool] | None = None) -> Exemption:
    return Exemption(text, covers or (lambda module: module == text))
