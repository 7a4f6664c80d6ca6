"""One pass over a model: quantize, restore and examine a layer at a time, and time it."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from .arrays import as_floating, require_finite
from .errors import TensorError
from .examine import Restored, TensorResult, examine
from .expectation import Expectation
from .quantizers import Quantizer, needs_calibration
from .records import Plain, scheme_json
from .subject import Layer, Model, takes_inputs


class Pass:
    """One pass over a model's layers, timed by pytest-benchmark where it is given."""

    def __init__(self, model: Model, quantizer: Quantizer, expectation: Expectation) -> None:
        self.quantizer = quantizer
        self.calibrated = needs_calibration(quantizer)
        self.layers, self.count = iter(model), len(model)
        self.expectation = expectation
        self.results: list[TensorResult] = []
        self.notes: list[str] = []
        if self.calibrated:
            fed = list(self._fed(model))
            self.layers, self.count = iter(fed), len(fed)
        self.scheme: Plain = {}
        self.dequantize_s = 0.0
        self.quantized: Any = None

    def _fed(self, model: Model) -> Iterator[Layer]:
        """The layers but those that are looked up instead of multiplied, which are noted."""
        for layer in model:
            if not hasattr(layer, "held_out"):
                raise TensorError(
                    f"{self.quantizer.name} needs calibration, and tensor {layer.name!r} comes "
                    "without the inputs of its layer"
                )
            if takes_inputs(layer):
                yield layer
            else:
                self.notes.append(f"{layer.name} is a look-up table: left out")

    def run(self, benchmark: Any) -> None:
        """Quantize, restore and examine every layer.

        benchmark.pedantic is called once, with a round a layer; its setup finishes the layer
        before and brings the next. Where it is disabled it runs one round, and the rest follows
        untimed.
        """
        self._quantize(np.ones((1, 64), np.float32), np.eye(64, dtype=np.float32))
        self.quantized.dequantize()  # so that no timing pays for the compiler
        steps = self._steps()
        if benchmark is not None and self.count:
            benchmark.pedantic(self._quantize, setup=lambda: (next(steps), {}), rounds=self.count)
        for step in steps:
            self._quantize(*step)

    def _quantize(self, weight: Any, *calibration: Any) -> None:
        self.quantized = self.quantizer.quantize(
            weight, self.expectation.bits or 0, *calibration[: self.calibrated]
        )

    def _steps(self) -> Iterator[tuple[Any, ...]]:
        """Yields what to quantize, and examines what was made of it when the next is asked for."""
        for layer in self.layers:
            weight = as_floating(layer.weight, f"tensor {layer.name!r}")
            require_finite(weight, f"tensor {layer.name!r}")
            fed = layer if self.calibrated and takes_inputs(layer) else None
            yield (weight, fed.calibration) if fed else (weight,)
            start = time.perf_counter()
            restored = self.quantized.dequantize()
            self.dequantize_s += time.perf_counter() - start
            self.scheme = scheme_json(self.quantized, self.expectation.bits)
            made = getattr(self.quantized, "notes", ())
            self.notes += [f"{layer.name}: {note}" for note in made]
            self.results.append(
                examine(
                    layer.name,
                    weight,
                    Restored.of(restored, self.quantized),
                    self.expectation,
                    fed.held_out.inputs if fed else None,
                    None,
                )
            )
            self.quantized = restored = None

    def timing(self, benchmark: Any) -> Plain | None:
        """Seconds and GB/s of the original bytes; None unless pytest-benchmark did measure."""
        total = benchmark_seconds(benchmark, "total")
        if total is None:
            return None
        size = sum(result.sums.original_bytes for result in self.results)
        return timing(size, total, self.dequantize_s)


def benchmark_seconds(benchmark: Any, statistic: str) -> float | None:
    """A statistic of pytest-benchmark's fixture in seconds; None if it measured nothing."""
    metadata = getattr(benchmark, "stats", None)
    if metadata is None or not metadata.stats.data:
        return None
    return float(getattr(metadata.stats, statistic))


def timing(size: int, quantize_s: float | None, dequantize_s: float | None) -> Plain:
    """The record's timing for `size` original bytes."""

    def rate(seconds: float | None) -> float | None:
        return size / seconds / 1e9 if seconds else None

    return {
        "quantize_s": quantize_s,
        "dequantize_s": dequantize_s,
        "quantize_gb_s": rate(quantize_s),
        "dequantize_gb_s": rate(dequantize_s),
    }
