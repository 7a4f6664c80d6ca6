"""One pass over a model for all recipes and widths: each layer is drawn, and factored, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Array, as_floating, as_rows, require_finite
from .calibration import Calibration
from .case import grid_of
from .cores import spread
from .errors import TargetError
from .examine import Restored, TensorResult, examine
from .expectation import Expectation
from .factor import Factor
from .group_search import LayerErrors, best_group_sizes
from .metrics import deviation, outputs_of
from .plain import Plain
from .quantizers import Gptq, Rtn
from .recipes import ASSERTED_ACTIVATIONS, WIDTH_PAIRS, Recipe, recipes_for
from .record_parts import quantizer_json, scheme_json
from .records import AccuracyRecord, record_of
from .subject import FedLayer, Model, Subject, columns_of, takes_inputs
from .transforms import ActivationQuantizer, Identity, Smoothing, SmoothingSearch, Transform
from .vocabulary import MODALITIES


@dataclass(frozen=True, slots=True)
class Cell:
    """A recipe at a width of weights and one of activations."""

    recipe: Recipe
    bits: int
    activation_bits: int


@dataclass(slots=True)
class Row:
    """What a cell is held to and came to, layer by layer.

    group_sizes, smoothing: what was searched, and chosen, for each layer.
    """

    cell: Cell
    expectation: Expectation
    results: list[TensorResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scheme: Plain = field(default_factory=dict)
    group_sizes: dict[str, int] = field(default_factory=dict)
    smoothing: dict[str, str] = field(default_factory=dict)

    def add(self, part: "Row") -> None:
        """Take over what one more layer came to."""
        self.results += part.results
        self.notes += part.notes
        self.scheme = part.scheme
        self.group_sizes |= part.group_sizes
        self.smoothing |= part.smoothing


def rows_of(subject: Subject, expectations: Mapping[int, Expectation]) -> list[Row]:
    """A row for each recipe of the subject's modality at each pair of widths.

    expectations: what each width of weights that is wanted is held to. Raises TargetError for no
    width, and for a subject of no modality that has recipes.
    """
    if not set(expectations) & {bits for bits, _ in WIDTH_PAIRS}:
        raise TargetError(f"widths={tuple(expectations)} has none of 2, 4, 8")
    if subject.modality not in MODALITIES:
        raise TargetError(
            f"the subject's modality is {subject.modality!r}; recipes are for "
            f"{', '.join(MODALITIES)}"
        )
    return [
        Row(Cell(recipe, bits, activation_bits), expectations[bits])
        for bits, activation_bits in WIDTH_PAIRS
        if bits in expectations
        for recipe in recipes_for(subject.modality, bits)
    ]


def records_of_rows(subject: Subject, rows: Sequence[Row]) -> list[AccuracyRecord]:
    """A record a row, with its gain over the baseline of its widths."""
    records = []
    baselines: dict[tuple[int, int], AccuracyRecord] = {}
    for row in rows:
        recipe, bits, activation_bits = row.cell.recipe, row.cell.bits, row.cell.activation_bits
        name = f"{subject.family}-w{bits}a{activation_bits}-{recipe.name}"
        record = record_of(name, subject, row.results, row.expectation)
        record.quantizer, record.scheme = quantizer_json(recipe.quantizer), row.scheme
        record.recipe = recipe.name
        record.asserted = recipe.asserted and activation_bits == ASSERTED_ACTIVATIONS
        record.optimizations = recipe.optimizations
        record.activations = {
            "bits": activation_bits,
            "range": recipe.ranges,
            "groups": recipe.time_groups,
            "smoothing": row.smoothing if recipe.spatial else None,
        }
        if recipe.searched:
            record.quantizer["options"]["grid"]["group_size"] = row.group_sizes
        record.notes += row.notes
        baseline = baselines.setdefault((bits, activation_bits), record)
        if record is not baseline:
            record.improvement = _improvement(record, baseline)
        records.append(record)
    return records


def _improvement(record: AccuracyRecord, baseline: AccuracyRecord) -> Plain:
    """What the outputs gained over the baseline; None where either has no value."""

    def gain(metric: str) -> float | None:
        ours, theirs = record.metrics[metric], baseline.metrics[metric]
        return None if ours is None or theirs is None else ours - theirs

    return {
        "over": baseline.name,
        "cosine": gain("output_cosine"),
        "sqnr_db": gain("output_sqnr_db"),
    }


def compare(model: Model, rows: list[Row], most_outputs: int | None = None) -> None:
    """Fill the results of all rows. Tables that are looked up are left out, and noted as such.

    most_outputs: of layers with more output channels, so many are looked at, evenly spaced.
    """
    if most_outputs is not None and most_outputs < 1:
        raise TargetError(f"most_outputs={most_outputs!r} is not a number of at least 1")
    fed = [layer for layer in model if takes_inputs(layer)]
    left = [layer.name for layer in model if not takes_inputs(layer)]
    searched = {row.cell.bits for row in rows if row.cell.recipe.searched}
    sizes = _group_sizes(fed, searched, most_outputs)
    in_order = sorted(rows, key=_by_weights)
    producers = {layer.producer for layer in fed}
    row_ranges: dict[str | None, Array] = {
        layer.name: _row_ranges(layer) for layer in fed if layer.name in producers
    }

    def tried(index: int) -> list[Row]:
        """What one layer came to in each row."""
        layer = fed[index]
        weight = _some(_weight_of(layer), most_outputs)
        trial = Trial.of(layer, weight, row_ranges.get(layer.producer))
        parts = [Row(row.cell, row.expectation) for row in in_order]
        for part in parts:
            searched = part.cell.recipe.searched
            trial.run(part, sizes[part.cell.bits][index] if searched else None)
        return parts

    for parts in spread(tried, range(len(fed)), lambda index: columns_of(fed[index])):
        for row, part in zip(in_order, parts, strict=True):
            row.add(part)
    for row in rows:
        row.notes += [f"{name} is a look-up table: left out" for name in left]
        if most_outputs is not None:
            row.notes.append(f"of each layer at most {most_outputs} output channels, evenly spaced")


def _by_weights(row: Row) -> tuple[int, str, bool]:
    """Puts rows together that quantize the same weight alike, so that it is done once."""
    return row.cell.bits, row.cell.recipe.quantizer.name, row.cell.recipe.spatial


def _weight_of(layer: FedLayer) -> Array:
    """Its values; TensorError, by its name, where one is not finite."""
    weight = as_floating(layer.weight, f"tensor {layer.name!r}")
    require_finite(weight, f"tensor {layer.name!r}")
    return weight


def _row_ranges(layer: FedLayer) -> Array:
    """max |w| of each row of its weight."""
    ranges: Array = np.abs(as_rows(_weight_of(layer), np.float32)).max(axis=1)
    return ranges


def _some(weight: Array, most: int | None) -> Array:
    """At most so many of its output channels, evenly spaced; contiguous."""
    step = 1 if most is None else -(-len(weight) // most)
    return np.ascontiguousarray(weight[::step])


def _group_sizes(
    layers: list[FedLayer], widths: set[int], most_outputs: int | None
) -> dict[int, tuple[int, ...]]:
    """The searched group size of each layer, a width."""
    if not widths:
        return {}

    def errors(layer: FedLayer) -> list[LayerErrors]:
        weight = _weight_of(layer)
        rows = as_rows(_some(weight, most_outputs), np.float32)
        return [LayerErrors.of(rows, bits, weight.size) for bits in widths]

    found = spread(errors, layers, columns_of)
    return {bits: best_group_sizes([of[k] for of in found]) for k, bits in enumerate(widths)}


@dataclass(frozen=True, eq=False)
class Trial:
    """One layer, on which recipes are tried: what they share is made once.

    outputs: float64 (output channels, held-out tokens), of the layer as it is. producer: max |w|
    of each row of the weight before it, where equalization with that is exact.
    """

    layer: FedLayer
    weight: Array
    rows: Array
    calibration: Calibration
    held_out: Calibration
    outputs: Array
    producer: Array | None
    _smoothings: dict[tuple[int, int], Transform] = field(default_factory=dict)
    _last: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, layer: FedLayer, weight: Array, producer: Array | None) -> "Trial":
        """The layer with its inputs, drawn or loaded once."""
        rows = as_rows(weight, np.float32)
        calibration, held_out = layer.calibration, layer.held_out
        for inputs in (calibration, held_out):
            inputs.require_channels(weight.shape, f"tensor {layer.name!r}")
        outputs = outputs_of(rows, held_out.inputs)
        return cls(layer, weight, rows, calibration, held_out, outputs, producer)

    def run(self, row: Row, group_size: int | None) -> None:
        """Quantize by the row's recipe, with the searched group size if any; keep the result."""
        transform = self._transform(row.cell)
        quantized, restored, whole = self._quantized(row.cell, transform, group_size)
        tokens, activation_bytes = self._tokens(row.cell, transform, group_size)
        outputs = deviation(self.outputs, restored @ tokens.T)
        whole = replace(whole, nbytes=quantized.nbytes + transform.nbytes + activation_bytes)
        row.results.append(
            examine(self.layer.name, self.weight, whole, row.expectation, None, None, outputs)
        )
        row.notes += [f"{self.layer.name}: {note}" for note in quantized.notes]
        row.scheme = scheme_json(quantized, row.cell.bits)
        if group_size is not None:
            row.scheme["group_size"] = None  # another one a layer
            row.group_sizes[self.layer.name] = group_size
        if isinstance(transform, Smoothing):
            row.smoothing[self.layer.name] = transform.rule

    def _quantized(
        self, cell: Cell, transform: Transform, group_size: int | None
    ) -> tuple[Any, Array, Restored]:
        """(the transformed weight, quantized; what it restores; that in the original channels).

        Kept until another one is asked for.
        """
        quantizer = cell.recipe.quantizer
        if group_size is not None:
            assert isinstance(quantizer, Gptq)
            quantizer = replace(quantizer, grid=replace(quantizer.grid, group_size=group_size))
        key = (quantizer, cell.bits, transform)
        if key not in self._last:
            self._last.clear()
            rows = transform.weight(self.rows)
            if isinstance(quantizer, Gptq):
                factor = self._factor(quantizer, transform)
                quantized = quantizer.on_factor(rows, cell.bits, factor)[0]
            else:
                quantized = quantizer.quantize(rows, cell.bits)
            restored = quantized.dequantize()
            grid = grid_of(quantized) if isinstance(transform, Identity) else None
            values = transform.restore(restored).reshape(self.weight.shape)
            self._last[key] = quantized, restored, Restored(values, None, grid)
        return self._last[key]  # type: ignore[no-any-return]

    def _transform(self, cell: Cell) -> Transform:
        """The smoothing of least error for these widths, in static ranges; shared by recipes."""
        if not cell.recipe.spatial:
            return Identity()
        key = (cell.bits, cell.activation_bits)
        if key not in self._smoothings:
            self._smoothings[key] = self._search.best(
                lambda rows: Rtn().quantize(rows, cell.bits).dequantize(), cell.activation_bits
            )
        return self._smoothings[key]

    @cached_property
    def _search(self) -> SmoothingSearch:
        return SmoothingSearch.of(self.weight, self.calibration, self.producer)

    def _factor(self, quantizer: Gptq, transform: Transform) -> Factor:
        factor = quantizer.factor_of(self.calibration, f"tensor {self.layer.name!r}")
        if isinstance(transform, Smoothing):
            return factor.scaled(transform.scale)
        assert isinstance(transform, Identity)
        return factor

    def _tokens(
        self, cell: Cell, transform: Transform, group_size: int | None
    ) -> tuple[Array, int]:
        """The held-out inputs, transformed and rounded, and the bytes that their ranges take."""
        tokens = transform.inputs(self.held_out.inputs)
        groups = cell.recipe.time_groups
        if groups is None:  # a range for each group of each token, found as the model runs
            dynamic = Rtn(group_size or 64, "integer").quantize(tokens, cell.activation_bits)
            return dynamic.dequantize(), 0
        peaks = transform.inputs(self.calibration.channel_peaks).max(axis=1)
        ranges = ActivationQuantizer.of(
            peaks,
            np.diff(self.calibration.starts),
            cell.activation_bits,
            min(groups, self.calibration.steps),
        )
        return ranges.quantize(tokens, self.held_out.timesteps), ranges.nbytes
