"""Run all benchmarks and write docs/BENCHMARK_REPORT.md with its plots.

    pip install 'pytest-arrowquant[peers]'
    python benchmarks/report.py

First the speed and the accuracy of every contender by pytest-benchmark, into
.benchmarks/speed.json; then memory, scaling and the whole job. Every figure of the report was
measured by that one command.
"""

import os
import subprocess
import sys
from pathlib import Path

import memory
import scaling
import speed
import whole_job
from machine import MALLOC
from plots import write_plots
from results import Results, markdown

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / ".benchmarks" / "speed.json"
REPORT = ROOT / "docs" / "BENCHMARK_REPORT.md"
PLOTS = ROOT / "docs" / "benchmark"
COMMAND = ("-m", "pytest", "benchmarks", "--benchmark-disable-gc", "--benchmark-quiet")


def measure_speed() -> Results:
    """Run the benchmarks; ends the program where one fails."""
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.unlink(missing_ok=True)
    command = [sys.executable, *COMMAND, "-q", f"--benchmark-json={MEASURED}"]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | MALLOC, check=False)
    if run.returncode:
        sys.exit("no report was written, as benchmarks failed")
    return Results.read(MEASURED)


def heading(results: Results) -> str:
    """Title, command and machine."""
    machine = {name: text for name, text in results.machine.items() if name != "versions"}
    versions = ", ".join(f"{name} {number}" for name, number in results.machine["versions"].items())
    machine |= {"versions": versions, "speed by": f"python {' '.join(COMMAND)}"}
    facts = [[name, text] for name, text in machine.items()]
    return f"""# Benchmark report

Written by `python benchmarks/report.py` on {results.date}: every figure here was measured by that
run, on this machine. Absolute figures are those of the machine; ratios are between what ran by
turns.

{markdown(("machine", ""), facts)}"""


def gallery(plots: list[tuple[str, str]]) -> str:
    """The plots."""
    return "## Plots\n\n" + "\n\n".join(
        f"![{caption}](benchmark/{name})\n\n*{caption[0].upper()}{caption[1:]}.*"
        for name, caption in plots
    )


def main() -> None:
    """The whole report."""
    results = measure_speed()
    parts = [
        heading(results),
        *speed.sections(results),
        gallery(write_plots(results, PLOTS)),
        *(part.section(part.measure()) for part in (memory, scaling, whole_job)),
    ]
    REPORT.write_text("\n\n".join(part.strip() for part in parts) + "\n")
    print(f"wrote {REPORT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
