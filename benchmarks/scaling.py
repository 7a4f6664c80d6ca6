"""How cost and memory grow: with weights from 1 MiB to 4 GiB, with tensors, with workers.

    python benchmarks/scaling.py [MIB]

MIB: the largest size, 4096 by default, which takes about ten minutes, 9 GiB of memory and 6 GiB of
disk; what does not fit is left out, and named. Prints the section of the report. Times are those
of the processor, which other work on the machine disturbs less, but for runs with workers.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from audit_many import EMPTY
from growing import Pair, alike, divided, growing
from processes import accuracy_run, grown, mib_in, run
from scaling_text import section

from pytest_arrowquant import Accuracy, Rtn, Scheme, quantize, quantize_and_compare
from pytest_arrowquant.audit import Audit
from pytest_arrowquant.checkpoints import open_checkpoint

SIZES = (1, 4, 16, 64, 256, 1024, 4096)  # MiB
ROUNDS = 7
ROUNDS_OF_RUNS = 3
COLUMNS, ROWS_OF_MIB = 4096, 64  # of float32
A_CALL_MIB = 128  # smaller arrays are gone through several times a measurement
TENSORS = 64  # of whole runs, whose reports are then alike
ALL_QUANTIZERS_MIB = 64  # their search takes a hundred times as long as rounding
DIVIDED = ((640, 640), (320, 320), (64, 640), (128, 128), (64, 64))  # of 100 to 10,000 tensors
WEIGHTS = 40_960_000
WORKERS = ("0", "1", "2")
ONE = ("--arrowquant-quantizers=rtn", "--arrowquant-bits=4")


def measure(largest: int = SIZES[-1]) -> dict[str, Any]:
    """All costs, measured now, in plain values."""
    sizes = [size for size in SIZES if size <= largest]
    most = _available_mib() / 3
    fitting = [size for size in sizes if size <= most]
    measured: dict[str, Any] = {
        "left_out": [size for size in sizes if size > most],
        "cache_mib": cache_mib(),
        "kernels": kernels(fitting),
    }
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        pairs = growing(Path(name), fitting)
        measured["in_process"] = {
            "audit": in_process(audited, pairs),
            "rtn": in_process(rounded, pairs),
        }
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        pairs = alike(Path(name) / "alike", fitting, TENSORS)
        few = {size: pair for size, pair in pairs.items() if size <= ALL_QUANTIZERS_MIB}
        empty = Path(name) / "empty"
        empty.mkdir()
        for options in (original_and_copy(pairs[1]), (original(pairs[1]),)):
            by_pytest(empty, options)  # compiles what no cache has
        measured["runs"] = {
            "audit": runs(empty, {k: original_and_copy(p) for k, p in pairs.items()}),
            "rtn": runs(empty, {k: (original(p), *ONE) for k, p in pairs.items()}),
            "all": runs(empty, {k: (original(p),) for k, p in few.items()}, 1),
        }
        measured["workers"] = workers(empty, pairs)
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        measured["tensors"] = tensors(Path(name))
    return measured


def _available_mib() -> float:
    """What fits into memory, and thrice as much of it onto the disk."""
    disk = shutil.disk_usage(tempfile.gettempdir()).free / 2**20
    return min(mib_in("/proc/meminfo")["MemAvailable"], disk)


def cache_mib() -> float:
    """The last-level cache of the first processor; 0 where the system does not say."""
    folders = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
    sizes = [(folder / "size").read_text().strip() for folder in folders]
    return max([int(size.removesuffix("K")) / 1024 for size in sizes], default=0)


def kernels(sizes: list[int]) -> dict[str, Any]:
    """Nanoseconds a weight of each kernel at 4 bits, and of np.copyto, by turns."""
    x, spare = (np.empty((max(sizes) * ROWS_OF_MIB, COLUMNS), np.float32) for _ in range(2))
    drawn = np.random.default_rng(0).standard_normal(x[:4096].shape, np.float32)
    for start in range(0, len(x), len(drawn)):
        x[start : start + len(drawn)] = drawn[: len(x) - start]
    calls = {size: _calls(x[: size * ROWS_OF_MIB], spare[: size * ROWS_OF_MIB]) for size in sizes}
    times: dict[tuple[str, int], list[float]] = {}
    for round_number in range(ROUNDS + 1):
        for size in sizes:
            for name, call in calls[size].items():
                taken = _seconds(call, max(1, A_CALL_MIB // size))
                if round_number:  # the first compiles, and touches what is written
                    times.setdefault((name, size), []).append(taken)
    per_weight = {
        name: [median(times[name, size]) / (size << 18) * 1e9 for size in sizes]
        for name in calls[sizes[0]]
    }
    return {"mib": sizes, "ns": per_weight}


def _calls(x: Any, spare: Any) -> dict[str, Callable[[], Any]]:
    scheme = Scheme(4)
    q = quantize(x, scheme)
    return {
        "np.copyto": lambda: np.copyto(spare, x),
        "quantize": lambda: quantize(x, scheme, q),
        "dequantize": lambda: q.dequantize(spare),
        "compare": lambda: q.compare(x),
        "quantize_and_compare": lambda: quantize_and_compare(x, scheme),
    }


def _seconds(call: Callable[[], Any], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def in_process(job: Callable[[Pair], None], pairs: dict[int, Pair]) -> dict[str, Any]:
    """Seconds and memory of a job without pytest, its kernels loaded."""
    job(pairs[min(pairs)])
    counts = {size: max(1, A_CALL_MIB // size) for size in pairs}
    times: dict[int, list[float]] = {size: [] for size in pairs}
    for _ in range(ROUNDS_OF_RUNS):
        for size, pair in pairs.items():
            times[size].append(_seconds(partial(job, pair), counts[size]))
    memory = [grown(partial(_seconds, partial(job, pairs[n]), counts[n])) for n in pairs]
    return {"mib": list(pairs), "s": [median(times[size]) for size in pairs], "grown": memory}


def audited(pair: Pair) -> None:
    """Audit every tensor; all pass."""
    audit = Audit(pair.quantized, pair.original)
    failures = [audit.judge(found, {}, {})[1] for found in audit.pairing.pairs]
    assert not any(failures), failures


def rounded(pair: Pair) -> None:
    """Round every tensor of the original to nearest at 4 bits, and check it; all pass."""
    accuracy = Accuracy([])
    for tensor in open_checkpoint(pair.original).quantizable:
        accuracy.check_model(tensor, Rtn(), name=tensor.name, bits=4)


def original(pair: Pair) -> str:
    return f"--arrowquant-original={pair.original}"


def original_and_copy(pair: Pair) -> tuple[str, ...]:
    return original(pair), f"--arrowquant-quantized={pair.quantized}"


def by_pytest(folder: Path, options: Iterable[str]) -> list[float]:
    """Seconds of the wall and of the processor, and MiB of anonymous memory, of a whole run."""
    done = run(accuracy_run(*options), folder)
    return [done.wall_s, done.cpu_s, done.anonymous_mib]


def runs(
    folder: Path, options: Mapping[int, Iterable[str]], rounds: int = ROUNDS_OF_RUNS
) -> dict[str, Any]:
    """Medians of whole runs, by turns; of memory the largest."""
    done: dict[int, list[list[float]]] = {key: [] for key in options}
    for _ in range(rounds):
        for key, given in options.items():
            done[key].append(by_pytest(folder, given))
    columns = {key: list(zip(*of_key, strict=True)) for key, of_key in done.items()}
    return {
        "of": list(options),
        "rounds": rounds,
        "wall_s": [median(columns[key][0]) for key in options],
        "cpu_s": [median(columns[key][1]) for key in options],
        "mib": [max(columns[key][2]) for key in options],
    }


def workers(folder: Path, pairs: dict[int, Pair]) -> dict[str, Any]:
    """The audit of the smallest and the largest pair in one process, and on one and two workers."""
    ends = {size: original_and_copy(pairs[size]) for size in (min(pairs), max(pairs))}
    counts = WORKERS if find_spec("xdist") else ()
    return {
        count: runs(folder, {size: (*given, "-n", count) for size, given in ends.items()}, 2)
        for count in counts
    }


def tensors(folder: Path) -> dict[str, Any]:
    """The audit of the same number of weights in ever more tensors, and as many empty tests."""
    pairs = divided(folder, DIVIDED, WEIGHTS)
    empty = folder / "empty"
    empty.mkdir()
    audit = {count: original_and_copy(pair) for count, pair in pairs.items()}
    measured = {"weights": WEIGHTS, "audit": runs(empty, audit, rounds=1)}
    (empty / "test_empty.py").write_text(EMPTY.format(count=max(pairs)))
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:arrowquant")
    done = run([sys.executable, "-m", "pytest", *options], empty)
    return measured | {"empty_s": done.cpu_s, "empty_mib": done.anonymous_mib}


if __name__ == "__main__":
    print(section(measure(*map(int, sys.argv[1:]))))
