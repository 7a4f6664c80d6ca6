"""The charts of a run: six views of its records, each as PNG and SVG."""

from collections.abc import Callable, Sequence
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..plain import Plain
from . import write_whole
from .audit_text import is_audited
from .chart_parts import (
    CROWD,
    DEEP,
    FAILED,
    GOLDEN,
    GREY,
    MOST_NINES,
    MOST_ROWS,
    PALE,
    STYLE,
    Dot,
    Entry,
    Row,
    bits_of,
    cosine_text,
    draw_dots,
    draw_legend,
    entry_of,
    grouped,
    legend_key,
    looks,
    nines,
    row_chart,
    shown_text,
    without,
    worst_first,
    worst_shown,
)
from .depth_chart import depth
from .gain_chart import optimization_gain
from .gains import gain_of, split
from .places import places_of
from .ranking import margin_share
from .tradeoff_chart import tradeoff

DPI = 150


def write_charts(records: list[Plain], directory: Path) -> list[Path]:
    """Write the charts of these records, in the form of accuracy.json, into `directory`.

    Returns the paths. A chart of which there is nothing to draw is not written, and one of an
    earlier run, which would contradict the new report, is removed.
    """
    paths = []
    places = places_of(record["name"] for record in records if is_audited(record))
    shown = {id(record): entry_of(record, places.get(record["name"])) for record in records}
    with matplotlib.style.context(["default", STYLE]):
        for name, (draw, choose) in CHARTS.items():
            entries = [shown[id(record)] for record in sorted(choose(records), key=bits_of)]
            figure = draw(entries) if entries else None
            if figure is not None:
                _lay_out(figure)
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                path = directory / f"{name}.{kind}"
                if figure is None:
                    path.unlink(missing_ok=True)
                    continue
                image = BytesIO()
                figure.savefig(image, format=kind, dpi=DPI, metadata=metadata)
                paths.append(write_whole(path, [image.getvalue()]))
    return paths


