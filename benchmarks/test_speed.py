"""How fast the kernels and their peers are, and how accurate.

    pytest benchmarks/test_speed.py -k "fbgemm and int4 and 4096x4096"

benchmarks/report.py runs all of it, with malloc set to keep the pages of those who allocate their
results, and makes the report. A peer that is not installed is skipped, and so is what would take
more than half a second a call.
"""

import sys
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest
from by_turns import against_copyto, seconds
from cases import CORES, Subject, cases
from contenders import SIZES, Contender, Work

from pytest_arrowquant import Scheme, quantize, quantize_and_compare

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    # what fails before it is timed says why, and no more
    pytest.mark.filterwarnings(
        "ignore:Benchmark fixture was not used:pytest_benchmark.logger.PytestBenchmarkWarning"
    ),
]

TOLERANCE_DB = 0.5  # from what a format reaches on many weights: 64 x 64 are few
SLOWEST_CALL = 0.5  # seconds
SLOWEST_PREPARATION = 2.0  # seconds
PACE_SIZE = 1024
BLOCK_ROWS = 256


@lru_cache(maxsize=1)
def normal(size: int) -> Any:
    """The weight of that size."""
    return np.random.default_rng(size).standard_normal((size, size), np.float32)


@lru_cache(maxsize=1)
def prepared(subject: Subject) -> Work:
    """Its work, kept while its operations follow one another."""
    return subject.contender.prepare(normal(subject.size), subject.bits, subject.threads)


@lru_cache(maxsize=1)
def accuracy(subject: Subject) -> dict[str, float]:
    """Cosine and SQNR in dB of what the subject restores, in float64."""
    x, restored = normal(subject.size), prepared(subject).restored()
    assert restored.shape == x.shape
    sums = np.zeros(4)
    for start in range(0, len(x), BLOCK_ROWS):
        a = x[start : start + BLOCK_ROWS].astype(np.float64).ravel()
        b = restored[start : start + BLOCK_ROWS].astype(np.float64).ravel()
        sums += a @ a, b @ b, a @ b, (a - b) @ (a - b)
    energy, restored_energy, dot, error = sums
    cosine = dot / np.sqrt(energy * restored_energy)
    return {"cosine": float(cosine), "sqnr_db": float(10 * np.log10(energy / error))}


def hold_to(threads: int) -> None:
    """Torch, and the OpenMP that all here share with it; the others are told when prepared."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@cache
def pace(contender: Contender, bits: int, threads: int) -> dict[str, float]:
    """Seconds a weight of each operation, by the faster of two calls on a small weight."""
    x = np.random.default_rng(0).standard_normal((PACE_SIZE, PACE_SIZE), np.float32)
    calls = contender.prepare(x, bits, threads).calls
    hold_to(threads)
    for call in calls.values():
        call()  # what is compiled or loaded on first use is no part of it
    return {name: min(seconds(call), seconds(call)) / x.size for name, call in calls.items()}


@pytest.fixture
def work(subject: Subject, operation: str) -> Work:
    """The work of the subject; skips what is not installed, and what would take too long."""
    for package in (subject.contender.package, *subject.contender.needs):
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install 'pytest-arrowquant[peers]'")
    paces = pace(subject.contender, subject.bits, subject.threads)
    for name, limit in ((operation, SLOWEST_CALL), ("quantize", SLOWEST_PREPARATION)):
        expected = paces[name] * subject.size**2
        if expected > limit:
            pytest.skip(f"{name} would take {expected:.1f} s a call, over {limit:g} s")
    work = prepared(subject)
    hold_to(subject.threads)
    return work


@pytest.mark.parametrize(
    ("subject", "operation"),
    [pytest.param(subject, name, id=f"{name}-{subject}") for subject, name in cases()],
)
def test_speed(work: Work, benchmark: Any, subject: Subject, operation: str) -> None:
    contender, x = subject.contender, normal(subject.size)
    reached = accuracy(subject)
    assert abs(reached["sqnr_db"] - contender.sqnr_db[subject.bits]) < TOLERANCE_DB
    if operation.endswith("compare"):
        assert_agrees(work.calls[operation](), reached["sqnr_db"])
    benchmark.group = f"{operation} int{subject.bits} {subject.size} {subject.threads}"
    moved = contender.moves(operation, x, work.nbytes)
    benchmark.extra_info.update(
        operation=operation,
        contender=contender.name,
        bits=subject.bits,
        threads=subject.threads,
        size=subject.size,
        zero=contender.zero,
        group_size=contender.group,
        bits_per_weight=8 * work.nbytes / x.size,
        reuses_output=operation in contender.reuses,
        **reached,
        **against_copyto(benchmark, work.calls[operation], x, moved),
    )


def assert_agrees(compared: tuple[Any, Any, Any], sqnr_db: float) -> None:
    """What a comparison returns is what float64 has of the restored weights."""
    energy, error, largest = (np.asarray(part, np.float64) for part in compared)
    assert abs(10 * np.log10(energy.sum() / error.sum()) - sqnr_db) < 1e-3
    assert 0 < largest.max() ** 2 < error.sum()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size}x{size}")
@pytest.mark.parametrize("operation", ["copyto", "read", "write"])
def test_memory(benchmark: Any, operation: str, size: int) -> None:
    x = normal(size)
    spare = np.empty_like(x)
    calls = {
        "copyto": (lambda: np.copyto(spare, x), 2 * x.nbytes),
        "read": (x.max, x.nbytes),
        "write": (lambda: spare.fill(1), x.nbytes),
    }
    call, moved = calls[operation]
    benchmark.group = f"{operation} {size}"
    benchmark.extra_info.update(
        operation=operation, threads=1, size=size, **against_copyto(benchmark, call, x, moved)
    )
    if operation == "copyto":
        assert np.array_equal(spare, x)
    elif operation == "read":
        assert call() == max(row.max() for row in x)
    else:
        assert (spare == 1).all()


@pytest.mark.parametrize("size", [64, 768, 4096], ids=lambda size: f"{size}x{size}")
@pytest.mark.parametrize("zero", ["none", "integer", "float"])
@pytest.mark.parametrize("bits", [8, 4, 2], ids=lambda bits: f"int{bits}")
def test_one_and_all_threads_give_the_same_bits(bits: int, zero: Any, size: int) -> None:
    x, scheme, threads = normal(size), Scheme(bits, zero), max(CORES, 2)
    one, many = quantize(x, scheme), quantize(x, scheme, threads=threads)
    assert np.array_equal(one.codes, many.codes)
    for part in ("scale", "zero_point", "minimum"):
        assert np.array_equal(getattr(one.decoding, part), getattr(many.decoding, part))
    assert np.array_equal(one.dequantize(), many.dequantize(threads=threads))
    sums = one.compare(x)
    assert np.array_equal(sums, many.compare(x, threads=threads))
    fused = quantize_and_compare(x, scheme)
    assert np.array_equal(fused, quantize_and_compare(x, scheme, threads=threads))
    np.testing.assert_allclose(fused, sums, rtol=1e-12)
