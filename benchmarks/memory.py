"""The most memory that each job takes, in a process of its own, beside its input.

    python benchmarks/memory.py

At 4 bits in groups of 64, on 4096 x 4096 float32 (64 MiB) of normal weights, by every contender
that is installed; and whole runs of pytest. Prints the section of the report.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from contenders import CONTENDERS, Contender, Work
from contenders.plain_numpy import compare
from growing import growing
from memory_text import section
from processes import accuracy_run, give_back, mib_in, run

import pytest_arrowquant

BITS, SHAPE, SMALL = 4, (4096, 4096), (64, 4096)
JOBS = ("quantize", "round trip", "compare codes", "quantize and compare", "compare arrays")
RUNS = (1, 16, 256, 1024)  # MiB
DB = 1.0  # by which the accuracy may differ from what the contender's format reaches


def measure() -> dict[str, Any]:
    """The memory of all jobs in MiB, measured now, in plain values."""
    jobs: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for contender in _contenders():
        if not _installed(contender):
            missing[contender.name] = contender.package
            continue
        found = [_in_process(contender.name, job) for job in JOBS if _has(contender, job)]
        jobs[contender.name] = {one.pop("job"): one for one in found}
    return {
        "input_mib": np.dtype(np.float32).itemsize * np.prod(SHAPE).item() / 2**20,
        "jobs": jobs,
        "missing": missing,
        "runs": _runs(),
    }


def _contenders() -> list[Contender]:
    """Those with the width, of this project in the group size of most."""
    return [one for one in CONTENDERS if BITS in one.sqnr_db and (one.group == 64 or not one.ours)]


def _installed(contender: Contender) -> bool:
    try:
        version(contender.package)
    except PackageNotFoundError:
        return False
    return True


def _has(contender: Contender, job: str) -> bool:
    """Arrays are compared in the same way by all who share a library."""
    return job != "compare arrays" or "compare" in contender.operations


def _in_process(name: str, job: str) -> dict[str, Any]:
    done = run([sys.executable, __file__, name, job], Path.cwd())
    return {"job": job, **json.loads(done.output.strip().splitlines()[-1])}


def _runs() -> dict[str, Any]:
    """Whole audits of pairs of these sizes."""
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        pairs = growing(Path(name), RUNS)
        peaks = [
            run(
                accuracy_run(
                    f"--arrowquant-original={pair.original}",
                    f"--arrowquant-quantized={pair.quantized}",
                ),
                Path(name),
            ).anonymous_mib
            for pair in pairs.values()
        ]
    return {"mib": list(pairs), "anonymous_mib": peaks}


def one_job(name: str, job: str) -> dict[str, Any]:
    """What one job of one contender adds to this process, which did it twice before.

    handed_mib: of that, arrays that the contender fills and that were there already. stored_mib:
    of what it quantizes to. sqnr_db: of what it restores.
    """
    contender = next(one for one in CONTENDERS if one.name == name)
    generator = np.random.default_rng(0)
    small, x = (generator.standard_normal(shape, np.float32) for shape in (SMALL, SHAPE))
    prepared(contender, contender.prepare(small, BITS, 1), small)[job]()
    work = contender.prepare(x, BITS, 1)
    call = prepared(contender, work, x)[job]
    call()
    grown = growth(call)
    energy = float(np.square(x - work.restored()).sum(dtype=np.float64))
    sqnr_db = 10 * np.log10(float(np.square(x).sum(dtype=np.float64)) / energy)
    assert abs(sqnr_db - contender.sqnr_db[BITS]) < DB, f"{name}: {sqnr_db:.2f} dB"
    handed = sum(
        work.nbytes if operation == "quantize" else x.nbytes
        for operation in contender.reuses
        if operation in operations(contender, job)
    )
    return {
        "peak_mib": grown + handed / 2**20,
        "handed_mib": handed / 2**20,
        "stored_mib": work.nbytes / 2**20,
        "sqnr_db": sqnr_db,
    }


def operations(contender: Contender, job: str) -> tuple[str, ...]:
    """The operations of a contender that make up a job."""
    fused = "quantize-and-compare" in contender.operations
    return {
        "quantize": ("quantize",),
        "round trip": ("quantize", "dequantize"),
        "compare codes": ("compare",) if contender.fused else ("dequantize", "compare"),
        "quantize and compare": ("compare",) if fused else ("quantize", "dequantize", "compare"),
        "compare arrays": ("compare",),
    }[job]


def prepared(contender: Contender, work: Work, x: Any) -> dict[str, Callable[[], Any]]:
    """The jobs, as calls; what they return is all that they keep.

    Where a contender does not compare, numpy does, what it restored.
    """
    calls, restored = work.calls, work.restored()
    own = "compare" in contender.operations

    def compared() -> Any:
        return compare(x, work.restored(), np.empty_like(x))

    jobs: dict[str, Callable[[], Any]] = {
        "quantize": calls["quantize"],
        "round trip": lambda: (calls["quantize"](), calls["dequantize"]()),
        "compare codes": compared,
        "quantize and compare": lambda: (calls["quantize"](), compared()),
    }
    if own:
        jobs["compare codes"] = lambda: (calls["dequantize"](), calls["compare"]())
        jobs["compare arrays"] = calls["compare"]
        jobs["quantize and compare"] = calls["quantize-and-compare"]
    if contender.fused:
        jobs["compare codes"] = calls["compare"]
        jobs["compare arrays"] = lambda: pytest_arrowquant.measure(x, restored)
    return jobs


def growth(call: Callable[[], Any]) -> float:
    """By how many MiB this process is larger, at its largest in a call, than before it."""
    give_back()
    before = mib_in()["VmRSS"]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    kept = call()
    peak = mib_in()["VmHWM"]
    del kept
    return peak - before


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one_job(*sys.argv[1:])))
    else:
        print(section(measure()))
