"""The sections of the report on speed and accuracy, from what the benchmarks measured."""

from collections.abc import Iterator
from typing import Any

from contenders import OPERATIONS
from results import (
    BY_NAME,
    DECIBELS_A_BIT,
    OURS,
    PEERS,
    USUAL,
    WIDTHS,
    Results,
    Row,
    cell,
    contenders_in,
    markdown,
)
from targets import (
    ALL_THREADS,
    LARGE,
    MIDDLE,
    ONE_THREAD,
    never_slower_table,
    outcome_table,
    with_quartiles,
)

LIMITS = """## Limits of this comparison

- The weights are normal and square, the groups those above; nothing here tells of activations, of
  other dtypes, or of a GPU, which most of the peers are made for.
- The peers run as installed from wheels: torchao eagerly, without torch.compile; of llama.cpp its
  Python package, and not its C library.
- onnxruntime's quantizers start threads of their own, whatever number is asked for.
- The bits per weight differ between formats of the same width (see Accuracy), and so do the bytes
  that they move.
- A machine that is shared, or busy, blurs all of it; the copy by turns with itself tells how much.
"""


def sections(results: Results) -> Iterator[str]:
    """Each with its heading."""
    yield _compared(results)
    yield _asked(results)
    yield from (
        _at(results, size, threads) for size in (LARGE, MIDDLE) for threads in results.threads
    )
    yield _by_size(results)
    yield _other_groups(results)
    yield _accuracy(results)
    yield _registers(results)
    yield _left_out(results)
    yield LIMITS


def _compared(results: Results) -> str:
    lines = [
        [
            contender.name,
            f"{contender.package} {results.machine['versions'][contender.package]}",
            ", ".join(map(str, contender.sqnr_db)),
            contender.zero,
            str(contender.group),
            "1, all" if contender.parallel else "1",
            ", ".join(contender.reuses) or "no",
            contender.note,
        ]
        for contender in contenders_in(results.all_of_contenders)
        if contender.name in USUAL or not contender.ours
    ]
    header = ("contender", "of", "bits", "zero", "group", "threads", "reuses its output", "how")
    return f"""## What was compared with what

Every contender works on the same array: float32, square, standard normal, drawn with a fixed seed.
Weights share scales in groups of 64 along a row, where the table does not say otherwise. What can
write into an array that it is given does so; the others allocate their results, with malloc set to
keep its pages (`malloc` above), so that they do not pay for page faults at every call.

Before each round of an operation `np.copyto` of the same array was timed, on one thread, in the
same process, so the two alternate. **x `np.copyto`** is the median time of the copy over that of
the operation; brackets have the quartiles of that ratio over single rounds. There were 9 rounds,
25 where a round takes under 4 ms, and as many calls a round as fill 1 ms. **GB/s** are the bytes
that an operation must move (float32 in or out, codes, scales and zeros) over its median time. The
**roofline** is the x `np.copyto` that it would have if it moved them at the bandwidth of the copy;
what mostly reads can do better than that, as a copy writes half of what it moves.

Each benchmark asserts that what its contender restores has the SQNR of its format, within 0.5 dB,
so that none is fast because it is wrong. Compared are, for each row, dot, norms, squared and
largest error: here from the codes, in float64 sums, from which the dot follows; by numpy and torch
in float32, of arrays that lie restored in memory (quantize-and-compare restores them).

{markdown(header, lines)}"""


def _asked(results: Results) -> str:
    most = results.threads[-1]
    copy = results.one(operation="copyto", size=LARGE)
    noise = with_quartiles(copy) if copy else "not measured"
    text = f"""## Asked and measured

The copy of {LARGE} x {LARGE} by turns with itself, which shows the noise of this run: {noise}.

Rivals are the fastest peer of the same width in the same run (x `np.copyto` in brackets), and for
compare numpy on arrays that lie restored in memory. One thread:

{outcome_table(results, ONE_THREAD, 1)}"""
    if most == 1:
        return text
    return f"""{text}

{most} threads; the copy has one:

{outcome_table(results, ALL_THREADS, most)}

{most} threads at {MIDDLE} x {MIDDLE} are never to be slower than one. So few weights are left to
one thread whatever is allowed (two begin at two million), so both columns are the same work, and
their difference the noise; *short* is where the upper quartile with {most} is below the lower with
one:

{never_slower_table(results, most)}"""


def _at(results: Results, size: int, threads: int) -> str:
    rows = results.all(size=size, threads=threads)
    names = [one.name for one in contenders_in(row for row in rows if "contender" in row)]
    names = [name for name in names if name not in OURS or name in USUAL]
    columns = [(operation, bits) for operation in OPERATIONS for bits in WIDTHS]
    lines = [
        [name]
        + [
            cell(
                results.one(
                    size=size, threads=threads, contender=name, operation=operation, bits=bits
                ),
                lambda row: f"{row['times_copyto']:.3g}",
            )
            for operation, bits in columns
        ]
        for name in names
    ]
    header = ["contender", *(f"{operation} {bits}" for operation, bits in columns)]
    limits = {name: results.one(operation=name, size=size) for name in ("copyto", "read", "write")}
    rates = ", ".join(
        cell(row, lambda row: f"{row['operation']} {row['gb_per_s']:.1f} GB/s")
        for row in limits.values()
    )
    word = "1 thread" if threads == 1 else f"{threads} threads"
    return f"""## {size} x {size}, {word}: x `np.copyto`

One thread of numpy: {rates}.

{markdown(header, lines)}"""


