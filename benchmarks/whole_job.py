"""How long `pytest --arrowquant-accuracy` takes, cold and warm, with workers and without, and why.

    python benchmarks/whole_job.py

Each run is a process of its own in an empty folder. Cold: nothing compiled is kept; warm: all that
such a run compiled is. Prints the section of the report.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMITS = {"cold": 60.0, "warm": 20.0}  # seconds, asked on two cores
FIRST = 0.35  # seconds to the first quantized tensor, asked
REPEATS = 7
RUNS = {"serial": (), "-n 2": ("-n", "2")}
PHASES = Path(__file__).with_name("phases.py")
WITHOUT_SCIPY = "import sys; sys.modules['scipy'] = None"  # numba imports it where it is installed
QUANTIZE = """
import time
import numba
start = time.perf_counter()
import numpy as np
from pytest_arrowquant import Scheme, quantize
quantize(np.ones((64, 64), np.float32), Scheme(4))
print(time.perf_counter() - start)
"""


def measure() -> dict[str, Any]:
    """Seconds of each run, wall and processor; of a serial one by phase; of a first quantize."""
    runs: dict[str, Any] = {}
    phases: dict[str, Any] = {}
    for name, options in RUNS.items():
        with tempfile.TemporaryDirectory() as cache:
            for state in LIMITS:
                runs[f"{name}, {state}"] = _run(Path(cache), *options)
    with tempfile.TemporaryDirectory() as cache:
        for state in LIMITS:
            phases[state] = _phases(Path(cache))
        first = {
            name: statistics.median(
                float(_python(Path(cache), "-c", before + QUANTIZE)) for _ in range(REPEATS)
            )
            for name, before in (("as installed", ""), ("without scipy", WITHOUT_SCIPY))
        }
    return {"runs": runs, "phases": phases, "first_quantize_s": first}


def section(measured: dict[str, Any]) -> str:
    """Of the report, in Markdown."""
    how = (
        "`pytest --arrowquant-accuracy`, the built-in suite on small models, each run a process "
        "in an empty folder, its compiled code kept apart. `python benchmarks/whole_job.py`."
    )
    lines = [
        "## The whole job",
        "",
        how,
        "",
        "| run | seconds | of processor | tests | asked |",
        "|---|---|---|---|---|",
    ]
    for name, run in measured["runs"].items():
        asked = LIMITS[name.rpartition(", ")[2]]
        lines.append(
            f"| {name} | {run['wall_s']:.1f} | {run['cpu_s']:.1f} | {run['said']} | {asked:g} |"
        )
    found = measured["first_quantize_s"]
    first = (
        f"A first quantize in a new process, what it needs compiled before: "
        f"{found['as installed']:.2f} s after `import numba`, {FIRST:g} asked (median of {REPEATS})"
        f"; {found['without scipy']:.2f} s without scipy, which numba imports if it is there."
    )
    lines += [
        "",
        first,
        "",
        "Where the seconds of a serial run go, by looks every 5 ms (`benchmarks/phases.py`):",
        "",
        f"| phase | {' | '.join(measured['phases'])} |",
        f"|---|{'---|' * len(measured['phases'])}",
    ]
    warm = measured["phases"]["warm"]
    names = sorted({*warm, *measured["phases"]["cold"]}, key=lambda name: -warm.get(name, 0.0))
    for name in names:
        spent = (f"{phases.get(name, 0.0):.1f}" for phases in measured["phases"].values())
        lines.append(f"| {name} | {' | '.join(spent)} |")
    totals = (f"{sum(phases.values()):.1f}" for phases in measured["phases"].values())
    lines.append(f"| all | {' | '.join(totals)} |")
    return "\n".join(lines) + "\n"


def _run(cache: Path, *options: str) -> dict[str, Any]:
    """Seconds of one run of the suite, and what pytest said last."""
    before, start = _processor(), time.perf_counter()
    said = _python(cache, "-m", "pytest", "--arrowquant-accuracy", "-q", *options)
    wall = time.perf_counter() - start
    last = said.strip().splitlines()[-1].partition(" in ")[0]
    return {"wall_s": wall, "cpu_s": _processor() - before, "said": last}


def _phases(cache: Path) -> dict[str, float]:
    """Seconds of a serial run by phase."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "phases.json"
        _python(cache, str(PHASES), str(report), "--arrowquant-accuracy", "-q")
        found: dict[str, float] = json.loads(report.read_text())
    return found


def _python(cache: Path, *arguments: str) -> str:
    """What Python printed, run in an empty folder; CalledProcessError where it fails."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "NUMBA_CACHE_DIR": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    return done.stdout


def _processor() -> float:
    """Seconds of processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(section(measure()))
