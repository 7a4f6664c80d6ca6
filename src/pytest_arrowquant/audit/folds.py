"""The folds of a checkpoint, each held against what takes it up: no scale comes from nowhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import Array
from ..checkpoints.pairing import Pair
from ..errors import CheckpointError, TensorError
from .folding import Fold, fold_of
from .views import loaded, reference_of

ALIKE = 0.02  # median distance of the logarithms of a scale and of what takes it up
LAYER = re.compile(r"^(.*?\.\d+)\.")


def layer_of(name: str) -> str:
    """The part of a name up to its layer number; empty where it has none."""
    match = LAYER.match(name)
    return match[1] if match else ""


@dataclass(slots=True, eq=False)
class Folds:
    """The folds of a checkpoint's pairs, found when asked for and kept."""

    pairs: Sequence[Pair]
    known: dict[str, Fold | None] = field(default_factory=dict)
    layers: dict[str, list[Pair]] = field(default_factory=dict)

    def of(self, pair: Pair) -> Fold | None:
        """The fold of a quantized pair; None where it has none, or cannot be read."""
        if pair.name not in self.known:
            try:
                self.known[pair.name] = _fold(pair)
            except (CheckpointError, TensorError):
                self.known[pair.name] = None  # its own test says what is wrong
        return self.known[pair.name]

    def unanswered(self, pair: Pair, fold: Fold) -> str:
        """The side of a fold that nothing in the layer takes up; empty where both are."""
        if fold.in_columns and not self._takes_up_columns(pair, fold):
            return "columns"
        if fold.in_rows and not self._takes_up_rows(pair, fold):
            return "rows"
        return ""

    def folded_into(self, pair: Pair) -> str:
        """The weight in whose columns a vector's missing scale is; empty where there is none."""
        scales = _divided_by(pair)
        if not scales:
            return ""
        for other, fold in self._others(pair):
            if any(fold.carries(scale) for scale in scales):
                return other.name
        return ""

    def _takes_up_columns(self, pair: Pair, fold: Fold) -> bool:
        """True where a vector, or the rows of another weight, were divided by this scale."""
        for other in self._layer(pair):
            if any(fold.carries(scale) for scale in _divided_by(other)):
                return True
        noise = fold.columns_noise
        return any(
            one.in_rows and _alike(fold.columns, 1 / one.rows, noise + one.rows_noise)
            for _, one in self._others(pair)
        )

    def _takes_up_rows(self, pair: Pair, fold: Fold) -> bool:
        """True where the columns of another weight were multiplied by what divided these rows."""
        noise = fold.rows_noise
        return any(
            one.in_columns and _alike(1 / fold.rows, one.columns, noise + one.columns_noise)
            for _, one in self._others(pair)
        )

    def _others(self, pair: Pair) -> Iterator[tuple[Pair, Fold]]:
        for other in self._layer(pair):
            quantized = other.entry is not None and other.entry.load is not None
            if quantized and other is not pair and (fold := self.of(other)) is not None:
                yield other, fold

    def _layer(self, pair: Pair) -> list[Pair]:
        if not self.layers:
            for found in self.pairs:
                if found.original is not None and found.entry is not None:
                    self.layers.setdefault(layer_of(found.name), []).append(found)
        return self.layers.get(layer_of(pair.name), [])


def _fold(pair: Pair) -> Fold | None:
    weight = loaded(pair)
    return fold_of(reference_of(pair, weight.shape), weight)


def _divided_by(pair: Pair) -> list[Array]:
    """By what a vector was divided: of weight w, and of 1 + w as some norms have it."""
    stored = pair.entry.plain if pair.entry is not None else None
    if pair.original is None or stored is None or len(pair.original.shape) != 1:
        return []
    if pair.original.shape != stored.shape:
        return []
    scales = []
    for shift in (0.0, 1.0):
        a = pair.original.array.astype(np.float64) + shift
        b = stored.array.astype(np.float64) + shift
        if (a * b > 0).all() and not np.array_equal(a, b):
            scales.append(a / b)
    return scales


def _alike(first: Array, second: Array, noise: float) -> bool:
    """True where two scales are one but for a factor, up to the noise of estimating them."""
    if first.shape != second.shape:
        return False
    distance = np.log(first) - np.log(second)
    distance = np.abs(distance - np.median(distance))
    allowed = max(ALIKE, 2 * noise)
    return bool(np.median(distance) < allowed and np.quantile(distance, 0.9) < 4 * allowed)
