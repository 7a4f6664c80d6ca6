"""One pass over a model: quantize, restore and examine a layer at a time, and time it."""

import time
from collections.abc import Iterator
from math import lcm
from typing import Any

import numpy as np

from .arrays import Array, as_floating, require_finite
from .calibration import Calibration
from .errors import TensorError
from .examine import TensorResult, examine
from .expectation import Expectation
from .findings import Findings
from .plain import Plain
from .quantizers import Quantizer
from .record_parts import scheme_json
from .subject import Layer, Model, columns_of, takes_inputs
from .tensor import QuantizedTensor
from .timing import benchmark_seconds, timing
from .traits import traits_of
from .trial import quantized, restored, taken, with_grid


class Pass:
    """One pass over a model's layers, timed by pytest-benchmark where it is given.

    checked: whether known faults are injected into what passes.
    """

    def __init__(
        self, model: Model, quantizer: Quantizer, expectation: Expectation, checked: bool = False
    ) -> None:
        self.quantizer, self.traits = quantizer, traits_of(quantizer)
        self.bits = expectation.bits or 0
        self.expectation = expectation
        self.results: list[TensorResult] = []
        self.findings = Findings(checked)
        self.notes: list[str] = []
        self.fed = self.traits.by_outputs or expectation.judge == "outputs"
        self.layers = [layer for layer in model if self._fits(layer)]
        self.scheme: Plain = {}
        self.dequantize_s = 0.0
        self.quantized: Any = None

    def _fits(self, layer: Layer) -> bool:
        """False for a layer that is left out, which is noted."""
        multiple = self.traits.domain.columns_multiple
        if multiple > 1 and (columns := columns_of(layer)) % multiple:
            self.notes.append(
                f"{layer.name} has {columns} columns, no multiple of {multiple}: left out"
            )
            return False
        if not self.fed:
            return True
        if not hasattr(layer, "held_out"):
            wants = "needs calibration" if self.traits.needs_calibration else "is judged by outputs"
            raise TensorError(
                f"{self.traits.name} {wants}, and tensor {layer.name!r} comes "
                "without the inputs of its layer"
            )
        if not takes_inputs(layer):
            self.notes.append(f"{layer.name} is a look-up table: left out")
            return False
        return True

    def run(self, benchmark: Any) -> None:
        """Quantize, restore and examine every layer.

        benchmark.pedantic is called once, with a round a layer; its setup finishes the layer
        before and brings the next. Where it is disabled it runs one round, and the rest follows
        untimed.
        """
        if not self.layers:
            return
        steps = self._steps()
        if benchmark is not None:
            benchmark.pedantic(
                self._quantize, setup=lambda: (next(steps), {}), rounds=len(self.layers)
            )
        for step in steps:
            self._quantize(*step)

    def _warm(self) -> None:
        """Quantize and restore a row of ones, so that no timing pays for a compiler."""
        columns = lcm(64, self.traits.domain.columns_multiple)
        ones = taken(np.ones((1, columns), np.float32), self.traits, "a row of ones")
        tokens = Calibration.of(np.eye(columns, dtype=np.float32))
        self._quantize("a row of ones", ones, tokens)
        restored(self.quantized, self.traits, ones, self.bits, "a row of ones")

    def _quantize(self, name: str, weight: Array, calibration: Any) -> None:
        self.quantized = quantized(
            self.quantizer, self.traits, weight, self.bits, calibration, name
        )

    def _steps(self) -> Iterator[tuple[str, Array, Any]]:
        """Yields what to quantize, and examines what was made of it when the next is asked for."""
        self._warm()
        for layer in self.layers:
            name = f"tensor {layer.name!r}"
            weight = as_floating(layer.weight, name)
            require_finite(weight, name)
            given = taken(weight, self.traits, name)
            fed = layer if self.fed and takes_inputs(layer) else None
            yield name, given, fed.calibration if fed and self.traits.needs_calibration else None
            start = time.perf_counter()
            values = restored(self.quantized, self.traits, given, self.bits, name)
            self.dequantize_s += time.perf_counter() - start
            self.scheme = scheme_json(self.quantized, self.bits)
            made = getattr(self.quantized, "notes", ())
            self.notes += [f"{layer.name}: {note}" for note in made]
            inputs = fed.held_out.inputs if fed else None
            self._examine(layer.name, _judged(weight, given), values, inputs)
            self.quantized = values = given = None  # type: ignore[assignment]

    def _examine(self, name: str, weight: Array, values: Array, inputs: Any) -> None:
        """Hold a restored layer to the expectation, and look into what comes of it."""
        whole = with_grid(self.quantized, values.reshape(weight.shape), self.traits, self.bits)
        result = examine(name, weight, whole, self.expectation, inputs, None)
        self.results.append(result)
        coded = self.quantized if isinstance(self.quantized, QuantizedTensor) else whole
        self.findings.look_into(result, weight, coded, self.expectation, inputs, self.traits.name)

    def timing(self, benchmark: Any) -> Plain | None:
        """Seconds and GB/s of the original bytes; None unless pytest-benchmark did measure."""
        total = benchmark_seconds(benchmark, "total")
        if total is None:
            return None
        size = sum(result.sums.original_bytes for result in self.results)
        return timing(size, total, self.dequantize_s)


def _judged(weight: Array, given: Array) -> Array:
    """The weight, or if the quantizer takes but a narrower dtype, what it was handed."""
    narrower = given.dtype.itemsize < weight.dtype.itemsize
    return given.reshape(weight.shape) if narrower else weight
