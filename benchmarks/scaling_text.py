"""What scaling.py measured, in words and tables."""

from collections.abc import Sequence
from typing import Any

from fits import EXPONENTS, exponent, with_start
from growing import LARGEST_MIB
from results import markdown

ASKED = (0.97, 1.03)
WHAT = {
    "audit": "the audit of a pair",
    "rtn": "round-to-nearest at 4 bits on the original",
    "all": "all built-in quantizers at 2, 4 and 8 bits on the original",
}


def section(measured: dict[str, Any]) -> str:
    """The section of the report."""
    left_out = measured["left_out"]
    return "\n\n".join(
        [
            "## How cost grows",
            "`python benchmarks/scaling.py`. An exponent p is that of cost = b size^p; 1 is a flat "
            f"cost per weight, and {ASKED[0]} to {ASKED[1]} is asked. Sizes are MiB of weights as "
            "they lie in memory (float32) or in the file (bfloat16). Seconds are of the processor, "
            "medians of rounds by turns."
            + (f" Left out for want of memory or disk: {_listed(left_out)} MiB." * bool(left_out)),
            _kernels(measured["kernels"], measured["cache_mib"]),
            _in_process(measured["in_process"]),
            _runs(measured["runs"]),
            _tensors(measured["tensors"]),
            _workers(measured["workers"]),
        ]
    )


def _kernels(measured: dict[str, Any], cache_mib: float) -> str:
    sizes, copies = measured["mib"], measured["ns"]["np.copyto"]
    beyond = [i for i, size in enumerate(sizes) if size > cache_mib]
    rows = []
    for name, times in measured["ns"].items():
        over = [time / copy for time, copy in zip(times, copies, strict=True)]
        cells = [f"{time:.3f} ({ratio:.2f})" for time, ratio in zip(times, over, strict=True)]
        costs = [time * size for time, size in zip(times, sizes, strict=True)]
        rows.append(
            [
                name,
                *cells,
                _exponent(sizes, costs),
                _exponent([sizes[i] for i in beyond], [costs[i] for i in beyond]),
                _exponent(sizes, over),
            ]
        )
    heads = ["", *(f"{size} MiB" for size in sizes), "p", f"p beyond {cache_mib:g} MiB", "p over"]
    return (
        "### Kernels\n\n"
        "At 4 bits in groups of 64, one thread, rows of 4096 weights, into arrays that are there: "
        "nanoseconds a weight, and in brackets the time over that of `np.copyto` of as many "
        "float32. A small array stays in a cache between two calls, which a large one cannot: so "
        f"p is given of all sizes, and of those beyond the last-level cache ({cache_mib:g} MiB). "
        "The last column is the exponent of the time over that of `np.copyto`: 0 is as flat as "
        "memory itself.\n\n" + markdown(heads, rows)
    )


def _in_process(measured: dict[str, dict[str, Any]]) -> str:
    said = (
        "### Without pytest\n\n"
        "A bfloat16 checkpoint and its INT4 copy, which grow by tensors of "
        f"{LARGEST_MIB} MiB; opened and judged in one process. The small ones are one smaller "
        "tensor, and what a tensor costs whatever its size tells there. Memory is by how much the "
        "process grew."
    )
    parts = [said]
    for name, found in measured.items():
        sizes, times = found["mib"], found["s"]
        whole = [i for i, size in enumerate(sizes) if size >= LARGEST_MIB]
        fitted = _exponent([sizes[i] for i in whole], [times[i] for i in whole])
        per_weight = [time / (size << 19) * 1e9 for size, time in zip(sizes, times, strict=True)]
        rows = [
            ["tensors", *(f"{max(1, size // LARGEST_MIB)}" for size in sizes)],
            ["seconds", *(f"{time:.4g}" for time in times)],
            ["ns a weight", *(f"{time:.3f}" for time in per_weight)],
            ["memory, MiB", *(f"{mib:.1f}" for mib in found["grown"])],
        ]
        parts.append(
            f"{_titled(WHAT[name])}: **p = {fitted}** from {LARGEST_MIB} MiB on, "
            f"{_exponent(sizes, times)} of all.\n\n" + markdown(["MiB", *map(str, sizes)], rows)
        )
    return "\n\n".join(parts)


def _titled(text: str) -> str:
    return text[0].upper() + text[1:]


