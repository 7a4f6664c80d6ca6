"""Times that pytest-benchmark measured, and how they join the records."""

from itertools import count
from typing import Any

from .plain import Plain
from .records import AccuracyRecord

EXTRA_INFO = ("cosine", "sqnr_db", "row_sqnr_db_min", "bits_per_weight", "compression_ratio")


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


def join_benchmark(records: list[AccuracyRecord], benchmark: Any) -> None:
    """Put pytest-benchmark's time beside the accuracy, in both reports.

    What the benchmark timed is taken to be the quantizer of these records; its median is the time,
    and each record's metrics go to its `extra_info`.
    """
    seconds = benchmark_seconds(benchmark, "median")
    if seconds is None:
        return
    for record in records:
        if record.timing is None:
            record.timing = timing(record.metrics["original_bytes"] or 0, seconds, None)
        benchmark.extra_info[_unused(record.name, benchmark.extra_info)] = {
            **{key: record.metrics[key] for key in EXTRA_INFO},
            "passed": record.passed,
        }


def _unused(name: str, taken: Plain) -> str:
    """The name, or the first of `name #2`, `name #3`, ... that is not taken."""
    names = (name if number == 1 else f"{name} #{number}" for number in count(1))
    return next(candidate for candidate in names if candidate not in taken)
