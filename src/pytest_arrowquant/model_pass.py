"""One pass over a model: quantize, restore and examine a layer at a time, and time it."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from .arrays import as_floating, require_finite
from .examine import TensorResult, examine
from .expectation import Expectation
from .quantizers import Quantizer
from .records import Plain
from .scheme import Scheme
from .subject import Model


class Pass:
    """One pass over a model's layers, timed by pytest-benchmark where it is given."""

    def __init__(self, model: Model, quantizer: Quantizer, expectation: Expectation) -> None:
        self.layers = iter(model)
        self.count = len(model)
        self.quantizer = quantizer
        self.expectation = expectation
        self.results: list[TensorResult] = []
        self.scheme: Plain = {}
        self.dequantize_s = 0.0
        self.quantized: Any = None

    def run(self, benchmark: Any) -> None:
        """Quantize, restore and examine every layer.

        benchmark.pedantic is called once, with a round a layer; its setup finishes the layer
        before and brings the next. Where it is disabled it runs one round, and the rest follows
        untimed.
        """
        assert self.expectation.bits is not None
        warm = self.quantizer.quantize(np.ones((1, 64), np.float32), self.expectation.bits)
        warm.dequantize()  # so that no timing pays for the compiler
        steps = self._steps()
        if benchmark is not None and self.count:
            benchmark.pedantic(
                self._quantize, setup=lambda: ((next(steps),), {}), rounds=self.count
            )
        for weight in steps:
            self._quantize(weight)

    def _quantize(self, weight: Any) -> None:
        self.quantized = self.quantizer.quantize(weight, self.expectation.bits or 0)

    def _steps(self) -> Iterator[Any]:
        """Yields each weight, and examines what was made of it when the next is asked for."""
        for layer in self.layers:
            weight = as_floating(layer.weight, f"tensor {layer.name!r}")
            require_finite(weight, f"tensor {layer.name!r}")
            yield weight
            start = time.perf_counter()
            restored = self.quantized.dequantize()
            self.dequantize_s += time.perf_counter() - start
            self.scheme = scheme_json(self.quantized, self.expectation.bits)
            self.results.append(
                examine(
                    layer.name,
                    weight,
                    _Restored(restored, self.quantized),
                    self.expectation,
                    None,
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


class _Restored:
    """A quantized result with its values at hand, so that they are restored once."""

    def __init__(self, restored: Any, quantized: Any) -> None:
        self._restored = restored
        self.scheme = getattr(quantized, "scheme", None)
        self.nbytes = getattr(quantized, "nbytes", None)

    def dequantize(self) -> Any:
        return self._restored


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


def scheme_json(restored: object, bits: int | None) -> Plain:
    """The scheme as the record has it; what the result does not say is None."""
    scheme = getattr(restored, "scheme", None)
    if not isinstance(scheme, Scheme):
        return {"bits": bits, "group_size": None, "symmetric": None, "zero": None}
    return {
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "symmetric": scheme.symmetric,
        "zero": scheme.zero,
    }