def _lay_out(figure: Figure) -> None:
    """Put everything in its place: for each format savefig draws the whole figure to do that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine(None)


def _single(records: list[Plain]) -> list[Plain]:
    """All but the comparison, and the plain tensors of an audit that are what they should be."""
    single = split(records)[0]
    return [r for r in single if r.get("stored_as") != "plain" or not r["passed"]]


def _audited(records: list[Plain]) -> list[Plain]:
    return [record for record in _single(records) if is_audited(record)]


def _compared(records: list[Plain]) -> list[Plain]:
    """The records of the comparison; none where there is no gain to draw."""
    compared = split(records)[1]
    return compared if any(gain_of(record) is not None for record in compared) else []


def _cosine_chart(
    entries: Sequence[Entry], rows: Sequence[Row], attribute: str, title: str, *notes: str
) -> Figure:
    """Cosines and their targets, coloured by subject; or by width, then also by layer."""
    by_layer = attribute == "width"
    figure, axes = row_chart(rows, 8.0, title, *notes)
    colours, markers = looks(entries, attribute)
    targets: set[tuple[float, int, str]] = set()
    dots: list[Dot] = []
    for y, (*_, group) in enumerate(rows):
        for at, entry in enumerate(group):
            colour, layers = colours[getattr(entry, attribute)], entry.record["layers"]
            if entry.target is not None:
                targets.add((nines(entry.target), y, colour if by_layer else "black"))
            cosine = layers["cosine_mean"] if by_layer else entry.cosine
            if cosine is not None:
                spread = 0.5 * (at * GOLDEN % 1 - 0.5) * (len(group) > CROWD)
                look = (entry.failed, colour, markers[entry.quantizer])
                dots.append((nines(cosine), y + spread, *look))
            if cosine is not None and by_layer:
                ends = nines(layers["cosine_min"]), nines(layers["cosine_max"])
                axes.hlines(y, *ends, color=colour, lw=5, alpha=0.4)
    for x, y, line in sorted(targets):
        axes.plot([x, x], [y - 0.5, y + 0.5], color=line, lw=1.2)
    draw_dots(axes, dots)
    _name_nines(axes)
    target = legend_key("target", color=GREY if by_layer else "black", marker="", ls="-")
    draw_legend(figure, colours, markers, target)
    return figure


def _name_nines(axes: Axes) -> None:
    """Ticks at whole nines (finer ones where there is room) that do not run into each other."""
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high - low < 3 else (1,)
    lacks = [(2, 0), (1, 0), (5, 1), *((s, p) for p in range(1, MOST_NINES) for s in steps)]
    ticks = {nines(1 - s * 10.0**-p): f"{1 - s * 10.0**-p:.{p}f}" for s, p in lacks}
    shown, end = {}, -inf
    for at, text in sorted({**ticks, float(MOST_NINES): "1"}.items()):
        half = 0.008 * (len(text) + 1) * (high - low)
        if low <= at <= high:
            shown[at] = text if at - half >= end else ""
            end = at + half if shown[at] else end
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set(xlim=(low, high), xlabel="cosine to the original weights, spaced by its nines")
    axes.grid(axis="x")


def _result(entries: list[Entry]) -> str:
    """The text to the right of a row: its lowest cosine, and what failed."""
    cosines = [entry.cosine for entry in entries if entry.cosine is not None]
    text = cosine_text(min(cosines, default=None))
    failed = sum(entry.failed for entry in entries)
    if len(entries) > 1:
        return f"lowest of {len(entries)}: {text}{f'  ✗ {failed} failed' if failed else ''}"
    return f"{text}  ✗ {', '.join(entries[0].missed)}" if failed else text


def _result_by_layer(entries: list[Entry]) -> str:
    """As above; of a record of several layers, the worst by name."""
    worst = entries[0].record["layers"]["worst"]
    if len(entries) > 1 or len(worst) < 2:
        return _result(entries)
    lowest = min(worst, key=lambda layer: layer["cosine"])
    cross = "✗ " if entries[0].failed else ""
    return f"{cross}{cosine_text(lowest['cosine'])}  {shown_text(lowest['name'])}"


def _by_bit_width(entries: Sequence[Entry]) -> Figure:
    """Cosine and its target: a block a width, in it a row a subject and quantizer."""
    many = len(grouped(entries, "width", "subject", "quantizer")) > MOST_ROWS
    rows: list[Row] = []
    for (width,), block in grouped(entries, "width").items():
        bounds = {entry.target for entry in block} - {None}
        rows.append((width, f"target {bounds.pop():g}" if len(bounds) == 1 else "", []))
        for names, group in grouped(block, *[] if many else ["subject"], "quantizer").items():
            rows.append((" · ".join(filter(None, names)) or "all", _result(group), group))
    return _cosine_chart(
        entries,
        rows,
        "subject",
        "Accuracy by bit width",
        "Right: the cosine, and the targets and guards that are missed (✗).",
        without((entry for entry in entries if entry.cosine is None), "metrics"),
    )


def _layers(entries: Sequence[Entry]) -> Figure:
    """How cosine spreads over the layers: a row a record, or a row a tensor of a checkpoint."""
    groups = list(grouped(entries, "tensor").items())
    if len(groups) > MOST_ROWS or any(entry.tensor != entry.label for entry in entries):
        groups.sort(key=lambda item: worst_first(item[1], _lowest))
    return _cosine_chart(
        entries,
        [(name, _result_by_layer(group), group) for (name,), group in groups[:MOST_ROWS]],
        "width",
        "Accuracy of the layers",
        "Dot: the mean of a record's layers, or its one tensor. Bar: lowest to highest layer.",
        "Right: the lowest of them.",
        worst_shown(len(groups), "rows"),
        without((e for e in entries if e.record["layers"]["cosine_mean"] is None), "metrics"),
    )


def _lowest(entry: Entry) -> float:
    cosine = entry.record["layers"]["cosine_min"]
    return -1.0 if cosine is None else float(cosine)


def _target_achievement(entries: Sequence[Entry]) -> Figure:
    """Records against metrics: passed or missed, and how far from the bound."""
    ranked = sorted(entries, key=lambda entry: worst_first([entry], lambda e: e.room))
    many = len(entries) > MOST_ROWS or any(entry.place for entry in entries)
    shown = ranked[:MOST_ROWS] if many else entries
    lists = sorted((entry.record["targets"] for entry in shown), key=len, reverse=True)
    metrics = list(dict.fromkeys(target["metric"] for targets in lists for target in targets))
    figure, axes = row_chart(
        [(e.label, f"{len(e.missed)} missed" if e.failed else "", [e]) for e in shown],
        max(7.0, 0.85 * len(metrics)),
        f"Targets and guards: {sum(e.failed for e in entries)} of {len(entries)} records failed",
        "✓ passed, paler where nearer to the bound; ✗ missed; blank where it does not apply.",
        "The number is the margin: dB for SQNR, floor and ceiling, else the metric's own unit.",
        worst_shown(len(entries), "records"),
        without((entry for entry in entries if entry.cosine is None), "metrics"),
    )
    cells = np.ones((len(shown), max(len(metrics), 1), 3))
    for y, entry in enumerate(shown):
        for target in entry.record["targets"]:
            x = metrics.index(target["metric"])
            cells[y, x] = _cell(axes, x, y, target)
    edges = [np.arange(size + 1) - 0.5 for size in cells.shape[:2]]
    axes.pcolormesh(edges[1], edges[0], cells, edgecolors="white", linewidth=1)
    missed = [sum(metric in entry.missed for entry in entries) for metric in metrics]
    heads = [
        "\n".join((*metric.split("_", 1), f"✗ {number}" if number else "✓ all"))
        for metric, number in zip(metrics, missed, strict=True)
    ]
    axes.set_xticks(range(len(metrics)), heads)
    axes.tick_params(axis="x", length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    for head, number in zip(axes.get_xticklabels(), missed, strict=True):
        head.set(color=FAILED if number else "black", weight="bold" if number else "normal")
    for side in figure.axes:
        side.spines["bottom"].set_visible(False)
    return figure


def _cell(axes: Axes, x: int, y: int, target: Plain) -> Any:
    """Write a cell of the matrix; returns its colour."""
    margin, passed = target["margin"], target["passed"]
    number = "" if margin is None else f"{margin:+.{2 if abs(margin) < 100 else 3}g}"
    text = f"{'✓' if passed else '✗'} {'0' if margin == 0 else number}"
    colour, weight = ("black", "normal") if passed else ("white", "bold")
    axes.text(x, y, text, color=colour, weight=weight, ha="center", va="center", fontsize=8)
    return PALE + (DEEP - PALE) * min(margin_share(target), 1.0) if passed else to_rgb(FAILED)


Draw = Callable[[Sequence[Entry]], Figure | None]
Choose = Callable[[list[Plain]], list[Plain]]
CHARTS: dict[str, tuple[Draw, Choose]] = {
    "accuracy_by_bit_width": (_by_bit_width, _single),
    "target_achievement": (_target_achievement, _single),
    "accuracy_compression_tradeoff": (tradeoff, _single),
    "layers": (_layers, _single),
    "optimization_gain": (optimization_gain, _compared),
    "depth": (depth, _audited),
}
