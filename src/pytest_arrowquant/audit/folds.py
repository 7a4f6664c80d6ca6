"""The folds of a checkpoint, each held against what takes it up: no scale comes from nowhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import Array
from ..checkpoints.pairing import Pair
from ..checkpoints.weight import StoredWeight
from ..errors import CheckpointError, TensorError
from ..scheme import rows_and_columns
from .folding import FOLDED, SIGMAS, Fold, Unfolded, fold_of, rows_given, spread
from .views import loaded, reference_of

ALIKE = 0.02  # median distance of the logarithms of a scale and of what takes it up
STRAY = 0.3  # and of any one of them
OUTPUTS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "wo", "w2", "fc2")
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

    def undone(self, pair: Pair, weight: StoredWeight, fold: Fold) -> tuple[Unfolded, str]:
        """The weight without what was folded into it, and the side that nothing takes up.

        It is divided by what takes the scales up, where that is: the vector that was divided, or
        the other weight's own scales. A fault of this weight stays in what is left, to be judged.
        """
        columns = rows = None
        if fold.in_columns:
            columns = self._vector(pair, fold)
            columns = self._columns_of_rows(pair, fold) if columns is None else columns
            if columns is None:
                return Unfolded(weight, None, fold.columns), "columns"
            if _strays(fold.columns, columns, fold.columns_noise):
                return Unfolded(weight, None, fold.columns), "columns"
        fitted = _rows(pair, weight, columns)
        if spread(fitted) > max(FOLDED, SIGMAS * fold.rows_noise):
            rows = self._rows_of_columns(pair, fold, fitted)
            if rows is None or _strays(fitted, rows, fold.rows_noise):
                return Unfolded(weight, fitted, columns), "rows"
        return Unfolded(weight, rows, columns), ""

    def folded_into(self, pair: Pair) -> str:
        """A weight in whose columns a vector's missing scale is; empty where there is none.

        All that read the vector must have it: the weights beside that one with as many columns.
        """
        for scale in _divided_by(pair):
            if spread(scale[np.isfinite(scale)]) <= FOLDED:
                continue
            readers = {
                other.name: fold.carries(_completed(scale, fold))
                for other, fold in self._others(pair)
            }
            found = next((name for name, carries in readers.items() if carries), "")
            module = found.removesuffix(".weight").rpartition(".")[0]
            beside = [
                carries
                for name, carries in readers.items()
                if name.removesuffix(".weight").rpartition(".")[0] == module
                and not name.removesuffix(".weight").endswith(OUTPUTS)
                and self._columns(name) == scale.size
            ]
            if found and all(beside):
                return found
        return ""

    def _columns(self, name: str) -> int:
        """How many columns a weight has whose fold is known."""
        fold = self.known[name]
        return 0 if fold is None else fold.columns.size

    def _vector(self, pair: Pair, fold: Fold) -> Array | None:
        """What a vector of the layer was divided by, if the columns carry it: the one that fits."""
        found = (scale for other in self._layer(pair) for scale in _divided_by(other))
        scales = [_completed(scale, fold) for scale in found if scale.shape == fold.columns.shape]
        carried = [s for s in scales if spread(s) > FOLDED and fold.carries(s)]
        return max(carried, key=fold.gain, default=None)

    def _columns_of_rows(self, pair: Pair, fold: Fold) -> Array | None:
        """The inverse of another weight's row scales, if it is what the columns carry."""
        for other, one in self._others(pair):
            if len(one.rows) == fold.columns.size:
                rows = _rows(other, loaded(other), self._vector(other, one))
                if _alike(fold.columns, 1 / rows, fold.columns_noise + one.rows_noise):
                    return 1 / rows
        return None

    def _rows_of_columns(self, pair: Pair, fold: Fold, rows: Array) -> Array | None:
        """The inverse of another weight's column scales, if it is what the rows carry."""
        for _, one in self._others(pair):
            noise = fold.rows_noise + one.columns_noise
            if one.in_columns and _alike(rows, 1 / one.columns, noise):
                return 1 / one.columns
        return None

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


def _rows(pair: Pair, weight: StoredWeight, columns: Array | None) -> Array:
    """The row scales of a pair under these column scales, or none."""
    reference = reference_of(pair, weight.shape)
    ones = np.ones(rows_and_columns(reference.shape)[1])
    return rows_given(reference, weight, ones if columns is None else columns)


def _fold(pair: Pair) -> Fold | None:
    weight = loaded(pair)
    return fold_of(reference_of(pair, weight.shape), weight)


def _divided_by(pair: Pair) -> list[Array]:
    """By what a vector was divided: of weight w, and of 1 + w as some norms have it.

    NaN where both are zero.
    """
    stored = pair.entry.plain if pair.entry is not None else None
    if pair.original is None or stored is None or len(pair.original.shape) != 1:
        return []
    if pair.original.shape != stored.shape:
        return []
    scales = []
    for shift in (0.0, 1.0):
        a = pair.original.array.astype(np.float64) + shift
        b = stored.array.astype(np.float64) + shift
        both_zero = (a == 0) & (b == 0)  # which says nothing of the scale there
        if ((a * b > 0) | both_zero).all() and not np.array_equal(a, b):
            scales.append(np.divide(a, b, out=np.full_like(a, np.nan), where=~both_zero))
    return scales


def _completed(scale: Array, fold: Fold) -> Array:
    """The scale, with the columns' own where the vector is zero and says nothing."""
    if scale.shape != fold.columns.shape:
        return scale
    completed: Array = np.where(np.isfinite(scale), scale, fold.columns)
    return completed


def _strays(fitted: Array, taken_up: Array, noise: float) -> bool:
    """True where a single scale is far from what takes it up."""
    distance = np.log(fitted) - np.log(taken_up)
    return bool(np.abs(distance - np.median(distance)).max() > max(STRAY, 8 * noise))


def _alike(first: Array, second: Array, noise: float) -> bool:
    """True where two scales are one, up to the noise of estimating them."""
    if first.shape != second.shape:
        return False
    distance = np.abs(np.log(first) - np.log(second))
    allowed = max(ALIKE, 2 * noise)
    return bool(np.median(distance) < allowed and np.quantile(distance, 0.9) < 4 * allowed)