def _by_size(results: Results) -> str:
    def best(
        operation: str, bits: int, size: int, threads: int, names: tuple[str, ...]
    ) -> Row | None:
        rows = results.all(operation=operation, bits=bits, size=size, threads=threads)
        rows = [row for row in rows if row["contender"] in names]
        return max(rows, key=lambda row: float(row["times_copyto"]), default=None)

    lines = [
        [f"numpy {name}", "", "1", ""]
        + [
            cell(results.one(operation=name, size=size), lambda row: f"{row['gb_per_s']:.1f}")
            for size in results.sizes
        ]
        for name in ("copyto", "read", "write")
    ]
    for operation in ("quantize", "dequantize"):
        for bits in WIDTHS:
            for threads in results.threads:
                for who, names in (("symmetric", USUAL[:1]), ("best peer", PEERS)):
                    rows = [best(operation, bits, size, threads, names) for size in results.sizes]
                    cells = [
                        cell(row, lambda row: f"{row['times_copyto']:.2f} / {row['gb_per_s']:.1f}")
                        for row in rows
                    ]
                    lines.append([operation, str(bits), str(threads), who, *cells])
    header = ("operation", "bits", "threads", "", *(f"{size}²" for size in results.sizes))
    return f"""## Against the size: x `np.copyto` / GB/s, or GB/s alone

{markdown(header, lines)}"""


def _other_groups(results: Results) -> str:
    lines = []
    for operation in OPERATIONS:
        for size in (MIDDLE, LARGE):
            for name in OURS:
                cells = [
                    results.one(
                        operation=operation, size=size, contender=name, bits=bits, threads=1
                    )
                    for bits in WIDTHS
                ]
                contender = BY_NAME[name]
                lines.append(
                    [operation, f"{size} x {size}", contender.zero, str(contender.group)]
                    + [cell(row, _with_roofline) for row in cells]
                )
    header = ("operation", "array", "zero", "group", *(f"{bits} bits" for bits in WIDTHS))
    return f"""## This project's zeros and group sizes, one thread: x `np.copyto` (roofline)

{markdown(header, lines)}"""


def _with_roofline(row: Row) -> str:
    return f"{row['times_copyto']:.2f} ({row['roofline']:.2f})"


def _accuracy(results: Results) -> str:
    lines = []
    for bits in WIDTHS:
        for row in results.accuracy(bits):
            stored, sqnr_db = row["bits_per_weight"], row["sqnr_db"]
            lines.append(
                [
                    row["contender"],
                    str(bits),
                    f"{stored:.4g}",
                    f"{row['size']} x {row['size']}",
                    f"{row['cosine']:.6f}",
                    f"{sqnr_db:.2f}",
                    f"{DECIBELS_A_BIT * stored - sqnr_db:.2f}",
                ]
            )
    header = ("contender", "bits", "bits per weight", "array", "cosine", "SQNR dB", "gap dB")
    return f"""## Accuracy

In float64, on normal weights; the gap is to 6.02 dB times the true bits per weight, which nothing
can exceed. Bits per weight count codes, scales and zeros as they are stored.

{markdown(header, lines)}"""


def _registers(results: Results) -> str:
    row = results.one(operation="wide registers")
    if row is None:
        return "## Wide registers\n\nNot checked: the machine is no x86 with AVX2."
    lines = [
        [kernel, ", ".join(f"{name} {count}" for name, count in counts.items())]
        for kernel, counts in row["counts"].items()
    ]
    return f"""## Wide registers

Instructions of the compiled kernels that work on registers of 256 or 512 bits; the benchmark
asserts that each is there.

{markdown(("kernel", "instructions"), lines)}"""


def _left_out(results: Results) -> str:
    together: dict[tuple[Any, ...], list[Row]] = {}
    for row in results.left_out:
        key = (row.get("contender", row["name"]), row.get("operation", ""), row.get("threads", ""))
        together.setdefault(key, []).append(row)
    lines = [
        [*map(str, key), _distinct(rows, "bits"), _distinct(rows, "size"), rows[-1]["why"]]
        for key, rows in together.items()
    ]
    header = ("contender", "operation", "threads", "bits", "sizes", "why, for the last of these")
    return f"""## Left out

What would take over half a second a call, judged by calls at 1024 x 1024, or over two seconds to
prepare. Not every width was left out at every one of the sizes.

{markdown(header, lines) if lines else "Nothing."}"""


def _distinct(rows: list[Row], key: str) -> str:
    return ", ".join(dict.fromkeys(str(row[key]) for row in rows if key in row))
