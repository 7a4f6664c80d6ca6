"""Pairs of checkpoints that differ in size alone: bfloat16 weights, and their INT4 copies."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pytest_arrowquant import Scheme, quantize, save_checkpoint

COLUMNS, ROWS_OF_MIB, LARGEST_MIB = 4096, 128, 16


@dataclass(frozen=True, slots=True)
class Pair:
    """Folders with a checkpoint and its quantized copy."""

    original: Path
    quantized: Path

    @classmethod
    def within(cls, folder: Path) -> "Pair":
        """The two folders of a pair, made."""
        pair = cls(folder / "original", folder / "int4")
        for path in (pair.original, pair.quantized):
            path.mkdir(parents=True)
        return pair

    def save(self, stem: str, weights: dict[str, Any]) -> None:
        """Write weights, and 4-bit codes of groups of 64, to a file each."""
        save_checkpoint(self.original / f"{stem}.safetensors", weights)
        codes = {name: quantize(weight, Scheme(4)) for name, weight in weights.items()}
        save_checkpoint(self.quantized / f"{stem}.safetensors", codes)

    def share(self, other: "Pair", stem: str) -> None:
        """Give another pair the same files."""
        for ours, theirs in (
            (self.original, other.original),
            (self.quantized, other.quantized),
        ):
            (theirs / f"{stem}.safetensors").hardlink_to(ours / f"{stem}.safetensors")


def drawn(rows: int, columns: int) -> Any:
    """Gaussian weights in bfloat16."""
    weight = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    return (weight * np.float32(0.02)).astype(ml_dtypes.bfloat16)


def growing(folder: Path, sizes: Iterable[int]) -> dict[int, Pair]:
    """A pair whose original has so many MiB, for each size; multiples of 16 beyond that.

    They grow as models do, by tensors of 16 MiB (2048 x 4096); up to that it is one. The larger
    ones share the files of the smaller ones.
    """
    pairs = {size: Pair.within(folder / f"{size}_mib") for size in sorted(sizes)}
    whole = drawn(LARGEST_MIB * ROWS_OF_MIB, COLUMNS)
    for size, pair in pairs.items():
        if size < LARGEST_MIB:
            pair.save("layer_0", {"layer_0.weight": whole[: size * ROWS_OF_MIB]})
    for index in range(max(pairs) // LARGEST_MIB):
        first, *others = [p for size, p in pairs.items() if size >= (index + 1) * LARGEST_MIB]
        stem = f"layer_{index}"
        first.save(stem, {f"{stem}.weight": np.roll(whole, index, axis=0)})
        for other in others:
            first.share(other, stem)
    return pairs


def alike(folder: Path, sizes: Iterable[int], count: int) -> dict[int, Pair]:
    """A pair whose original has so many MiB, for each size, all of them in `count` tensors."""
    pairs: dict[int, Pair] = {}
    for size in sizes:
        pairs[size] = Pair.within(folder / f"{size}_mib")
        weight = drawn(size * ROWS_OF_MIB // count, COLUMNS)
        for index in range(count):
            stem = f"layer_{index}"
            pairs[size].save(stem, {f"{stem}.weight": np.roll(weight, index, axis=0)})
    return pairs


def divided(folder: Path, shapes: Iterable[tuple[int, int]], weights: int) -> dict[int, Pair]:
    """Pairs of the same number of weights, in tensors of each of these shapes, by their number."""
    pairs: dict[int, Pair] = {}
    for rows, columns in shapes:
        count = weights // (rows * columns)
        assert count * rows * columns == weights, (rows, columns)
        pairs[count] = Pair.within(folder / f"{count}_tensors")
        whole = drawn(count * rows, columns)
        pairs[count].save(
            "model",
            {f"layer_{i}.weight": whole[i * rows : (i + 1) * rows] for i in range(count)},
        )
    return pairs
