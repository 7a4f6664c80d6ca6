"""What memory.py measured, in words and tables."""

from typing import Any

from results import markdown

HEADS = {
    "quantize": "quantize",
    "round trip": "quantize, dequantize",
    "compare codes": "compare what is stored",
    "quantize and compare": "quantize and compare",
    "compare arrays": "compare what is restored",
}


def section(measured: dict[str, Any]) -> str:
    """The section of the report."""
    said = (
        "`python benchmarks/memory.py`. The most memory (resident) that a job takes beside its "
        f"input, as a multiple of the input: 4096 x 4096 float32, {measured['input_mib']:g} MiB, "
        "at 4 bits in groups of 64 (gguf: of 32), one thread. Each job runs in a process of its "
        "own, which has imported all, has done the job on a small array and on this one, and has "
        "given back what malloc kept. Arrays that a contender is given to fill count as if it had "
        "made them; what it wants prepared (onnxruntime: the weight transposed) is input.\n\n"
        "To compare is to find the cosine, the SQNR and the largest error: this project sums in "
        "float64, the others in float32. Where a contender does not compare, numpy does, what it "
        "restored; for fbgemm torch does. In brackets is the least, which is the result: codes "
        "with their scales, and restored weights. Of a comparison it is nothing. What each "
        "restores was held to the accuracy of its format."
    )
    parts = ["## Memory", said, _jobs(measured["jobs"], measured["input_mib"])]
    if missing := measured["missing"]:
        named = ", ".join(f"{name} ({package})" for name, package in missing.items())
        parts.append(f"Not installed, and so left out: {named}.")
    return "\n\n".join([*parts, _runs(measured["runs"])])


def _jobs(measured: dict[str, Any], input_mib: float) -> str:
    rows = []
    for name, jobs in measured.items():
        stored = jobs["quantize"]["stored_mib"]
        floors = {"quantize": stored, "round trip": stored + input_mib}
        rows.append([name, f"{jobs['quantize']['sqnr_db']:.2f}"])
        for job in HEADS:
            peak = f"{jobs[job]['peak_mib'] / input_mib:.2f}" if job in jobs else "-"
            floor = f" ({floors[job] / input_mib:.2f})" if job in floors else ""
            rows[-1].append(peak + floor)
    return markdown(["", "SQNR, dB", *HEADS.values()], rows)


def _runs(measured: dict[str, Any]) -> str:
    sizes, peaks = measured["mib"], measured["anonymous_mib"]
    beyond = [(peak - peaks[0]) / size for size, peak in zip(sizes, peaks, strict=True)]
    rows = [
        ["memory, MiB", *(f"{peak:.0f}" for peak in peaks)],
        ["beyond the first, of the input", *(f"{multiple:.3f}" for multiple in beyond)],
    ]
    return (
        "### Whole audits\n\n"
        "`pytest --arrowquant-accuracy --arrowquant-original=A --arrowquant-quantized=B`, A of so "
        "many MiB in bfloat16 and B its INT4 copy: the most that the process has of its own "
        "(anonymous memory; mapped files are not in it), interpreter, libraries, kernels and "
        "charts included.\n\n" + markdown(["", *(f"{size} MiB" for size in sizes)], rows)
    )
