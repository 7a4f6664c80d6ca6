"""The plots of the report, from what the benchmarks measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contenders import OPERATIONS, Contender
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from results import (
    BY_NAME,
    DECIBELS_A_BIT,
    OURS,
    USUAL,
    WIDTHS,
    Results,
    Row,
    contenders_in,
)
from targets import LARGE

COLOURS = {8: "#1b6ca8", 4: "#d9822b", 2: "#4c9a52"}
MARKERS = {8: "o", 4: "s", 2: "^"}
OUR_COLOURS = {"symmetric": "#1b6ca8", "integer": "#c0392b", "minimum": "#d9822b"}
OUR_MARKERS = {64: "*", 32: "P", 128: "X"}
PEER_MARKERS = "osD^v<>hpd8H"
BY_SIZE = ("arrowquant-symmetric", "arrowquant-integer", "fbgemm", "torchao", "numpy", "gguf")
WIDEST = 2.2  # bits per weight beyond the width, shown to scale
DPI = 110


def write_plots(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Write the PNGs; returns the file and the caption of each."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = [_times_copyto(results, threads) for threads in results.threads]
    plots += [_by_size(results), _accuracy(results)]
    for name, _, figure in plots:
        figure.savefig(folder / name, dpi=DPI)
    return [(name, caption) for name, caption, _ in plots]


def _panels(axes: Any) -> Iterator[Any]:
    for axis in axes.flat:
        axis.grid(color="0.88", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        yield axis


def _plain_log(axis: Any) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(10, (1, 2, 5) if axis.axis_name == "y" else (1, 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _times_copyto(results: Results, threads: int) -> tuple[str, str, Figure]:
    """A row a contender, a point a width, a panel an operation."""
    rows = [row for row in results.all(size=LARGE, threads=threads) if _usual(row)]
    names = [contender.name for contender in contenders_in(rows)]
    places = {name: place for place, name in enumerate(reversed(names))}
    figure = Figure(figsize=(14, 1.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(OPERATIONS), sharey=True, sharex=True)
    for axis, operation in zip(_panels(axes), OPERATIONS, strict=True):
        axis.axvline(1, color="0.3", linewidth=1, linestyle="--")
        for bits in WIDTHS:
            some = [row for row in rows if (row["operation"], row["bits"]) == (operation, bits)]
            axis.scatter(
                [row["times_copyto"] for row in some],
                [places[row["contender"]] for row in some],
                color=COLOURS[bits],
                marker=MARKERS[bits],
                s=42,
                alpha=0.85,
                label=f"{bits} bits",
                zorder=3,
            )
        axis.set_xscale("log")
        _plain_log(axis.xaxis)
        axis.set_title(operation, fontsize=11)
        axis.set_xlabel("x np.copyto")
    axes[0].set_yticks(list(places.values()), list(places))
    axes[-1].legend(loc="lower left", fontsize=9, framealpha=1)
    word = "1 thread" if threads == 1 else f"{threads} threads"
    figure.suptitle(f"{LARGE} x {LARGE} float32 (64 MiB), {word}: to the right is faster")
    caption = f"how fast beside np.copyto (dashed, 1 thread), {LARGE} x {LARGE}, {word}"
    return f"times_copyto_{threads}.png", caption, figure


def _usual(row: Row) -> bool:
    name = row.get("contender")
    return name is not None and (name in USUAL or name not in OURS)


def _by_size(results: Results) -> tuple[str, str, Figure]:
    """A panel an operation and width, a line a contender."""
    operations = OPERATIONS[:2]
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(len(operations), len(WIDTHS), sharex=True, sharey=True)
    panels = _panels(axes)
    for operation in operations:
        for bits in WIDTHS:
            axis = next(panels)
            _line(axis, results.all(operation="copyto"), "np.copyto", color="0.3", linestyle="--")
            for name in BY_SIZE:
                rows = results.all(operation=operation, bits=bits, contender=name, threads=1)
                _line(axis, rows, name, marker="o", linewidth=2.4 if name in OURS else 1.2)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(results.sizes, [str(size) for size in results.sizes])
            axis.xaxis.set_minor_locator(NullLocator())
            _plain_log(axis.yaxis)
            axis.set_title(f"{operation}, {bits} bits", fontsize=11)
    for first in axes[:, 0]:
        first.set_ylabel("GB/s moved")
    for last in axes[-1]:
        last.set_xlabel("side of the square float32 array")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle("Bytes moved a second against the size of the array, 1 thread")
    return "gb_per_s.png", "bytes moved a second against the size, 1 thread", figure


def _line(axis: Any, rows: list[Row], label: str, **style: Any) -> None:
    rows = sorted(rows, key=lambda row: int(row["size"]))
    sides, rates = [row["size"] for row in rows], [row["gb_per_s"] for row in rows]
    axis.plot(sides, rates, label=label, markersize=4, **style)


def _accuracy(results: Results) -> tuple[str, str, Figure]:
    """A panel a width, a point a contender, below the line that nothing can cross."""
    figure = Figure(figsize=(14, 5.6), layout="constrained")
    axes = figure.subplots(1, len(WIDTHS))
    handles: dict[str, Any] = {}
    for axis, bits in zip(_panels(axes), reversed(WIDTHS), strict=True):
        rows = results.accuracy(bits)
        axis.plot(
            [bits, bits + WIDEST],
            [DECIBELS_A_BIT * bits, DECIBELS_A_BIT * (bits + WIDEST)],
            color="0.3",
            linestyle="--",
            linewidth=1.2,
        )
        beyond = [row for row in rows if row["bits_per_weight"] > bits + WIDEST]
        for row in rows:
            if row not in beyond:
                handles[row["contender"]] = axis.scatter(
                    row["bits_per_weight"], row["sqnr_db"], **_style(BY_NAME[row["contender"]])
                )
        for row in beyond:
            text = f"beyond: {row['contender']}\n{row['bits_per_weight']:.1f} bits, "
            axis.annotate(
                f"{text}{row['sqnr_db']:.1f} dB", (0.98, 0.03), xycoords="axes fraction", ha="right"
            )
        axis.set_title(f"{bits} bits", fontsize=11)
        axis.set_xlabel("bits per weight, scales and zeros included")
        axis.set_ylim(min(row["sqnr_db"] for row in rows) - 2, DECIBELS_A_BIT * (bits + WIDEST))
    axes[0].set_ylabel("SQNR, dB")
    names = [name for name in BY_NAME if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside right upper", fontsize=8)
    figure.suptitle("SQNR of normal weights against what is stored; dashed: 6.02 dB a bit")
    return "accuracy.png", "SQNR against the bits stored per weight, of every contender", figure


def _style(contender: Contender) -> dict[str, Any]:
    """This project in colour: its zero by the hue, its group size by the marker."""
    if contender.ours:
        marker = OUR_MARKERS[contender.group]
        return {"color": OUR_COLOURS[contender.zero], "marker": marker, "s": 80, "zorder": 3}
    peers = [name for name in BY_NAME if name not in OURS]
    place = peers.index(contender.name)
    return {
        "facecolor": "none",
        "edgecolor": f"C{place % 10}",
        "marker": PEER_MARKERS[place % len(PEER_MARKERS)],
        "s": 50,
        "linewidth": 1.4,
        "zorder": 4,
    }
