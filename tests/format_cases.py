"""Golden files: what their producers wrote and restore from it, and how to damage them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pytest_arrowquant.checkpoints import Checkpoint, StoredTensor, open_checkpoint
from pytest_arrowquant.checkpoints.entries import Contents
from pytest_arrowquant.checkpoints.weight import StoredWeight

GOLDEN = Path(__file__).parent / "golden"
NAMES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "uint8": "U8",
    "uint32": "U32",
    "int16": "I16",
    "int32": "I32",
    "float8_e4m3fn": "F8_E4M3",
}
WORDS = {2: np.uint16, 4: np.uint32}


def cases(name: str) -> list[Path]:
    """The golden folders of one format."""
    return sorted(path for path in (GOLDEN / name).iterdir() if path.is_dir())


def opened(folder: Path) -> Checkpoint:
    """The quantized checkpoint in a golden folder."""
    ggufs = sorted(folder.glob("*.gguf"))
    return open_checkpoint(ggufs[0] if ggufs else folder)


def expected(folder: Path) -> dict[str, np.ndarray]:
    """What the producer restores, by name."""
    tensors = open_checkpoint(folder / "expected.safetensors").tensors
    return {name: tensor.array for name, tensor in tensors.items()}


def original(folder: Path) -> dict[str, np.ndarray]:
    tensors = open_checkpoint(folder / "original.safetensors").tensors
    return {name: tensor.array for name, tensor in tensors.items()}


def loaded(contents: Contents) -> Iterator[tuple[str, StoredWeight]]:
    """The quantized weights by name."""
    for name, entry in contents.entries.items():
        if entry.load:
            yield name, entry.load()


def same_bits(restored: np.ndarray, wanted: np.ndarray) -> bool:
    """True if float32 values, rounded to the type of the wanted ones, are those bit for bit.

    But for the sign of zero, which codes of floats have and restoring adds away.
    """
    bits = WORDS[wanted.dtype.itemsize]
    sides = (restored.reshape(wanted.shape).astype(wanted.dtype), wanted)
    left, right = (np.where(side == 0, side.dtype.type(0), side).view(bits) for side in sides)
    return np.array_equal(left, right)


def ulps_apart(restored: np.ndarray, wanted: np.ndarray) -> int:
    """How many values of the wanted ones' type lie between the two, at most."""
    bits = WORDS[wanted.dtype.itemsize]
    sides = (restored.reshape(wanted.shape).astype(wanted.dtype), wanted)
    counts = []
    for side in sides:
        number = side.view(bits).astype(np.int64)
        half = 1 << (8 * side.dtype.itemsize - 1)
        counts.append(np.where(number < half, number, half - number))
    return int(np.abs(counts[0] - counts[1]).max())


def in_blocks(weight: StoredWeight, cut: int) -> np.ndarray:
    """All rows, restored in two parts."""
    rows = weight.shape[0]
    return np.concatenate([weight.restore(0, cut), weight.restore(cut, rows)])


def without(checkpoint: Checkpoint, *names: str) -> Checkpoint:
    """The checkpoint after it lost some tensors."""
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in names}
    return replace(checkpoint, tensors=kept)


def changed(checkpoint: Checkpoint, **arrays: Any) -> Checkpoint:
    """The checkpoint with other arrays; `__` in a keyword stands for a dot of the name."""
    tensors = dict(checkpoint.tensors)
    for key, array in arrays.items():
        name = key.replace("__", ".")
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        tensors[name] = StoredTensor("changed", name, array.shape, NAMES[array.dtype.name], raw)
    return replace(checkpoint, tensors=dict(sorted(tensors.items())))


def only(contents: Contents, name: str) -> StoredWeight:
    """One quantized weight, loaded."""
    load = contents.entries[name].load
    assert load is not None
    return load()


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    a, b = (np.ravel(side).astype(np.float64) for side in (left, right))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
