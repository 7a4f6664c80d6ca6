"""Runs pytest and says where its time went, by looks at the stacks of its threads.

    python benchmarks/phases.py REPORT.json --arrowquant-accuracy ...

Every 5 ms the time since the look before is put down to the innermost function that tells a phase.
Where the main thread waits for others, it is shared among those at work, so that the phases add up
to the time that passed. Compiled code and BLAS run without the interpreter's lock, and count as the
function that called them.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL = 0.005  # seconds

PHASES = {  # of a module or folder of the package
    "models": "model generation",
    **dict.fromkeys(("calibration", "factor"), "Hessians and their factors"),
    **dict.fromkeys(
        ("quantizers", "tensor", "decoding", "super_blocks", "binary_terms", "group_search"),
        "quantizers",
    ),
    "transforms": "transforms and rounding of activations",
    "comparison": "outputs of the recipes",
    **dict.fromkeys(
        ("metrics", "evidence", "case", "guards", "targets", "examine", "row_blocks", "nearest"),
        "metrics and guards",
    ),
    **dict.fromkeys(("report", "run", "records", "record_parts"), "reports and charts"),
}
COMPILING = ("/numba/", "/llvmlite/")
POOL = "concurrent/futures/thread.py"
OTHER = "pytest and all else"
STARTING = "imports"
ROUNDS = "timing rounds, around the quantizers"


def phase_of(frame: FrameType) -> str:
    """The phase that a stack is in."""
    files = []
    innermost: FrameType | None = frame
    while innermost:
        files.append(innermost.f_code.co_filename.replace("\\", "/"))
        innermost = innermost.f_back
    if any(file.startswith("<frozen importlib") for file in files):
        return STARTING
    for file in files:
        if any(part in file for part in COMPILING):
            return "compiling, or loading what was compiled"
        if "/pytest_arrowquant/" in file:
            module = file.rpartition("/pytest_arrowquant/")[2].partition("/")[0]
            if phase := PHASES.get(module.removesuffix(".py")):
                return phase
        if "/pytest_benchmark/" in file:
            return ROUNDS
    return OTHER


def _waits(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith("threading.py")


def _at_work(frame: FrameType) -> bool:
    """True for a thread of a pool that has something to do."""
    own: FrameType | None = frame.f_back
    while own and not own.f_code.co_filename.endswith(POOL):
        own = own.f_back
    return own is not None


def _watch(seconds: Counter[str], ended: threading.Event) -> None:
    main, own = threading.main_thread().ident, threading.get_ident()
    assert main is not None
    before = time.perf_counter()
    while not ended.wait(INTERVAL):
        frames = sys._current_frames()
        others = [f for ident, f in frames.items() if ident not in (main, own) and _at_work(f)]
        looked = others if others and _waits(frames[main]) else [frames[main]]
        now = time.perf_counter()
        for frame in looked:
            seconds[phase_of(frame)] += (now - before) / len(looked)
        before = now


def main(report: Path, arguments: list[str]) -> int:
    """Run pytest with these arguments; returns its exit status, and writes seconds by phase."""
    seconds: Counter[str] = Counter()
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seconds, ended), daemon=True)
    watcher.start()
    import pytest

    status = int(pytest.main(arguments))
    ended.set()
    watcher.join()
    report.write_text(json.dumps(seconds))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