def _runs(measured: dict[str, dict[str, Any]]) -> str:
    said = (
        "### Whole runs\n\n"
        "`pytest --arrowquant-accuracy` from start to end, reports and all, on checkpoints of 64 "
        "tensors each, which grow in size alone, so that the reports are alike. Fitted to all "
        "points: seconds of the processor = a + b MiB^p, by least squares of relative errors; a "
        "is what it takes to start, to hold 64 tests and to report. Memory is what the processes "
        "have of their own (anonymous), the largest of the rounds; mapped files are not in it. An "
        "audit reads blocks of rows; a quantizer is given a whole tensor, which is a 64th of the "
        "size."
    )
    parts = [said]
    for name, found in measured.items():
        sizes, memory = found["of"], found["mib"]
        rows = [
            ["wall, s", *(f"{time:.2f}" for time in found["wall_s"])],
            ["processor, s", *(f"{time:.2f}" for time in found["cpu_s"])],
            ["memory, MiB", *(f"{mib:.0f}" for mib in memory)],
        ]
        parts.append(
            f"{_titled(WHAT[name])} (rounds: {found['rounds']}): "
            f"{_fit(sizes, found['cpu_s'], 'MiB')}; memory {min(memory):.0f} to "
            f"{max(memory):.0f} MiB.\n\n" + markdown(["MiB", *map(str, sizes)], rows)
        )
    return "\n\n".join(parts)


def _tensors(measured: dict[str, Any]) -> str:
    found = measured["audit"]
    counts, memory = found["of"], found["mib"]
    rows = [
        ["wall, s", *(f"{time:.2f}" for time in found["wall_s"])],
        ["processor, s", *(f"{time:.2f}" for time in found["cpu_s"])],
        ["memory, MiB", *(f"{mib:.0f}" for mib in memory)],
    ]
    kib = (memory[-1] - memory[0]) / (counts[-1] - counts[0]) * 1024
    return (
        "### Tensors\n\n"
        f"The audit of {measured['weights']:,} weights in ever more tensors, a test each: "
        f"{_fit(counts, found['cpu_s'], 'tensors')}. A tensor's test and record take {kib:.0f} KiB."
        f" As many empty tests as the last, without this plugin, take {measured['empty_s']:.2f} s "
        f"and {measured['empty_mib']:.0f} MiB.\n\n"
        + markdown(["tensors", *(f"{count:,}" for count in counts)], rows)
    )


def _workers(measured: dict[str, Any]) -> str:
    if not measured:
        return "### Workers\n\npytest-xdist is not installed: not measured."
    beyond = {n: found["wall_s"][1] - found["wall_s"][0] for n, found in measured.items()}
    rows = [
        [
            f"`-n {count}`",
            *(f"{time:.2f}" for time in found["wall_s"]),
            f"{beyond[count]:.2f}",
            f"{beyond['1'] / beyond[count]:.2f}",
            *(f"{mib:.0f}" for mib in found["mib"]),
        ]
        for count, found in measured.items()
    ]
    small, large = measured["1"]["of"]
    shared = [beyond["1"], beyond["2"]]
    fitted = f"{exponent([1, 2], shared):.2f}" if min(shared) > 0 else "not to be told"
    return (
        "### Workers\n\n"
        f"The audit of the pairs of {small} and of {large} MiB, seconds of the wall. What the "
        f"large one takes beyond the small one is the work that is shared: p = {fitted} of it "
        "from one worker to two, where -1 is half the time.\n\n"
        + markdown(
            ["", f"{small} MiB, s", f"{large} MiB, s", "beyond, s", "times as fast as `-n 1`",
             f"memory, {small} MiB", f"memory, {large} MiB"],
            rows,
        )
    )  # fmt: skip


def _exponent(sizes: Sequence[float], costs: Sequence[float]) -> str:
    return f"{exponent(sizes, costs):.3f}" if len(sizes) > 1 else "-"


def _fit(sizes: Sequence[float], costs: Sequence[float], unit: str) -> str:
    """The fit with a start, said so; with fewer than four points there is none."""
    if len(sizes) < 4:
        return "too few points to fit"
    a, b, p = with_start(sizes, costs)
    if p in (EXPONENTS[0], EXPONENTS[-1]):
        return "no p from 0.5 to 1.5 fits: the work is lost in what it takes to start"
    return f"{a:.2f} s + {b * 1e3:.3g} ms {unit}^p, **p = {p:.3f}**"


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
