"""An operation timed by turns with np.copyto of the same array, by pytest-benchmark."""

from collections.abc import Callable
from itertools import repeat
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np

ROUNDS = 9
SHORT_ROUNDS = 25  # of rounds shorter than SHORT: what else runs on the machine weighs more
SHORT = 4e-3  # seconds
SHORTEST_ROUND = 1e-3  # seconds: a round shorter than this runs several calls


def seconds(call: Callable[[], Any], calls: int = 1) -> float:
    """How long so many calls take."""
    start = perf_counter()
    for _ in repeat(None, calls):
        call()
    return perf_counter() - start


def calls_a_round(call: Callable[[], Any]) -> tuple[int, float]:
    """How many calls make a round long enough to be timed, and its seconds."""
    calls = 1
    while (took := min(seconds(call, calls) for _ in range(3))) < SHORTEST_ROUND:
        calls *= 2
    return calls, took


def against_copyto(benchmark: Any, call: Callable[[], Any], x: Any, moved: int) -> dict[str, Any]:
    """Run the benchmark; returns what its extra_info should say of its speed.

    Before every round np.copyto of x is timed, so that the two alternate and each starts with the
    caches as the other left them. times_copyto is the ratio of the medians, `quartiles` those of
    the ratios round by round; roofline is times_copyto at the bandwidth of the copy, which reads
    and writes x, if the operation moves `moved` bytes.
    """
    spare = np.empty_like(x)

    def copy() -> None:
        np.copyto(spare, x)

    call()  # what is compiled or loaded on first use is no part of it
    (calls, took), (copies, _) = calls_a_round(call), calls_a_round(copy)
    rounds = SHORT_ROUNDS if took < SHORT else ROUNDS
    copied: list[float] = []

    def copy_first() -> tuple[Any, dict[str, Any]]:
        copied.append(seconds(copy, copies) / copies)
        return (call, calls), {}

    benchmark.pedantic(seconds, setup=copy_first, rounds=rounds, warmup_rounds=1)
    times = [round_ / calls for round_ in benchmark.stats.stats.data]
    copied = copied[-rounds:]  # not that of the warm-up
    ratios = [copy_ / one for copy_, one in zip(copied, times, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "rounds": rounds,
        "calls": calls,
        "seconds": median(times),
        "copyto_seconds": median(copied),
        "times_copyto": median(copied) / median(times),
        "quartiles": [low, high],
        "bytes_moved": moved,
        "gb_per_s": moved / median(times) / 1e9,
        "roofline": 2 * x.nbytes / moved,
    }
